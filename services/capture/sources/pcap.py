"""The source that reads capture files, in the files' own time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from services.capture import pcap_file
from services.capture.flow_table import FlowTable
from services.capture.frames import parse
from services.capture.pcap_file import Packet
from services.capture.raw_flow import Direction
from services.capture.sources import Drained
from services.flows.delta import Attachment
from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import UsageError

_YIELD_EVERY: Final = 5_000
"""Packets between two chances for others to run: about 20 ms."""

Sleep = Callable[[float], Awaitable[object]]
"""Waits so many seconds; a true result says that there is no more to wait for, since all is to end."""


class _Span(NamedTuple):
    """The times of the first and the last packet of a window, in the file's time."""

    start_us: int
    end_us: int


class PcapSource:
    """Reads files one after the other; each interface of each file is an attachment.

    `speed` 1 keeps the pace of the files, N is N times as fast, 0 as fast as possible. A window
    ends early where it holds `capacity` flows, so that nothing is ever folded.
    """

    name = "pcap"

    def __init__(
        self,
        files: Sequence[Path],
        *,
        speed: float,
        capacity: int,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._files = files
        self._table = FlowTable(capacity)
        self._known: dict[int, Attachment] = {}
        self._ids = 0
        self._sleep = sleep
        self._pace = _Pace(speed, clock or SystemClock(), sleep)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The interfaces of the file being read of which packets were seen so far."""
        return tuple(self._known.values())

    async def windows(self, interval_us: int) -> AsyncIterator[tuple[int, int, Drained]]:
        """(start, end, what was seen): windows of less than `interval_us` of the file's time.

        Where a file's time steps on or back by that much, or a new file begins, so does a new
        window: none ends before it starts. Raises UsageError as `pcap_file.packets`: before the
        first window where a file cannot be read at all, else after what stands before the damage.
        """
        for path in self._files:
            pcap_file.check(path)
        for path in self._files:
            self._known = {}
            self._pace.restart()
            for span in self._count(path, interval_us):
                if await (self._sleep(0) if span is None else self._pace.reach(span)):
                    return
                if span is not None:
                    yield span.start_us, span.end_us, Drained(self._table.take())

    def _count(self, path: Path, interval_us: int) -> Iterator[_Span | None]:
        """Counts a file's packets; yields when the table is to be taken, and None now and then."""
        span: _Span | None = None
        failure: UsageError | None = None
        try:
            for number, packet in enumerate(pcap_file.packets(path), 1):
                now = packet.time_us
                wider = span
                if span is None:
                    wider = _Span(now, now)
                elif not span.start_us <= now <= span.end_us:
                    wider = _Span(min(now, span.start_us), max(now, span.end_us))
                if span and wider and (wider.end_us - wider.start_us >= interval_us or self._table.full):
                    yield span
                    wider = _Span(now, now)
                span = wider
                self._add(path, packet)
                if number % _YIELD_EVERY == 0:
                    yield None
        except UsageError as error:
            failure = error
        if span is not None:
            yield span
        if failure is not None:
            raise failure

    def _add(self, path: Path, packet: Packet) -> None:
        attachment = self._known.get(packet.interface)
        if attachment is None:
            self._ids += 1
            name = path.name if packet.interface == 0 else f"{path.name}:{packet.interface}"
            attachment = Attachment(self._ids, name, packet.interface, self.name, packet.time_us)
            self._known[packet.interface] = attachment
        frame = parse(packet.data, packet.link_type)
        self._table.add(attachment.id, Direction.TX, frame, packet.original_length)


class _Pace:
    """Holds windows back until their time has come; time that steps back takes none."""

    def __init__(self, speed: float, clock: Clock, sleep: Sleep) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._at_us: int | None = None
        self._due_us = 0.0

    def restart(self) -> None:
        """Begin a file: the time between two files takes none."""
        self._at_us = None

    async def reach(self, span: _Span) -> bool:
        """Wait until the end of a window; True where all is to end instead."""
        if not self._speed:
            return False
        if self._at_us is None:
            self._at_us = span.start_us
            self._due_us = float(self._clock.monotonic_us())
        self._due_us += max(span.end_us - self._at_us, 0) / self._speed
        self._at_us = span.end_us
        late_us = self._clock.monotonic_us() - self._due_us
        return bool(await self._sleep(-late_us / 1e6)) if late_us < 0 else False
