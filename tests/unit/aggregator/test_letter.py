"""Letters: what comes of their bytes, and of those of strangers."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator import letter
from services.aggregator.letter import LetterError
from services.aggregator.names import Names
from tests.fuzz.seeds import letters

LETTERS = letters()


@pytest.mark.parametrize("raw", LETTERS)
def test_a_letter_is_what_its_bytes_say(raw: bytes) -> None:
    read = letter.decode(Names(), raw)
    again = letter.decode(Names(), letter.encode(read))
    assert [one.plain() for one in again.rounds] == [one.plain() for one in read.rounds]
    assert (again.boot, again.seq, again.shard, again.whole) == (read.boot, read.seq, read.shard, read.whole)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_letter(raw: bytes) -> None:
    with pytest.raises(LetterError):
        letter.decode(Names(), raw)


def changed(place: tuple[int, ...], value: Any) -> bytes:
    """The fullest letter with one value replaced."""
    whole = msgpack.unpackb(max(LETTERS, key=len))
    where = whole
    for at in place[:-1]:
        where = where[at]
    where[place[-1]] = value
    packed: bytes = msgpack.packb(whole)
    return packed


ROUNDS = 9


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((0,), 99),
        ((1,), 7),
        ((2,), -1),
        ((3,), 1 << 63),
        ((6,), 1 << 62),
        ((7,), -1),
        ((8,), "now"),
        ((ROUNDS,), 5),
        ((ROUNDS, 0), []),
        ((ROUNDS, 0, 0), [["old"]]),
        ((ROUNDS, 0, 1), [["boot", 1, "uid", 1 << 62, 0, 0, 0, "full", True]]),
        ((ROUNDS, 0, 1), [["boot", 1, "uid", 0, 0, 0, 0, "seldom", True]]),
        ((ROUNDS, 0, 1), [["boot", -1, "uid", 0, 0, 0, 0, "full", True]]),
        ((ROUNDS, 0, 2), [["boot"]]),
        ((ROUNDS, 0, 3), [["boot", 1 << 62, [1]]]),
        ((ROUNDS, 0, 4), [["uid", 0, 0, 1, 1, -1, 1, False]]),
        ((ROUNDS, 0, 5), [["uid", 0, 1 << 63, 1, 1, 1]]),
        ((ROUNDS, 0, 6), [["uid", -1, 1]]),
        ((ROUNDS, 0, 7), [[1, [], [], []], [1, b"\1"]]),
    ],
)
def test_what_cannot_be_is_refused(place: tuple[int, ...], value: Any) -> None:
    with pytest.raises(LetterError):
        letter.decode(Names(), changed(place, value))


def test_more_than_interfaces_count_is_refused() -> None:
    whole = msgpack.unpackb(max(LETTERS, key=len))
    pairs = next(one[7][0] for one in whole[ROUNDS] if one[7] is not None)
    count, columns = pairs[0], pairs[3]
    columns[-1] = [8, (1 << 63).to_bytes(8, "little") * count]
    with pytest.raises(LetterError, match="more than interfaces can count"):
        letter.decode(Names(), msgpack.packb(whole))
    columns[-1], columns[0] = [0, b""], [8, (1 << 63).to_bytes(8, "little") * count]
    with pytest.raises(LetterError, match="a time is out of bounds"):
        letter.decode(Names(), msgpack.packb(whole))
