"""Capture files, byte by byte: what a program that writes them would have written."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

MICRO: Final = 0xA1B2C3D4
NANO: Final = 0xA1B23C4D
PCAP_HEADER_BYTES: Final = 24
RECORD_HEADER_BYTES: Final = 16


class Record(NamedTuple):
    """One packet of a file; `length` on the wire is that of `data` unless given."""

    time_us: int
    data: bytes
    length: int | None = None

    @property
    def original_length(self) -> int:
        return len(self.data) if self.length is None else self.length


def pcap(
    records: Iterable[Record],
    *,
    order: str = "<",
    magic: int = MICRO,
    link: int = 1,
    snap_bytes: int = 65535,
    version: tuple[int, int] = (2, 4),
) -> bytes:
    """A pcap file in byte order `order` (as `struct` writes it)."""
    fractions = 1000 if magic == NANO else 1
    header = struct.pack(order + "IHHiIII", magic, *version, 0, 0, snap_bytes, link)
    return header + b"".join(
        struct.pack(
            order + "IIII",
            one.time_us // 1_000_000,
            one.time_us % 1_000_000 * fractions,
            len(one.data),
            one.original_length,
        )
        + one.data
        for one in records
    )


class Pcapng:
    """Writes the blocks of pcapng in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def block(self, kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = self.pack("I", len(body) + 12)
        return self.pack("I", kind) + size + body + size

    def section(self, *, major: int = 1, options: bytes = b"") -> bytes:
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, major, 0, -1) + options)

    def option(self, code: int, value: bytes) -> bytes:
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def interface(self, link: int = 1, *, snap_bytes: int = 0, options: bytes = b"") -> bytes:
        return self.block(1, self.pack("HHI", link, 0, snap_bytes) + options)

    def enhanced(self, ticks: int, data: bytes, *, interface: int = 0, length: int | None = None) -> bytes:
        return self.block(6, self._head("I", interface, ticks, data, length))

    def old_packet(self, ticks: int, data: bytes, *, interface: int = 0, length: int | None = None) -> bytes:
        return self.block(2, self._head("HH", interface, ticks, data, length, 0))

    def simple(self, data: bytes, *, length: int | None = None) -> bytes:
        return self.block(3, self.pack("I", len(data) if length is None else length) + data)

    def _head(self, first: str, interface: int, ticks: int, data: bytes, length: int | None, *drops: int) -> bytes:
        original = len(data) if length is None else length
        return self.pack(first + "IIII", interface, *drops, ticks >> 32, ticks & 0xFFFFFFFF, len(data), original) + data
