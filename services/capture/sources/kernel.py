"""What the sources that count in the kernel have in common: their maps, attachments and drains."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from struct import Struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.capture.bpf import program, syscall
from services.capture.bpf.syscall import MapType, ProgramType
from services.capture.bpf.tables import EXCESS, Tables, possible_processors
from services.capture.frames import LinkType
from services.capture.links import Link
from services.capture.raw_flow import (
    ABOUT,
    BYTE,
    BYTES,
    DIRECTION_AT,
    KIND_AT,
    LOCAL_HI,
    LOCAL_LO,
    PACKETS,
    PEER_HI,
    PEER_LO,
    PEER_PORT_AT,
    PORT,
    PORTS,
    PROTOCOL_AT,
    RAW_FLOW,
    SEGMENTS,
    SYNS,
    WIRE_BYTES,
    Columns,
    Direction,
    RawRows,
    rows_of,
)
from services.capture.sources import Drained
from services.capture.sources.packet_socket import link_type, senders, translating
from services.flows.address import MAPPED_PREFIX
from services.flows.delta import InterfaceCounters, Kind
from services.flows.table import transposed

_INDEX: Final = Struct("=I")
_LINK: Final = Struct("=IIHH4x")
"""An interface's index, its attachment, whether the pod's own side is seen, bytes of link header."""
_DIRECTION: Final = Struct("=II")
_NO_LINK: Final = bytes(_LINK.size)
_PLACES: Final = 4096
_MOST_CROWDED: Final = 4096
_MOST_FOLDED: Final = 2 * (_PLACES + _MOST_CROWDED)
_COUNTERS: Final = ("bytes", "repeated", "packets", "segments", "syns")
_HEADER_BYTES: Final = {LinkType.ETHERNET: 14, LinkType.RAW_IP: 0}
_CLOSERS: Final = 4

Release = Callable[[], object]


class Links:
    """Which attachment the programs take an interface's packets for.

    A place in the array follows from the low bits of an interface's index. One that was left is
    given away again only after `settle`, when no program still looks at it; until then, and
    where it is taken, a link goes to the hash map beside it.
    """

    def __init__(self, array: int, crowded: int) -> None:
        self._array = array
        self._crowded = crowded
        self._taken: dict[int, int] = {}
        self._left: set[int] = set()

    def add(self, link: Link, attachment: int, kind: LinkType) -> None:
        """Count the link's packets under `attachment` as soon as a program sees any."""
        value = _LINK.pack(link.index, attachment, link.pod_side, _HEADER_BYTES[kind])
        place = link.index % _PLACES
        if place in self._taken or place in self._left:
            syscall.update(self._crowded, _INDEX.pack(link.index), value)
            return
        self._taken[place] = link.index
        syscall.update(self._array, _INDEX.pack(place), value)

    def remove(self, index: int) -> None:
        """Count no more packets of this interface."""
        place = index % _PLACES
        if self._taken.get(place) != index:
            syscall.delete(self._crowded, _INDEX.pack(index))
            return
        syscall.update(self._array, _INDEX.pack(place), _NO_LINK)
        del self._taken[place]
        self._left.add(place)

    def settle(self, left: set[int]) -> None:
        """Every program that ran when `left` was read has ended."""
        self._left -= left

    def left(self) -> set[int]:
        """Places that were left and may still be looked at."""
        return set(self._left)


