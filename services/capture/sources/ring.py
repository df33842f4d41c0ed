"""The source that reads frames from a ring (TPACKET_V3) which it shares with the kernel, block by block."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import sys
from collections import Counter
from struct import Struct
from typing import Final

import numpy as np
import numpy.typing as npt

from services.capture.blocks import RESERVE_BYTES, Observed, read, records
from services.capture.flow_table import FlowTable, bounded
from services.capture.links import Link
from services.capture.raw_flow import RawRows
from services.capture.sources import Drained
from services.capture.sources.classic import attach_filter, of_interfaces
from services.capture.sources.packet_socket import SOL_PACKET, link_type, of_all_links, senders, translating

_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_RESERVE: Final = 12
_PACKET_VNET_HDR: Final = 15
_TPACKET_V3: Final = 2
_REQUEST: Final = Struct("=7I")
"""tpacket_req3: block size and number, frame size and number, milliseconds until a block that is
not full is handed over, private bytes, features."""
_STATISTICS: Final = Struct("=3I")
_BLOCK_BYTES: Final = 1 << 18
_BLOCKS: Final = 128
"""32 MB for all interfaces together: 200,000 small frames, a fifth of a second at a million a second.
At next to no traffic a block is handed over every `_RETIRE_MS`, so that they last 2.5 s."""
_FRAME_BYTES: Final = 2048
_RETIRE_MS: Final = 20
_STATUS, _COUNT, _FIRST = 2, 3, 4
"""Words of a block's header: whose it is, how many records it has, where the first one begins."""
_HEADER_BYTES: Final = 48
_OURS: Final = 1
_BLOCKS_PER_TURN: Final = 16
"""Blocks that are read together, before others have their turn: a few milliseconds."""
_PAUSE_S: Final = 0.01
"""Between turns: a turn costs the same for one block as for several, and at a million frames a
second a block is full every millisecond and a half."""
_PATIENCE_S: Final = 2.0
"""How long a drain waits for frames that the kernel has counted. It hands over what it has after
some 40 ms; a machine that stood still may take longer."""


class RingSource:
    """Reads frames by the block from one ring for all links; needs CAP_NET_RAW.

    `capacity` bounds the flows kept apart between two drains. Bytes and packets are those of the
    interface's counters wherever the kernel dropped none for want of space (`kernel-drop` in the
    loss), with the deviations of `SocketSource`. Every packet of the namespace passes the filter
    that picks those of the links. Raises PrivilegeError or OSError where the kernel refuses.
    """

    name = "ring"

    def __init__(self, capacity: int) -> None:
        if sys.byteorder != "little":
            raise OSError(errno.ENOTSUP, "rings are read on little-endian machines only")
        self._capacity = capacity
        self._table = FlowTable(capacity)
        self._observed = Observed()
        self._rows: list[RawRows] = []
        self._loss: Counter[str] = Counter()
        self._next = 0
        self._caught_up = asyncio.Event()
        self._turn: asyncio.TimerHandle | None = None
        """When the next blocks are to be read, once some are ready."""
        self._waiting = 0
        """Frames in the ring: how many the kernel had put there when it was asked last, less those read since."""
        with translating():
            self._socket = of_all_links()
        try:
            self._ring = self._open()
        except BaseException:
            self._socket.close()
            raise
        self._view = memoryview(self._ring)

    async def attach(self, link: Link, attachment: int) -> None:
        """Count the link's frames from now on; raises OSError where it is gone."""
        with translating():
            kind = link_type(link)
        self._observed.add(link, kind, attachment)
        self._select(self._observed.indexes())
        self._watch()

    async def detach(self, attachment: int) -> None:
        """Stop; counts everything up to now."""
        self._observed.leave(attachment)
        self._select(self._observed.indexes())
        await self._catch_up()
        self._observed.remove(attachment)

    async def drain(self) -> Drained:
        """What was counted since the last drain, with all that had arrived when it began."""
        await self._catch_up()
        rows = bounded(np.concatenate([*self._rows, self._table.take()]), self._capacity)
        self._rows.clear()
        loss, self._loss = self._loss, Counter()
        return Drained(rows, dict(loss), senders(rows))

    async def close(self) -> None:
        """Give the ring back; what was not drained is dropped."""
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._turn is not None:
            self._turn.cancel()
        self._view.release()
        self._ring.close()
        # Closing waits until no packet is being looked at.
        await asyncio.to_thread(self._socket.close)

    def _open(self) -> mmap.mmap:
        ring = self._socket
        self._select([])
        ring.setsockopt(SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        ring.setsockopt(SOL_PACKET, _PACKET_RESERVE, RESERVE_BYTES)
        ring.setsockopt(SOL_PACKET, _PACKET_VNET_HDR, 1)
        frames = _BLOCK_BYTES // _FRAME_BYTES * _BLOCKS
        ring.setsockopt(
            SOL_PACKET,
            _PACKET_RX_RING,
            _REQUEST.pack(_BLOCK_BYTES, _BLOCKS, _FRAME_BYTES, frames, _RETIRE_MS, 0, 0),
        )
        # The kernel has dropped what arrived before there was a filter.
        return mmap.mmap(ring.fileno(), _BLOCK_BYTES * _BLOCKS)

    def _select(self, indexes: list[int]) -> None:
        attach_filter(self._socket, of_interfaces(indexes))

    def _watch(self) -> None:
        if self._turn is None:
            asyncio.get_running_loop().add_reader(self._socket, self._on_readable)

    def _on_readable(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._turn = loop.call_later(_PAUSE_S, self._read)

    def _read(self) -> None:
        """Read the blocks that are ready, and give them back."""
        self._turn = None
        ready: list[npt.NDArray[np.intp]] = []
        headers = []
        for _ in range(_BLOCKS_PER_TURN):
            start = self._next * _BLOCK_BYTES
            header = self._view[start : start + _HEADER_BYTES].cast("I")
            if not header[_STATUS] & _OURS:
                break
            if header[_COUNT]:
                ready.append(records(self._view, start + header[_FIRST], header[_COUNT]))
            headers.append(header)
            self._next = (self._next + 1) % _BLOCKS
        if ready:
            starts = np.concatenate(ready)
            self._rows += read(self._view, starts, self._observed, self._table)
            self._waiting -= len(starts)
            self._compact()
        for header in headers:
            header[_STATUS] = 0
        if self._waiting <= 0:
            self._caught_up.set()
        if len(headers) == _BLOCKS_PER_TURN:
            self._turn = asyncio.get_running_loop().call_later(0, self._read)
        else:
            self._watch()

    async def _catch_up(self) -> None:
        """Read what had arrived by now; a block that is not full is handed over after a while."""
        arrived, dropped, _ = _STATISTICS.unpack(
            self._socket.getsockopt(SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        )
        # Those that were dropped are among those that arrived.
        self._waiting += arrived - dropped
        if dropped:
            self._loss["kernel-drop"] += dropped
        if self._waiting > 0:
            self._caught_up.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await self._caught_up.wait()

    def _compact(self) -> None:
        if sum(map(len, self._rows)) > 2 * self._capacity:
            self._rows = [bounded(np.concatenate(self._rows), self._capacity)]
