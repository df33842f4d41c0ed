"""Reads packets from pcap and pcapng files, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, unpack
from typing import BinaryIO, Final, NamedTuple

from services.capture.frames import LinkType
from services.runtime.errors import UsageError

_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1),
    b"\xa1\xb2\xc3\xd4": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1000),
}
"""By magic: byte order, and by what fractions of a second are to be divided for microseconds."""
_SECTION: Final = b"\x0a\x0d\x0d\x0a"
_ORDERS: Final = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_GZIP: Final = b"\x1f\x8b"
_LARGEST: Final = 16 * 1024 * 1024
"""The largest packet or block that is believed; libpcap's own bound is smaller."""
# Numbers that some systems write for the same link types.
_ALIASES: Final = {12: LinkType.RAW_IP, 14: LinkType.RAW_IP}
_KNOWN_NAMES: Final = {
    105: "802.11",
    127: "802.11 with radiotap",
    9: "PPP",
    50: "PPP over serial",
    192: "PPI",
    187: "Bluetooth HCI",
    189: "USB",
    220: "USB",
    147: "user 0",
    239: "netfilter log",
    253: "netlink",
    276: "Linux cooked v2",
}
_IDB, _OLD_PACKET, _SIMPLE, _ENHANCED = 1, 2, 3, 6
_TSRESOL, _TSOFFSET = 9, 14


class Packet(NamedTuple):
    """One captured packet; `interface` counts from 0 within its file."""

    time_us: int
    interface: int
    link_type: LinkType
    length: int
    """On the wire, which may be more than what was captured."""
    data: bytes


class _CutError(Exception):
    """The file ends within a record."""