class KernelSource:
    """Counts in the kernel; `capacity` bounds the flows per family kept apart between two drains.

    Bytes and packets are those of the interface's counters. Raises OSError where the kernel
    refuses. Known deviation: of segmented packets in a tunnel the outer headers alone are taken
    for what each segment repeats.
    """

    name: str
    _kind: ProgramType
    _sections: tuple[str, ...]

    def __init__(self, capacity: int) -> None:
        if sys.byteorder != "little":
            raise OSError(errno.ENOTSUP, "the program is built for little-endian machines")
        _raise_memlock()
        self._tables = Tables(capacity)
        self._fds: list[int] = []
        self._held: dict[int, tuple[Link, Release]] = {}
        self._leaving: dict[int, Future[object]] = {}
        self._told: dict[bytes, npt.NDArray[np.void]] = {}
        self._processors = possible_processors()
        # Apart from each other, so that no drain waits for a burst of links that come or go.
        self._draining = ThreadPoolExecutor(1, thread_name_prefix="drain")
        self._attaching = ThreadPoolExecutor(1, thread_name_prefix="attach")
        self._closing = ThreadPoolExecutor(_CLOSERS, thread_name_prefix="close")
        try:
            array = self._map(MapType.ARRAY, 4, _LINK.size, _PLACES, "podloxx_links")
            crowded = self._map(MapType.HASH, 4, _LINK.size, _MOST_CROWDED, "podloxx_crowded")
            self._links = Links(array, crowded)
            self._folded = self._map(
                MapType.PERCPU_HASH, _DIRECTION.size, EXCESS.itemsize, _MOST_FOLDED, "podloxx_folded"
            )
            maps = {**self._tables.maps, "links": array, "crowded": crowded, "folded": self._folded}
            built = program.programs()
            self._programs = {
                section: self._keep(syscall.load(self._kind, built[section].tied(maps), "podloxx"))
                for section in self._sections
            }
        except BaseException:
            self._close_maps()
            raise

    async def attach(self, link: Link, attachment: int) -> None:
        """Count the link's packets from now on; raises OSError where it is gone."""
        leaving = self._leaving.pop(link.index, None)
        if leaving is not None:
            # An interface takes no program twice.
            await asyncio.wrap_future(leaving)
        with translating():
            await asyncio.get_running_loop().run_in_executor(self._attaching, self._attach, link, attachment)

    async def detach(self, attachment: int) -> None:
        """Stop; what was counted comes with the next drain."""
        link, release = self._held.pop(attachment)
        self._links.remove(link.index)
        # It waits until no packet is being looked at: 13 ms, in which nothing is to stand still.
        self._leaving = {index: future for index, future in self._leaving.items() if not future.done()}
        self._leaving[link.index] = self._closing.submit(release)

    async def drain(self) -> Drained:
        """All that was counted since the previous drain."""
        left = self._links.left()
        rows = await asyncio.get_running_loop().run_in_executor(self._draining, self._take)
        self._links.settle(left)
        return Drained(rows, {}, senders(rows))

    def counted(self, attachment: int) -> InterfaceCounters | None:
        """What was counted of an attachment since the last drain, which is not to run meanwhile; None where rows ran out."""
        for direction in Direction:
            raw = syscall.lookup(
                self._folded, _DIRECTION.pack(attachment, direction), EXCESS.itemsize * self._processors
            )
            if raw is None or any(raw):
                return None
        return self._tables.counted(attachment)

    async def close(self) -> None:
        """Release every hook, map and program."""
        for attachment in list(self._held):
            await self.detach(attachment)
        for executor in (self._draining, self._attaching, self._closing):
            await asyncio.to_thread(executor.shutdown)
        self._close_maps()

    def _hook(self, link: Link) -> Release:
        """Have the programs see the link's packets until the answer is called."""
        raise NotImplementedError

    def _attach(self, link: Link, attachment: int) -> None:
        kind = link_type(link)
        self._count_excess(attachment)
        self._links.add(link, attachment, kind)
        try:
            self._held[attachment] = link, self._hook(link)
        except BaseException:
            self._links.remove(link.index)
            raise

    def _count_excess(self, attachment: int) -> None:
        """Have what finds no row be counted for this attachment."""
        for direction in Direction:
            key = _DIRECTION.pack(attachment, direction)
            syscall.update(self._folded, key, bytes(EXCESS.itemsize * self._processors))
            self._told[key] = np.zeros(1, EXCESS)

    def _take(self) -> RawRows:
        four, six = self._tables.take()
        return np.concatenate([_raw4(four), _raw6(six), self._excess()])

    def _excess(self) -> RawRows:
        """What found no room, since the last time."""
        rows = []
        for key, told in list(self._told.items()):
            raw = syscall.lookup(self._folded, key, EXCESS.itemsize * self._processors)
            if raw is None:
                continue
            now = np.frombuffer(raw, EXCESS)
            attachment, direction = _DIRECTION.unpack(key)
            total = np.zeros(1, EXCESS)
            for name in _COUNTERS:
                total[name] = now[name].sum(dtype=total[name].dtype)
            # Counters of 32 bits may pass their end; differences are right all the same.
            added = {name: total[name] - told[name] for name in _COUNTERS}
            self._told[key] = total
            if added["packets"][0]:
                row = np.zeros(1, RAW_FLOW)
                row["attachment"], row["direction"], row["kind"] = attachment, direction, Kind.FOLDED
                for name in ("bytes", "packets", "segments", "syns"):
                    row[name] = added[name]
                row["wire_bytes"] = added["bytes"] + added["repeated"]
                rows.append(row)
            elif not self._is_held(attachment):
                syscall.delete(self._folded, key)
                del self._told[key]
        return np.concatenate(rows) if rows else np.zeros(0, RAW_FLOW)

    def _is_held(self, attachment: int) -> bool:
        return attachment in self._held

    def _map(self, kind: MapType, key_bytes: int, value_bytes: int, entries: int, name: str) -> int:
        return self._keep(syscall.create_map(kind, key_bytes, value_bytes, entries, name=name))

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _close_maps(self) -> None:
        self._tables.close()
        while self._fds:
            os.close(self._fds.pop())


