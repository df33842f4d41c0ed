"""DNS messages of the demo: whole ones survive, broken ones are one kind of error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.launcher.demo.dns_message import (
    AAAA,
    NAME_ERROR,
    A,
    Answer,
    MessageError,
    Query,
    decode_answer,
    decode_query,
    encode_answer,
    encode_query,
)

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)
QUERY = st.builds(Query, ident=st.integers(0, 65535), name=NAME, qtype=st.sampled_from([A, AAAA]))


@given(QUERY)
def test_a_question_survives(query: Query) -> None:
    assert decode_query(encode_query(query)) == query


@given(QUERY, st.data())
def test_an_answer_survives(query: Query, data: st.DataObject) -> None:
    version = st.ip_addresses(v=4 if query.qtype == A else 6).map(str)
    addresses = tuple(data.draw(st.lists(version, max_size=5)))
    message = encode_answer(query, addresses)
    assert decode_answer(message) == Answer(query.ident, 0, addresses)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(message: bytes) -> None:
    for decode in (decode_query, decode_answer):
        with contextlib.suppress(MessageError):
            decode(message)


@given(QUERY, st.data())
def test_a_cut_message_is_an_error(query: Query, data: st.DataObject) -> None:
    whole = encode_query(query)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(MessageError):
        decode_query(whole[:cut])
    whole = encode_answer(query, ("192.0.2.1",))
    with pytest.raises(MessageError):
        decode_answer(whole[: -1 - cut % 4])


def test_a_question_is_as_rfc_1035_says() -> None:
    message = encode_query(Query(0x1234, "a.example", AAAA))
    assert message.hex() == "123401000001000000000000" + "0161076578616d706c6500" + "001c0001"


def test_an_answer_points_back_to_the_questions_name() -> None:
    message = encode_answer(Query(0x1234, "a.example", A), ("192.0.2.7",))
    assert message.hex() == (
        "123485800001000100000000" + "0161076578616d706c6500" + "00010001"
        "c00c" + "00010001" + "0000001e" + "0004" + "c0000207"
    )


@pytest.mark.parametrize("message", [encode_query(Query(1, "a", A)), bytes(2) + b"\x85\x80" + bytes(8)])
def test_what_is_no_answer_to_one_question_is_refused(message: bytes) -> None:
    with pytest.raises(MessageError, match="not an answer to one question"):
        decode_answer(message)


def test_a_record_that_is_no_address_is_refused() -> None:
    whole = bytearray(encode_answer(Query(1, "a", A), ("192.0.2.1",)))
    whole[-5] = 3
    with pytest.raises(MessageError, match="a record without an address"):
        decode_answer(bytes(whole))


def test_the_name_error_is_told() -> None:
    answer = decode_answer(encode_answer(Query(1, "gone.example", A), (), NAME_ERROR))
    assert (answer.rcode, answer.addresses) == (NAME_ERROR, ())


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, ".".join(["abcdefgh"] * 40)])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(MessageError, match="not a host name"):
        encode_query(Query(1, name, A))


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [(2, 0x80, "not one question"), (5, 2, "not one question"), (-1, 3, "class 3"), (12, 0xC0, "label")],
)
def test_other_messages_are_not_taken_for_questions(at: int, value: int, reason: str) -> None:
    message = bytearray(encode_query(Query(1, "a.example", A)))
    message[at] = value
    with pytest.raises(MessageError, match=reason):
        decode_query(bytes(message))
