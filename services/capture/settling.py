"""What of an interface passed between a reading of its counters and the moment in which its source was in place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.capture.links import Link
from services.flows.coverage import beyond
from services.flows.delta import NOTHING, InterfaceCounters

_ENOUGH: Final = 3
"""Agreeing looks: a packet that one processor counted and another has yet to show to the source spoils one or two."""
_MOST_S: Final = 0.05
"""For all links of one change: others wait for theirs meanwhile."""
_PAUSE_S: Final = 0.0005


class Begun(NamedTuple):
    """An attachment that has just begun, and its interface's counters as they were read before."""

    attachment: int
    link: Link
    before: InterfaceCounters


@dataclass(frozen=True, slots=True)
class Settling:
    """Compares what interfaces count with what the source counted since it was attached.

    Attaching takes the kernel up to 90 ms on a busy machine. What passes meanwhile is in the interface's counters and not
    among the source's flows, and which part of it is neither's moment to tell: but at any moment at which nothing passes
    the difference of both is just that.
    """

    counters: Callable[[Link], InterfaceCounters | None]
    """An interface's own, now; None where it is gone or counts otherwise than the source."""
    counted: Callable[[int], InterfaceCounters | None]
    """What the source has of an attachment that was not drained yet; None where it cannot tell."""

    async def missed(self, begun: list[Begun]) -> Mapping[int, InterfaceCounters]:
        """By attachment, what passed before its source was in place; only those of which it is known to the byte."""
        return await asyncio.to_thread(self._missed, begun) if begun else {}

    def _missed(self, begun: list[Begun]) -> dict[int, InterfaceCounters]:
        end = time.monotonic() + _MOST_S
        waiting = [_Looks(one) for one in begun]
        found = {}
        while waiting:
            for looks in waiting:
                looks.look(self)
                if len(looks.seen) >= _ENOUGH:
                    found[looks.begun.attachment] = beyond(looks.base, looks.begun.before)
            waiting = [looks for looks in waiting if len(looks.seen) < _ENOUGH and not looks.gone]
            if time.monotonic() >= end:
                break
            time.sleep(_PAUSE_S if all(looks.quiet for looks in waiting) else 0.0)
        return {attachment: missed for attachment, missed in found.items() if missed != NOTHING}


@dataclass(slots=True)
class _Looks:
    """What one attachment's looks found while nothing passed."""

    begun: Begun
    seen: list[InterfaceCounters] = field(default_factory=list)
    quiet: bool = False
    gone: bool = False

    def look(self, at: Settling) -> None:
        """Read the interface's counters before and after the source's: where they are the same nothing passed between."""
        before, counted = at.counters(self.begun.link), at.counted(self.begun.attachment)
        after = at.counters(self.begun.link)
        self.quiet = before == after
        self.gone = before is None or after is None or counted is None
        if before is not None and counted is not None and self.quiet:
            self.seen.append(beyond(before, counted))

    @property
    def base(self) -> InterfaceCounters:
        """The interface's counters when the source was in place.

        What a pod sends is counted by the interface first, and what it receives by the source: a packet that is on its
        way between them makes a look find too much of the one, and too little of the other.
        """
        tx_bytes, tx_packets, rx_bytes, rx_packets = zip(*(one.four for one in self.seen), strict=True)
        return InterfaceCounters(min(tx_bytes), min(tx_packets), max(rx_bytes), max(rx_packets))
