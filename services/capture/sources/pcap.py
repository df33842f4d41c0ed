"""The source that reads capture files, in the files' own time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from services.capture.flow_table import FlowTable
from services.capture.frames import parse
from services.capture.pcap_file import Packet, packets
from services.capture.raw_flow import Direction
from services.capture.sources import Drained
from services.flows.delta import Attachment

_YIELD_EVERY: Final = 5_000
"""Packets between two chances for others to run: about 10 ms."""


class PcapSource:
    """Reads files one after the other; each interface of each file is an attachment.

    `speed` 1 keeps the pace of the files, 0 goes as fast as possible.
    """

    name = "pcap"

    def __init__(self, files: Sequence[Path], *, speed: float, capacity: int) -> None:
        self._files = files
        self._speed = speed
        self._table = FlowTable(capacity)
        self._known: dict[tuple[int, int], Attachment] = {}

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """All interfaces seen so far."""
        return tuple(self._known.values())

    async def windows(self, interval_us: int) -> AsyncIterator[tuple[int, int, Drained]]:
        """(start, end, what was seen) of windows of `interval_us` of the files' time.

        Where the files' time steps back, or on by more than a window, a window ends there: none
        ends before it starts. Raises UsageError as
        `pcap_file.packets`.
        """
        for number, path in enumerate(self._files):
            start = end = -1
            for count, packet in enumerate(packets(path), 1):
                if start < 0 or not start <= packet.time_us < start + interval_us:
                    if start >= 0:
                        yield start, end, self._drain()
                        await self._keep_pace(packet.time_us - start)
                    start = packet.time_us
                    end = start
                end = max(end, packet.time_us)
                self._add(number, path, packet)
                if count % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            if start >= 0:
                yield start, end, self._drain()

    async def _keep_pace(self, passed_us: int) -> None:
        if self._speed and passed_us > 0:
            await asyncio.sleep(passed_us / 1e6 / self._speed)

    def _add(self, file: int, path: Path, packet: Packet) -> None:
        attachment = self._known.get((file, packet.interface))
        if attachment is None:
            name = path.name if packet.interface == 0 else f"{path.name}:{packet.interface}"
            attachment = Attachment(len(self._known) + 1, name, packet.interface, self.name, packet.time_us)
            self._known[file, packet.interface] = attachment
        frame = parse(packet.data, packet.link_type)
        self._table.add(attachment.id, Direction.TX, frame, packet.length)

    def _drain(self) -> Drained:
        return Drained(self._table.take())
