"""The source that counts in the kernel: a filter on a packet socket, which takes no packet."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.capture.bpf import program, syscall
from services.capture.bpf.syscall import Drain, MapType, ProgramType
from services.capture.frames import LinkType
from services.capture.links import Link
from services.capture.raw_flow import RAW_FLOW, Direction, RawRows
from services.capture.sources import Drained
from services.capture.sources.packet_socket import bind, link_type, senders, translating, unbound
from services.flows.address import MAPPED_PREFIX
from services.flows.delta import Kind

_SO_ATTACH_BPF: Final = 50
_SECTIONS: Final = {LinkType.ETHERNET: "socket", LinkType.RAW_IP: "socket/ip"}
_ABOUT: Final[list[tuple[str, str]]] = [
    ("source_port", ">u2"),
    ("destination_port", ">u2"),
    ("attachment", "=u4"),
    ("processor", "=u2"),
    ("protocol", "u1"),
    ("meta", "u1"),
]
_KEY4: Final = np.dtype([("source", ">u4"), ("destination", ">u4"), *_ABOUT])
_KEY6: Final = np.dtype(
    [(f"{end}_{word}", ">u8") for end in ("source", "destination") for word in ("hi", "lo")] + _ABOUT
)
_VALUE: Final = np.dtype(
    [
        ("bytes", "=u8"),
        ("repeated", "=u8"),
        ("packets", "=u4"),
        ("segments", "=u4"),
        ("syns", "=u4"),
        ("unused", "=u4"),
    ]
)
_INDEX: Final = Struct("=I")
_LINK: Final = Struct("=II")
_FIRST: Final = _INDEX.pack(0)
_MOST_LINKS: Final = 4096
_CLOSERS: Final = 4


@dataclass(slots=True)
class _Pair:
    """Two maps of one family, of which one is filled while the other one is read."""

    outer: int
    halves: tuple[int, int]
    drain: Drain
    active: int = 0

    def swap(self) -> int:
        """Have the programs fill the other half; the one that nobody writes to any more."""
        idle = self.halves[self.active]
        self.active ^= 1
        # Returns once no program still uses the half that it replaces.
        syscall.update(self.outer, _FIRST, _INDEX.pack(self.halves[self.active]))
        return idle


@dataclass(slots=True)
class _Tap:
    """A link that is counted."""

    index: int
    socket: socket.socket


class EbpfSource:
    """Counts in the kernel; `capacity` bounds the flows per family kept apart between two drains.

    Bytes and packets are those of the interface's counters. Needs CAP_NET_RAW and CAP_BPF; CAP_PERFMON
    makes the program three times as fast. Raises OSError where the kernel refuses.
    Known deviation: of segmented packets in a tunnel the outer headers alone are taken for what each
    segment repeats.
    """

    name = "ebpf"

    def __init__(self, capacity: int) -> None:
        _raise_memlock()
        self._fds: list[int] = []
        self._taps: dict[int, _Tap] = {}
        self._told: dict[bytes, npt.NDArray[np.void]] = {}
        self._executor = ThreadPoolExecutor(_CLOSERS, thread_name_prefix="bpf")
        self._processors = _possible_processors()
        try:
            self._four = self._pair(_KEY4, capacity, "podloxx4")
            self._six = self._pair(_KEY6, capacity, "podloxx6")
            self._links = self._map(MapType.HASH, 4, _LINK.size, _MOST_LINKS, "podloxx_links")
            self._folded = self._map(
                MapType.PERCPU_HASH, _LINK.size, _VALUE.itemsize, 2 * _MOST_LINKS, "podloxx_folded"
            )
            maps = {
                "flows4": self._four.outer,
                "flows6": self._six.outer,
                "links": self._links,
                "folded": self._folded,
            }
            built = program.programs()
            self._programs = {
                begins: self._keep(syscall.load(ProgramType.SOCKET_FILTER, built[name].tied(maps), "podloxx"))
                for begins, name in _SECTIONS.items()
            }
        except BaseException:
            self._close_fds()
            raise

    async def attach(self, link: Link, attachment: int) -> None:
        """Count the link's packets from now on; raises OSError where it is gone."""
        for direction in Direction:
            key = _LINK.pack(attachment, direction)
            syscall.update(self._folded, key, bytes(_VALUE.itemsize * self._processors))
            self._told[key] = np.zeros(1, _VALUE)
        syscall.update(self._links, _INDEX.pack(link.index), _LINK.pack(attachment, link.pod_side))
        try:
            with translating():
                self._taps[attachment] = _Tap(link.index, self._open(link))
        except BaseException:
            syscall.delete(self._links, _INDEX.pack(link.index))
            raise

    async def detach(self, attachment: int) -> None:
        """Stop; what was counted comes with the next drain."""
        tap = self._taps.pop(attachment)
        syscall.delete(self._links, _INDEX.pack(tap.index))
        # Closing waits until no packet is being looked at: 13 ms, in which nothing is to stand still.
        self._executor.submit(tap.socket.close)

    async def drain(self) -> Drained:
        """All that was counted since the previous drain."""
        rows = await asyncio.get_running_loop().run_in_executor(self._executor, self._take)
        return Drained(rows, {}, senders(rows))

    async def close(self) -> None:
        """Release every socket, map and program."""
        for attachment in list(self._taps):
            await self.detach(attachment)
        await asyncio.to_thread(self._executor.shutdown)
        self._close_fds()

    def _take(self) -> RawRows:
        tables = []
        for pair, convert in ((self._four, _rows4), (self._six, _rows6)):
            count = pair.drain.take(pair.swap())
            tables.append(convert(pair.drain.keys[:count], pair.drain.values[:count]))
        return np.concatenate([*tables, self._excess()])

    def _excess(self) -> RawRows:
        """What found the flows full, since the last time."""
        rows = []
        for key, told in list(self._told.items()):
            raw = syscall.lookup(self._folded, key, _VALUE.itemsize * self._processors)
            if raw is None:
                continue
            now = np.frombuffer(raw, _VALUE)
            attachment, direction = _LINK.unpack(key)
            total = np.zeros(1, _VALUE)
            for name in ("bytes", "repeated", "packets", "segments", "syns"):
                total[name] = now[name].sum(dtype=total[name].dtype)
            # Counters of 32 bits may pass their end; differences are right all the same.
            added = {name: total[name] - told[name] for name in ("bytes", "repeated", "packets", "segments", "syns")}
            self._told[key] = total
            if added["packets"][0]:
                row = np.zeros(1, RAW_FLOW)
                row["attachment"], row["direction"], row["kind"] = attachment, direction, Kind.FOLDED
                _counts(row, added)
                rows.append(row)
            elif not any(tap == attachment for tap in self._taps):
                syscall.delete(self._folded, key)
                del self._told[key]
        return np.concatenate(rows) if rows else np.zeros(0, RAW_FLOW)

    def _open(self, link: Link) -> socket.socket:
        packets = unbound()
        try:
            code = self._programs[link_type(packets, link)]
            packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, _INDEX.pack(code))
            bind(packets, link)
        except BaseException:
            packets.close()
            raise
        return packets

    def _pair(self, keys: np.dtype[Any], capacity: int, name: str) -> _Pair:
        halves = tuple(self._map(MapType.HASH, keys.itemsize, _VALUE.itemsize, capacity, name) for _ in range(2))
        outer = self._keep(syscall.create_map(MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=halves[0], name=name))
        syscall.update(outer, _FIRST, _INDEX.pack(halves[0]))
        return _Pair(outer, (halves[0], halves[1]), Drain(keys, _VALUE, capacity))

    def _map(self, kind: MapType, key_bytes: int, value_bytes: int, entries: int, name: str) -> int:
        return self._keep(syscall.create_map(kind, key_bytes, value_bytes, entries, name=name))

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _close_fds(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _rows4(keys: npt.NDArray[np.void], values: npt.NDArray[np.void]) -> RawRows:
    rows = _rows(keys, values)
    sent = rows["direction"] == Direction.TX
    is_ip = rows["kind"] == Kind.IP
    for end, word in (("local", "source"), ("peer", "destination")):
        other = "destination" if word == "source" else "source"
        low = np.where(sent, keys[word], keys[other]).astype(np.uint64) | np.uint64(MAPPED_PREFIX)
        rows[f"{end}_lo"] = np.where(is_ip, low, np.uint64(0))
    return rows


def _rows6(keys: npt.NDArray[np.void], values: npt.NDArray[np.void]) -> RawRows:
    rows = _rows(keys, values)
    sent = rows["direction"] == Direction.TX
    for word in ("hi", "lo"):
        source, destination = keys[f"source_{word}"], keys[f"destination_{word}"]
        rows[f"local_{word}"] = np.where(sent, source, destination)
        rows[f"peer_{word}"] = np.where(sent, destination, source)
    return rows


def _rows(keys: npt.NDArray[np.void], values: npt.NDArray[np.void]) -> RawRows:
    rows = np.zeros(len(keys), RAW_FLOW)
    rows["attachment"], rows["protocol"] = keys["attachment"], keys["protocol"]
    rows["direction"], rows["kind"] = keys["meta"] & 1, keys["meta"] >> 1
    # Frames without addresses carry their number as the destination's port, whatever way they go.
    sent = (rows["direction"] == Direction.TX) | (rows["kind"] != Kind.IP)
    rows["local_port"] = np.where(sent, keys["source_port"], keys["destination_port"])
    rows["peer_port"] = np.where(sent, keys["destination_port"], keys["source_port"])
    _counts(rows, {name: values[name] for name in ("bytes", "repeated", "packets", "segments", "syns")})
    return rows


def _counts(rows: RawRows, values: dict[str, npt.NDArray[Any]]) -> None:
    for name in ("bytes", "packets", "segments", "syns"):
        rows[name] = values[name]
    rows["wire_bytes"] = values["bytes"] + values["repeated"]


def _raise_memlock() -> None:
    """Kernels before 5.11 count maps as locked memory; later ones do not care."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        return


def _possible_processors() -> int:
    return int(Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2]) + 1
