"""Reads packets from pcap and pcapng files, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, unpack
from typing import BinaryIO, Final, NamedTuple, cast

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
"""The largest packet or block that is believed."""
_USUAL_LARGEST: Final = 262_144
"""Packets of this size are believed even where the header of a pcap file promises smaller ones."""
_MOST_INTERFACES: Final = 4096
"""Interfaces of one file; each is an observation point of its own."""
_LATEST_US: Final = 253_402_300_800_000_000
"""The end of the year 9999: later times are damage, and would not fit where times are stored."""
# Numbers that some systems write for the same link types.
_ALIASES: Final = {12: LinkType.RAW_IP, 14: LinkType.RAW_IP}
_NAMES: Final = {
    6: "token ring",
    9: "PPP",
    50: "PPP over serial",
    51: "PPP over Ethernet",
    104: "Cisco HDLC",
    105: "802.11",
    117: "OpenBSD pflog",
    119: "802.11 with Prism header",
    127: "802.11 with radiotap",
    147: "user 0",
    187: "Bluetooth HCI",
    189: "USB",
    192: "PPI",
    195: "802.15.4",
    220: "USB",
    227: "CAN",
    239: "netfilter log",
    253: "netlink",
}
_IDB, _OLD_PACKET, _SIMPLE, _ENHANCED = 1, 2, 3, 6
_LEAST_PACKET_BLOCK: Final = {_OLD_PACKET: 20, _SIMPLE: 4, _ENHANCED: 20}
_TSRESOL, _TSOFFSET = 9, 14


class Packet(NamedTuple):
    """One captured packet; `interface` counts from 0 within its file.

    `time_us` is Unix time. `original_length` is that on the wire, of which `data` is what was
    captured.
    """

    time_us: int
    interface: int
    link_type: LinkType
    original_length: int
    data: bytes


class _CutError(Exception):
    """The file ends within a record."""


@dataclass(slots=True)
class _Reader:
    """A file with its position; `name` is what errors call it. Compressed bytes do not count."""

    name: str
    stream: BinaryIO
    at: int = 0
    record_at: int = 0
    packets: int = 0

    def read(self, size: int) -> bytes:
        """So many bytes or, where the file ends, fewer; raises _CutError and UsageError."""
        try:
            data = self.stream.read(size)
        except EOFError as error:
            raise _CutError from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise self.wrong(f"its compression is broken ({error})") from error
        except OSError as error:
            raise UsageError(f"cannot read {self.name}: {error.strerror or error}") from error
        self.at += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """So many bytes; raises _CutError where there are fewer."""
        data = self.read(size)
        if len(data) < size:
            raise _CutError
        return data

    def record(self, size: int) -> bytes | None:
        """The first bytes of the next record, None where the file ends; raises _CutError."""
        self.record_at = self.at
        data = self.read(size)
        if data and len(data) < size:
            raise _CutError
        return data or None

    def wrong(self, what: str) -> UsageError:
        """The error that the current record is damaged."""
        return UsageError(f"{self.name} is damaged at byte {self.record_at}: {what}; {self._whole()}")

    def cut(self) -> UsageError:
        """The error that the file ends within the current record."""
        return UsageError(
            f"{self.name} is cut: it ends at byte {self.at}, within the record that begins at byte "
            f"{self.record_at}; {self._whole()}"
        )

    def _whole(self) -> str:
        return f"packets before it that are whole: {self.packets}"


def check(path: Path) -> None:
    """Raise UsageError unless the file can be read up to its first packet.

    A pipe can be read only once, so that it is not looked into.
    """
    with _translating(path):
        if stat.S_ISFIFO(path.stat().st_mode):
            return
    with closing(packets(path)) as found:
        next(found, None)


def packets(path: Path) -> Generator[Packet, None, None]:
    """The packets of a file in its order.

    Raises UsageError where the file is missing, unreadable, of another kind or damaged, and where
    it is cut: after the last whole packet.
    """
    with _open(path) as reader:
        try:
            magic = _magic(reader)
            records = _pcapng(reader) if magic == _SECTION else _pcap(reader, *_PCAP[magic])
            for packet in records:
                reader.packets += 1
                yield packet
        except _CutError:
            raise reader.cut() from None


@contextmanager
def _open(path: Path) -> Iterator[_Reader]:
    with ExitStack() as stack:
        with _translating(path):
            stream = stack.enter_context(path.open("rb"))
            compressed = stream.peek(2)[:2] == _GZIP
        opened = stack.enter_context(gzip.GzipFile(fileobj=stream)) if compressed else stream
        yield _Reader(str(path), cast("BinaryIO", opened))


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _magic(reader: _Reader) -> bytes:
    magic = reader.read(4)
    if not magic:
        raise UsageError(f"{reader.name} is empty")
    if magic != _SECTION and magic not in _PCAP:
        raise UsageError(f"{reader.name} is neither pcap nor pcapng: it begins with the bytes {magic.hex(' ')}")
    return magic


def _link_type(reader: _Reader, number: int) -> LinkType:
    try:
        return _ALIASES.get(number) or LinkType(number)
    except ValueError:
        name = f" ({_NAMES[number]})" if number in _NAMES else ""
        known = ", ".join(f"{one.name.lower().replace('_', ' ')} {one.value}" for one in LinkType)
        raise UsageError(
            f"{reader.name} has the link type {number}{name}, which cannot be read; those that can are {known}"
        ) from None


def _pcap(reader: _Reader, order: str, divisor: int) -> Iterator[Packet]:
    major, minor, _, _, snap_bytes, network = unpack(order + "HHiIII", reader.exactly(20))
    if major != 2:
        raise UsageError(f"{reader.name} is of version {major}.{minor} of the pcap format; 2.x can be read")
    # The upper bits say how many bytes of checksum follow a frame.
    link_type = _link_type(reader, network & 0xFFFF)
    most = min(max(snap_bytes, _USUAL_LARGEST), _LARGEST)
    header = Struct(order + "IIII")
    while (raw := reader.record(header.size)) is not None:
        seconds, fraction, captured, length = header.unpack(raw)
        if captured > most:
            raise reader.wrong(f"it announces a packet of {captured} bytes")
        yield Packet(seconds * 1_000_000 + fraction // divisor, 0, link_type, length, reader.exactly(captured))


@dataclass(slots=True)
class _Interface:
    """What an interface description block says."""

    link_type: LinkType
    snap_bytes: int
    per_second: int = 1_000_000
    offset_us: int = 0

    def time_us(self, ticks: int) -> int:
        """Unix time, kept within what can be stored."""
        return min(max(ticks * 1_000_000 // self.per_second + self.offset_us, 0), _LATEST_US)


@dataclass(slots=True)
class _Section:
    """What holds until the next section header; `first` is the number of its first interface."""

    order: str
    first: int
    interfaces: list[_Interface] = field(default_factory=list)


def _pcapng(reader: _Reader) -> Iterator[Packet]:
    section = _section(reader, 0)
    # Simple packets bear no time: they are taken for as late as what stands before them.
    time_us = 0
    while (raw := reader.record(4)) is not None:
        if raw == _SECTION:
            section = _section(reader, section.first + len(section.interfaces))
            continue
        kind, length = unpack(section.order + "II", raw + reader.exactly(4))
        body = _body(reader, section.order, length, 8)
        if kind == _IDB:
            section.interfaces.append(_description(reader, section, body))
        elif kind in _LEAST_PACKET_BLOCK:
            packet = _packet(reader, section, kind, body, time_us)
            time_us = packet.time_us
            yield packet


def _section(reader: _Reader, first: int) -> _Section:
    raw = reader.exactly(8)
    order = _ORDERS.get(raw[4:])
    if order is None:
        raise reader.wrong("a section header has no byte-order mark")
    body = _body(reader, order, unpack(order + "I", raw[:4])[0], 12)
    if len(body) < 12:
        raise reader.wrong("a section header is too short")
    major, minor = unpack(order + "HH", body[:4])
    if major != 1:
        raise reader.wrong(f"it is of version {major}.{minor} of the pcapng format, and 1.x can be read")
    return _Section(order, first)


def _body(reader: _Reader, order: str, length: int, begun: int) -> bytes:
    """What a block of `length` bytes, of which `begun` are read, holds before its second length."""
    if length < begun + 4 or length % 4 or length > _LARGEST:
        raise reader.wrong(f"it announces a block of {length} bytes")
    rest = reader.exactly(length - begun)
    again = unpack(order + "I", rest[-4:])[0]
    if again != length:
        raise reader.wrong(f"a block says {length} bytes at its begin and {again} at its end")
    return rest[:-4]


def _description(reader: _Reader, section: _Section, body: bytes) -> _Interface:
    if len(body) < 8:
        raise reader.wrong("an interface description is too short")
    if section.first + len(section.interfaces) >= _MOST_INTERFACES:
        raise reader.wrong(f"it describes more than {_MOST_INTERFACES} interfaces")
    number, snap_bytes = unpack(section.order + "HxxI", body[:8])
    one = _Interface(_link_type(reader, number), snap_bytes)
    at = 8
    while at + 4 <= len(body):
        code, length = unpack(section.order + "HH", body[at : at + 4])
        value = body[at + 4 : at + 4 + length]
        if code == _TSRESOL and len(value) == 1:
            one.per_second = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _TSOFFSET and len(value) == 8:
            one.offset_us = unpack(section.order + "q", value)[0] * 1_000_000
        elif code == 0:
            break
        at += 4 + (length + 3) // 4 * 4
    return one


def _packet(reader: _Reader, section: _Section, kind: int, body: bytes, before_us: int) -> Packet:
    order = section.order
    start = _LEAST_PACKET_BLOCK[kind]
    if len(body) < start:
        raise reader.wrong("a packet block is too short")
    number, high, low, captured, length = 0, 0, 0, 0, 0
    if kind == _SIMPLE:
        (length,) = unpack(order + "I", body[:start])
    else:
        layout = "IIIII" if kind == _ENHANCED else "HxxIIII"
        number, high, low, captured, length = unpack(order + layout, body[:start])
    if number >= len(section.interfaces):
        raise reader.wrong(f"a packet names interface {number}, which is not described")
    interface = section.interfaces[number]
    time_us = before_us
    if kind == _SIMPLE:
        captured = min(length, interface.snap_bytes or length, len(body) - start)
    else:
        time_us = interface.time_us(high << 32 | low)
    if captured > len(body) - start:
        raise reader.wrong(f"a packet of {captured} bytes is longer than its block")
    data = body[start : start + captured]
    return Packet(time_us, section.first + number, interface.link_type, length, data)