@dataclass(slots=True)
class _Reader:
    """A file with its position; `name` is what errors call it."""

    name: str
    stream: BinaryIO
    at: int = 0
    packets: int = 0

    def exactly(self, size: int) -> bytes:
        """So many bytes; raises _CutError where there are fewer."""
        try:
            data = self.stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _CutError(str(error)) from error
        except OSError as error:
            raise UsageError(f"cannot read {self.name}: {error.strerror or error}") from error
        if len(data) < size:
            raise _CutError
        self.at += size
        return data

    def maybe(self, size: int) -> bytes | None:
        """So many bytes, None where the file ends just here; raises _CutError."""
        try:
            first = self.stream.read(1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _CutError(str(error)) from error
        if not first:
            return None
        self.at += 1
        return first + self.exactly(size - 1)

    def wrong(self, what: str) -> UsageError:
        """An error at the current position."""
        return UsageError(
            f"{self.name} is damaged at byte {self.at}: {what} ({self.packets} packets before it are whole)"
        )


def check(path: Path) -> None:
    """Raise UsageError unless the file begins like one that can be read."""
    with _open(path) as stream:
        _magic(_Reader(str(path), stream))


def packets(path: Path) -> Iterator[Packet]:
    """The packets of a file in its order.

    Raises UsageError where the file is missing, unreadable, of another kind or damaged, and where
    it is cut: after the last whole packet.
    """
    with _open(path) as stream:
        reader = _Reader(str(path), stream)
        magic = _magic(reader)
        records = _pcapng(reader) if magic == _SECTION else _pcap(reader, *_PCAP[magic])
        try:
            for packet in records:
                reader.packets += 1
                yield packet
        except _CutError:
            raise UsageError(
                f"{path} is cut at byte {reader.at}, in the middle of a record: its first {reader.packets} packets are whole"
            ) from None


def _open(path: Path) -> BinaryIO:
    try:
        stream = path.open("rb")
        magic = stream.read(2)
        stream.seek(0)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if magic == _GZIP:
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    return stream


def _magic(reader: _Reader) -> bytes:
    try:
        magic = reader.exactly(4)
    except _CutError:
        raise UsageError(f"{reader.name} is no capture: it has less than 4 bytes") from None
    if magic != _SECTION and magic not in _PCAP:
        raise UsageError(f"{reader.name} is neither pcap nor pcapng: it begins with {magic.hex()}")
    return magic


def _link_type(reader: _Reader, number: int) -> LinkType:
    try:
        return _ALIASES.get(number) or LinkType(number)
    except ValueError:
        name = f" ({_KNOWN_NAMES[number]})" if number in _KNOWN_NAMES else ""
        known = ", ".join(f"{one.name.lower()} {one.value}" for one in LinkType)
        raise UsageError(f"{reader.name} has the link type {number}{name}; what can be read is {known}") from None


def _pcap(reader: _Reader, order: str, divisor: int) -> Iterator[Packet]:
    network = unpack(order + "HHiIII", reader.exactly(20))[5]
    # The upper bits say how many bytes of checksum follow a frame.
    link_type = _link_type(reader, network & 0xFFFF)
    header = Struct(order + "IIII")
    while (raw := reader.maybe(header.size)) is not None:
        seconds, fraction, captured, length = header.unpack(raw)
        if captured > _LARGEST:
            raise reader.wrong(f"a packet of {captured} bytes is announced")
        yield Packet(seconds * 1_000_000 + fraction // divisor, 0, link_type, length, reader.exactly(captured))


@dataclass(slots=True)
class _Interface:
    """What an interface description block says."""

    link_type: LinkType
    snap_bytes: int
    per_second: int = 1_000_000
    offset_us: int = 0


@dataclass(slots=True)
class _Section:
    """What holds until the next section header."""

    order: str
    first: int
    interfaces: list[_Interface] = field(default_factory=list)


def _pcapng(reader: _Reader) -> Iterator[Packet]:
    section = _section(reader, 0)
    while (raw := reader.maybe(4)) is not None:
        if raw == _SECTION:
            section = _section(reader, section.first + len(section.interfaces))
            continue
        kind, length = unpack(section.order + "II", raw + reader.exactly(4))
        if length < 12 or length % 4 or length > _LARGEST:
            raise reader.wrong(f"a block of {length} bytes is announced")
        body = reader.exactly(length - 8)[:-4]
        if kind == _IDB:
            section.interfaces.append(_description(reader, section, body))
        elif kind in {_ENHANCED, _OLD_PACKET, _SIMPLE}:
            yield _packet(reader, section, kind, body)


def _section(reader: _Reader, first: int) -> _Section:
    raw = reader.exactly(8)
    order = _ORDERS.get(raw[4:])
    if order is None:
        raise reader.wrong("a section has no byte-order mark")
    length = unpack(order + "I", raw[:4])[0]
    if length < 28 or length % 4 or length > _LARGEST:
        raise reader.wrong(f"a section header of {length} bytes is announced")
    reader.exactly(length - 12)
    return _Section(order, first)


def _description(reader: _Reader, section: _Section, body: bytes) -> _Interface:
    if len(body) < 8:
        raise reader.wrong("an interface description is too short")
    number, snap_bytes = unpack(section.order + "HxxI", body[:8])
    one = _Interface(_link_type(reader, number), snap_bytes)
    at = 8
    while at + 4 <= len(body):
        code, length = unpack(section.order + "HH", body[at : at + 4])
        value = body[at + 4 : at + 4 + length]
        if code == _TSRESOL and value:
            one.per_second = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _TSOFFSET and len(value) == 8:
            one.offset_us = unpack(section.order + "q", value)[0] * 1_000_000
        elif code == 0:
            break
        at += 4 + (length + 3) // 4 * 4
    return one


def _packet(reader: _Reader, section: _Section, kind: int, body: bytes) -> Packet:
    order, ticks = section.order, 0
    if len(body) < (4 if kind == _SIMPLE else 20):
        raise reader.wrong("a packet block is too short")
    if kind == _SIMPLE:
        number, length = 0, unpack(order + "I", body[:4])[0]
        start, captured = 4, -1
    else:
        layout = "IIIII" if kind == _ENHANCED else "HxxIIII"
        number, high, low, captured, length = unpack(order + layout, body[:20])
        ticks, start = high << 32 | low, 20
    if number >= len(section.interfaces):
        raise reader.wrong(f"a packet names interface {number}, which is not described")
    interface = section.interfaces[number]
    if captured < 0:
        captured = min(length, interface.snap_bytes or length, len(body) - start)
    if captured > len(body) - start:
        raise reader.wrong("a packet is longer than its block")
    time_us = ticks * 1_000_000 // interface.per_second + interface.offset_us
    data = body[start : start + captured]
    return Packet(time_us, section.first + number, interface.link_type, length, data)
