"""DNS messages (RFC 1035): a question, and its answer with addresses or without."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

A: Final = 1
AAAA: Final = 28
IN: Final = 1
NO_ERROR: Final = 0
FORMAT_ERROR: Final = 1
NAME_ERROR: Final = 3  # "NXDOMAIN"
TTL_S: Final = 30
MAX_LABEL: Final = 63
MAX_NAME: Final = 253

_HEADER: Final = struct.Struct("!6H")  # id, flags, counts of question, answer, authority, extra
_QUESTION: Final = struct.Struct("!2H")  # type, class
_RECORD: Final = struct.Struct("!3HIH")  # pointer to the name, type, class, ttl, length
_QUERY_FLAGS: Final = 0x0100  # recursion desired
_ANSWER_FLAGS: Final = 0x8580  # answer, authoritative, recursion desired and available
_NAME_AT_12: Final = 0xC00C  # compression pointer to the question's name


class MessageError(ValueError):
    """Bytes that are no DNS message of the kind expected."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question; `name` in lower case without the last dot."""

    ident: int
    name: str
    qtype: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the response code and the addresses."""

    ident: int
    rcode: int
    addresses: tuple[str, ...]


def encode_query(query: Query) -> bytes:
    """The message that asks `query`; MessageError when its name is no host name."""
    header = _HEADER.pack(query.ident, _QUERY_FLAGS, 1, 0, 0, 0)
    return header + _question(query)


def decode_query(message: bytes) -> Query:
    """The question of `message`; MessageError when it is cut, an answer, or not one question."""
    ident, flags, questions, *_ = _header(message)
    if flags & 0x8000 or questions != 1:
        raise MessageError("not one question")
    name, end = _name(message, _HEADER.size)
    if end + _QUESTION.size > len(message):
        raise MessageError("the question is cut")
    qtype, qclass = _QUESTION.unpack_from(message, end)
    if qclass != IN:
        raise MessageError(f"class {qclass}")
    return Query(ident, name, qtype)


def encode_answer(query: Query, addresses: tuple[str, ...], rcode: int = NO_ERROR) -> bytes:
    """The answer to `query` with one record per address, all of the question's type."""
    header = _HEADER.pack(query.ident, _ANSWER_FLAGS | rcode, 1, len(addresses), 0, 0)
    records = b"".join(
        _RECORD.pack(_NAME_AT_12, query.qtype, IN, TTL_S, len(packed)) + packed
        for packed in (ip_address(address).packed for address in addresses)
    )
    return header + _question(query) + records


def decode_answer(message: bytes) -> Answer:
    """The answer in `message`, records with compressed names as `encode_answer` writes them."""
    ident, flags, questions, count, *_ = _header(message)
    if not flags & 0x8000 or questions != 1:
        raise MessageError("not an answer to one question")
    at = _name(message, _HEADER.size)[1] + _QUESTION.size
    addresses = []
    for _ in range(count):
        if at + _RECORD.size > len(message):
            raise MessageError("a record is cut")
        length = _RECORD.unpack_from(message, at)[4]
        at += _RECORD.size
        packed = message[at : at + length]
        if len(packed) not in {4, 16} or len(packed) != length:
            raise MessageError("a record without an address")
        addresses.append(str(ip_address(packed)))
        at += length
    return Answer(ident, flags & 0xF, tuple(addresses))


def _header(message: bytes) -> tuple[int, ...]:
    if len(message) < _HEADER.size:
        raise MessageError("shorter than a header")
    fields: tuple[int, ...] = _HEADER.unpack_from(message)
    return fields


def _question(query: Query) -> bytes:
    labels = [label.encode("ascii") for label in query.name.split(".")]
    if not all(0 < len(label) <= MAX_LABEL for label in labels) or len(query.name) > MAX_NAME:
        raise MessageError(f"not a host name: {query.name!r}")
    name = b"".join(bytes((len(label),)) + label for label in labels)
    return name + b"\0" + _QUESTION.pack(query.qtype, IN)


def _name(message: bytes, at: int) -> tuple[str, int]:
    """The name at offset `at` and the offset after it; a question's name is never compressed."""
    labels: list[str] = []
    while at < len(message):
        length = message[at]
        at += 1
        if not length:
            return ".".join(labels).lower(), at
        if length > MAX_LABEL or at + length > len(message):
            raise MessageError("a label is cut or compressed")
        labels.append(message[at : at + length].decode("latin-1"))
        at += length
    raise MessageError("the name has no end")
