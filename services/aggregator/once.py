"""Counts each byte between pods once in the cluster's totals: at the sender's interface.

What a pod receives from another pod counts at the receiver only for windows in which no agent saw
the sender's interface. Agents report at different times, so such a receipt waits until the
sender's agent has reported past it, or has been silent for `HOLD_US`. Should that agent report
the time after all, what it sent in it is booked as overlap and not a second time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from services.aggregator.attachments import Points
from services.flows.scope import Scope
from services.flows.traffic import ByScope, Counts, add_scopes

HOLD_US: Final = 5_000_000
"""Five reports of an agent: who is silent for longer is taken for dead."""
_MOST_SETTLED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one row received from another one in a window, not yet counted for the cluster."""

    sender: int
    receiver: int
    start_us: int
    end_us: int
    scope: Scope
    counts: Counts


@dataclass(slots=True)
class Once:
    """Receipts that wait, and those that were counted at the receiver."""

    points: Points
    held: list[Receipt] = field(default_factory=list)
    settled: deque[tuple[int, int, int, int]] = field(default_factory=lambda: deque(maxlen=_MOST_SETTLED))
    """(sender, receiver, start, end) of receipts that were counted."""

    def receive(self, receipt: Receipt) -> None:
        """Take what a row received from another pod's row."""
        self.held.append(receipt)

    def counted_at_receiver(self, sender: int, receiver: int, start_us: int, end_us: int) -> bool:
        """Whether what `sender` sent in this window is in the totals already."""
        return any(
            (sender, receiver) == entry[:2] and entry[2] < end_us and start_us < entry[3] for entry in self.settled
        )

    def settle(self, now_us: int) -> ByScope:
        """The counters of receipts that are found to be nobody else's; the rest waits or is dropped."""
        added: ByScope = {}
        waiting = []
        for receipt in self.held:
            if self.points.covers(receipt.sender, receipt.start_us, receipt.end_us):
                continue
            expected = self.points.expected(receipt.sender, receipt.start_us)
            if expected and now_us - receipt.end_us < HOLD_US:
                waiting.append(receipt)
                continue
            add_scopes(added, {receipt.scope: receipt.counts})
            self.settled.append((receipt.sender, receipt.receiver, receipt.start_us, receipt.end_us))
        self.held = waiting
        return added

    def forget(self, row: int, into: int) -> None:
        """Follow a row that was merged into another one."""
        self.held = [
            Receipt(
                into if one.sender == row else one.sender,
                into if one.receiver == row else one.receiver,
                one.start_us,
                one.end_us,
                one.scope,
                one.counts,
            )
            for one in self.held
        ]

    def stored(self) -> dict[str, Any]:
        """Everything as plain values, for the store."""
        held = [{**asdict(receipt), "scope": receipt.scope.value} for receipt in self.held]
        return {"held": held, "settled": [list(entry) for entry in self.settled]}

    def restore(self, stored: dict[str, Any]) -> None:
        """Take what `stored` gave."""
        self.held = [Receipt(**{**raw, "scope": Scope(raw["scope"])}) for raw in stored["held"]]
        for sender, receiver, start, end in stored["settled"]:
            self.settled.append((sender, receiver, start, end))
