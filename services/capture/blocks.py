"""Reads whole blocks of a packet ring (TPACKET_V3) at once: what is common by arrays, the rest frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from services.capture import captured
from services.capture.captured import PACKET_OUTGOING, VNET
from services.capture.flow_table import FlowTable
from services.capture.frames import LinkType
from services.capture.links import Link
from services.capture.raw_flow import (
    ABOUT,
    BYTES,
    DIRECTION_AT,
    LOCAL_HI,
    LOCAL_LO,
    PACKETS,
    PEER_HI,
    PEER_PORT_AT,
    PORTS,
    PROTOCOL_AT,
    RAW_FLOW,
    SEGMENTS,
    SYNS,
    WIRE_BYTES,
    Direction,
    RawRows,
    rows_of,
)
from services.flows.address import MAPPED_PREFIX
from services.flows.protocols import TCP, WITH_PORTS
from services.flows.table import group_columns, sum_by, transposed

RESERVE_BYTES: Final = 6
"""Asked for before each frame, so that its network header lies at `_NETWORK`, a whole word."""
_NETWORK: Final = 112
"""Bytes from a record's start: its header, the sender's address, padding, segmentation header."""
_ETHERNET_BYTES: Final = 14
_MAC: Final = _NETWORK - _ETHERNET_BYTES
_TAGGED: Final = 0x10
_COMMON: Final = (1, 2, 3, 6, 7, 11, 13, 14, 15, 16)
"""The words of a record that are always looked at."""
_AT_ONCE: Final = 1024
"""Records that fit into the second cache of a processor."""
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
_PROTOCOLS: Final = np.arange(256)
_PORTED: Final = np.isin(_PROTOCOLS, list(WITH_PORTS))
"""By protocol, like the next two."""
_DIRECT6: Final = _PORTED | (_PROTOCOLS == 58)
"""What follows an IPv6 header without extension headers between: ICMPv6 beside those with ports."""
_TRANSPORT_BYTES: Final = np.where(_PROTOCOLS == TCP, 14, np.where(_PORTED, 4, 0)).astype(np.uint64)
"""What is needed of the transport's header: its ports, and of TCP all up to its flags."""


class Observed:
    """The links whose frames a ring holds, by index."""

    def __init__(self) -> None:
        self._links: dict[int, tuple[Link, LinkType, int]] = {}
        self._leaving: set[int] = set()
        self._tables()

    def __len__(self) -> int:
        return len(self._links)

    def indexes(self) -> list[int]:
        """The interfaces whose frames are wanted, ascending."""
        return sorted(index for index, (_, _, attachment) in self._links.items() if attachment not in self._leaving)

    def add(self, link: Link, kind: LinkType, attachment: int) -> None:
        """Take frames of this interface for `attachment`'s."""
        self._links[link.index] = link, kind, attachment
        self._tables()

    def leave(self, attachment: int) -> None:
        """Want no more frames of this attachment, and still know those that are there."""
        self._leaving.add(attachment)

    def remove(self, attachment: int) -> None:
        """Know no frames of this attachment any more."""
        self._leaving.discard(attachment)
        self._links = {index: entry for index, entry in self._links.items() if entry[2] != attachment}
        self._tables()

    def find(self, index: int) -> tuple[Link, LinkType, int] | None:
        """Link, link type and attachment of an interface."""
        return self._links.get(index)

    def _tables(self) -> None:
        entries = sorted(self._links.items())
        # The last one answers for what is not there.
        self.known: Words = np.array([*(index for index, _ in entries), 1 << 32], np.uint64)
        self.attachments: Words = np.array([*(attachment for _, (_, _, attachment) in entries), 0], np.uint64)
        self.pod_side: Mask = np.array([*(link.pod_side for _, (link, _, _) in entries), False], np.bool_)
        self.ethernet: Mask = np.array([*(kind == LinkType.ETHERNET for _, (_, kind, _) in entries), False], np.bool_)


def records(ring: memoryview, first: int, count: int) -> npt.NDArray[np.intp]:
    """Where in the ring the records of a block begin, in words; `first` is the offset of the first one in bytes."""
    starts: npt.NDArray[np.intp]
    step = int.from_bytes(ring[first : first + 4], "little")
    if count > 1 and first + (count - 1) * step + 4 <= len(ring):
        steps = np.ndarray((count - 1,), "<u4", ring, first, (step,))
        if (steps == step).all():
            starts = (first + step * np.arange(count)) >> 3
            return starts
    walk = _walk(ring.cast("I"), first >> 2, count)
    starts = np.fromiter(walk, np.intp, count) >> 1
    return starts