_Row = npt.NDArray[np.uint32]
"""Rows of the kernel's tables by column: one row for each of their words of 32 bits."""


def _raw4(rows: npt.NDArray[Any]) -> RawRows:
    columns = _halves(rows)
    out, sent, is_ip = _raw(columns[2:])
    source, destination = (_swapped(column) | np.uint64(MAPPED_PREFIX) for column in columns[:2])
    out[LOCAL_LO] = np.where(is_ip, np.where(sent, source, destination), np.uint64(0))
    out[PEER_LO] = np.where(is_ip, np.where(sent, destination, source), np.uint64(0))
    return rows_of(out)


def _raw6(rows: npt.NDArray[Any]) -> RawRows:
    columns = _halves(rows)
    out, sent, _ = _raw(columns[8:])
    words = [_swapped(columns[at]) << np.uint64(32) | _swapped(columns[at + 1]) for at in (0, 2, 4, 6)]
    for at in (0, 1):
        out[LOCAL_HI + at] = np.where(sent, words[at], words[at + 2])
        out[PEER_HI + at] = np.where(sent, words[at + 2], words[at])
    return rows_of(out)


def _raw(columns: _Row) -> tuple[Columns, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """All but the addresses, from what stands behind them; which rows the pod sent, and which are IP."""
    ports, attachment, about, syns, *counts = columns
    bytes_, repeated = (
        counts[at].astype(np.uint64) | counts[at + 1].astype(np.uint64) << np.uint64(32) for at in (0, 2)
    )
    protocol, meta = about & np.uint32(BYTE), about >> np.uint32(8) & np.uint32(BYTE)
    direction, kind = meta & np.uint32(1), meta >> np.uint32(1)
    sent, is_ip = direction == Direction.TX, kind == Kind.IP
    out = np.zeros((RAW_FLOW.itemsize // 8, len(ports)), np.uint64)
    out[ABOUT] = attachment
    for field, shift in ((kind, KIND_AT), (protocol, PROTOCOL_AT), (direction, DIRECTION_AT)):
        out[ABOUT] |= field.astype(np.uint64) << shift
    # In network order the first port, the source's, comes out as the high half.
    swapped = _swapped(ports)
    source, destination = swapped >> np.uint64(16), swapped & PORT
    # Frames without addresses carry their number as the destination's port, whatever way they go.
    as_sent = sent | ~is_ip
    out[PORTS] = np.where(as_sent, source | destination << PEER_PORT_AT, destination | source << PEER_PORT_AT)
    out[BYTES], out[PACKETS], out[SEGMENTS], out[SYNS] = bytes_, counts[4], counts[5], syns
    out[WIRE_BYTES] = bytes_ + repeated
    return out, sent, is_ip


def _halves(rows: npt.NDArray[Any]) -> _Row:
    columns: _Row = transposed(rows.view(np.uint32).reshape(-1, rows.dtype.itemsize // 4))
    return columns


def _swapped(column: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """A word of network order as a number."""
    return column.byteswap().astype(np.uint64)


def _raise_memlock() -> None:
    """Kernels before 5.11 count maps as locked memory; later ones do not care."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        return