def _walk(ring: memoryview, at: int, count: int) -> Iterator[int]:
    for _ in range(count):
        yield at
        at += ring[at] >> 2


class _Records:
    """One array for each word of many records."""

    def __init__(self, ring: memoryview, starts: npt.NDArray[np.intp]) -> None:
        self._words: Words = np.frombuffer(ring, np.uint64)
        self._starts = starts
        self._known = self._read(_COMMON)

    def __getitem__(self, at: int) -> Words:
        if at not in self._known:
            self._known |= self._read((at,))
        return self._known[at]

    def _read(self, which: tuple[int, ...]) -> dict[int, Words]:
        out = np.empty((len(which), len(self._starts)), np.uint64)
        for begin in range(0, len(self._starts), _AT_ONCE):
            starts = self._starts[begin : begin + _AT_ONCE]
            for row, at in enumerate(which):
                # A short frame ends before its last words; what is read instead is not looked at.
                self._words[at:].take(starts, mode="clip", out=out[row, begin : begin + _AT_ONCE])
        return dict(zip(which, out, strict=True))


def read(ring: memoryview, starts: npt.NDArray[np.intp], observed: Observed, table: FlowTable) -> list[RawRows]:
    """The rows of the records at `starts`: of plain IPv4 and IPv6 in Ethernet; all other frames are added to `table`."""
    word = _Records(ring, starts)
    index = word[6] >> np.uint64(32)
    place = np.searchsorted(observed.known, index)
    place[observed.known[place] != index] = len(observed)
    length = word[2] & np.uint64(0xFFFFFFFF)
    # Ethernet without a tag, whole where it matters, and no super-packet.
    plain = observed.ethernet[place] & (word[3] & np.uint64(0xFFFF) == _MAC)
    plain &= word[2] & np.uint64(_TAGGED << 32) == 0
    plain &= word[11] & np.uint64(0xFF00) == 0
    ethertype = word[13] >> np.uint64(48)
    # What is received by the node's end was sent by the pod.
    outgoing = word[7] & np.uint64(0xFF0000) == PACKET_OUTGOING << 16
    direction = np.where(outgoing == observed.pod_side[place], np.uint64(Direction.TX), np.uint64(Direction.RX))
    found, rest = [], place < len(observed)
    for number, is_whole, keys, flags in (
        (0x0008, _is_whole4, _keys4, _flags4),
        (0xDD86, _is_whole6, _keys6, _flags6),
    ):
        mask = plain & (ethertype == number)
        if not mask.any():
            continue
        mask &= is_whole(word, length)
        found.append(_sum(keys(word, place, direction)[:, mask], length[mask], flags(word)[mask], observed))
        rest &= ~mask
    for at in np.flatnonzero(rest):
        _read_one(ring, int(starts[at]) * 8, observed, table)
    return found


def _is_whole4(word: _Records, length: Words) -> Mask:
    needed = np.uint64(20) + _TRANSPORT_BYTES[_protocol4(word)]
    total = _swapped16(word[14] >> np.uint64(16))
    whole: Mask = (word[14] & np.uint64(0xFF3F0000000000FF) == 0x45) & (total >= needed)
    whole &= length >= total + np.uint64(_ETHERNET_BYTES)
    return whole & (word[1] >> np.uint64(32) >= needed + np.uint64(_ETHERNET_BYTES))


def _is_whole6(word: _Records, length: Words) -> Mask:
    protocol = _protocol6(word)
    needed, headers = _TRANSPORT_BYTES[protocol], np.uint64(_ETHERNET_BYTES + 40)
    payload = _swapped16(word[14] >> np.uint64(32))
    whole: Mask = (word[14] & np.uint64(0xF0) == 0x60) & _DIRECT6[protocol]
    whole &= (payload >= needed) & (payload > 0) & (length >= payload + headers)
    return whole & (word[1] >> np.uint64(32) >= needed + headers)


def _protocol4(word: _Records) -> Words:
    return word[15] >> np.uint64(8) & np.uint64(0xFF)


def _protocol6(word: _Records) -> Words:
    return word[14] >> np.uint64(48) & np.uint64(0xFF)


def _flags4(word: _Records) -> Words:
    return word[18] >> np.uint64(8)


def _flags6(word: _Records) -> Words:
    return word[20] >> np.uint64(40)


def _swapped16(values: Words) -> Words:
    swapped: Words = (values & np.uint64(0xFF)) << np.uint64(8) | values >> np.uint64(8) & np.uint64(0xFF)
    return swapped


def _keys4(word: _Records, place: npt.NDArray[np.intp], direction: Words) -> Words:
    """Source and destination; ports, protocol, direction and place."""
    both = word[15] >> np.uint64(32) | word[16] << np.uint64(32)
    return np.stack([both, _about(_protocol4(word), word[16] >> np.uint64(32), place, direction)])


def _keys6(word: _Records, place: npt.NDArray[np.intp], direction: Words) -> Words:
    about = _about(_protocol6(word), word[19] & np.uint64(0xFFFFFFFF), place, direction)
    return np.stack([*(word[at] for at in range(15, 19)), about])


def _about(protocol: Words, ports: Words, place: npt.NDArray[np.intp], direction: Words) -> Words:
    about: Words = ports * _PORTED[protocol]
    about |= protocol << np.uint64(32)
    about |= direction << np.uint64(40)
    about |= place.astype(np.uint64) << np.uint64(48)
    return about


def _sum(keys: Words, length: Words, flags: Words, observed: Observed) -> RawRows:
    """One row per key; `flags` are the TCP flags where it is TCP."""
    first, inverse = group_columns(keys)
    count = len(first)
    out = np.zeros((RAW_FLOW.itemsize // 8, count), np.uint64)
    about = keys[-1, first]
    place = (about >> np.uint64(48)).astype(np.intp)
    direction = about >> np.uint64(40) & np.uint64(1)
    protocol = about >> np.uint64(32) & np.uint64(0xFF)
    sent = direction == Direction.TX
    out[ABOUT] = observed.attachments[place] | protocol << PROTOCOL_AT | direction << DIRECTION_AT
    source_port, destination_port = _swapped16(about), _swapped16(about >> np.uint64(16))
    out[PORTS] = np.where(
        sent, source_port | destination_port << PEER_PORT_AT, destination_port | source_port << PEER_PORT_AT
    )
    ends = _ends4(keys[0, first]) if len(keys) == 2 else [column.byteswap() for column in keys[:4, first]]
    for at, (source, destination) in zip((LOCAL_HI, LOCAL_LO), zip(ends[:2], ends[2:], strict=True), strict=True):
        out[at] = np.where(sent, source, destination)
        out[at + PEER_HI - LOCAL_HI] = np.where(sent, destination, source)
    syns = np.flatnonzero(flags & np.uint64(0x12) == 0x02)
    syns = syns[keys[-1, syns] >> np.uint64(32) & np.uint64(0xFF) == TCP]
    out[BYTES] = out[WIRE_BYTES] = sum_by(inverse, length, count)
    out[PACKETS] = out[SEGMENTS] = np.bincount(inverse, minlength=count)
    out[SYNS] = np.bincount(inverse[syns], minlength=count)
    return rows_of(out)


def _ends4(both: Words) -> list[Words]:
    """High and low word of source and destination."""
    none = np.zeros(len(both), np.uint64)
    source, destination = transposed(both.view(np.uint32).byteswap().astype(np.uint64).reshape(-1, 2))
    return [none, source | np.uint64(MAPPED_PREFIX), none, destination | np.uint64(MAPPED_PREFIX)]


def _read_one(ring: memoryview, start: int, observed: Observed, table: FlowTable) -> None:
    record = ring[start:]
    fields = record[:_NETWORK].cast("I")
    captured_bytes, length, status, index = fields[3], fields[4], fields[5], fields[13]
    entry = observed.find(index)
    if entry is None:
        return
    link, kind, attachment = entry
    frame = fields[6] & 0xFFFF
    captured.add(
        table,
        attachment,
        link,
        kind,
        record[frame - VNET.size : frame + captured_bytes],
        start=VNET.size,
        length=length,
        tagged=bool(status & _TAGGED),
        outgoing=record[58] == PACKET_OUTGOING,
    )
