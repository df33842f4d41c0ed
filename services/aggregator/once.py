"""Counts each byte between pods once in the cluster's totals: at the sender's interface.

What a pod receives from another pod counts at the receiver only for windows in which no agent saw
the sender's interface. Agents report at different times, so such a receipt waits until the
sender's agent has reported past it, or has been silent for `HOLD_US`. Should that agent report
the time after all, be it as a gap, then what it tells is booked as overlap and not a second time.
The other way round, what reached a pod whose agent was dead is counted at its senders, and not
again when that agent's successor finds the gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from services.aggregator.attachments import Sight
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, ByScope, Counts, add_scopes

HOLD_US: Final = 5_000_000
"""Five reports of an agent: who is silent for longer is taken for dead."""
_MOST_HELD: Final = 50_000
_MOST_SETTLED: Final = 10_000
_MOST_DELIVERIES: Final = 64
"""Per receiver; more are added up."""
_RX: Final = tuple(ROW_COUNTERS.index(name) for name in ("rx_bytes", "rx_packets"))


class Reports(Protocol):
    """What agents told of pods' interfaces; times are Redis microseconds."""

    def sight(self, uid: str, start_us: int, end_us: int) -> Sight:
        """How much of what a pod sent between two moments is in the totals as its own."""

    def expected(self, uid: str, end_us: int) -> bool:
        """Whether an agent may still report what a pod did up to `end_us`."""

    def in_gap(self, uid: str, start_us: int, end_us: int) -> bool:
        """Whether what reached a pod in this window is booked as a gap of its agent."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one pod (by uid) received from another one in a window, not yet counted for the cluster."""

    sender: str
    receiver: str
    start_us: int
    end_us: int
    scope: Scope
    counts: Counts


class Amount(NamedTuple):
    """Bytes and packets that passed by a moment."""

    end_us: int
    bytes: int
    packets: int


@dataclass(slots=True)
class Span:
    """A time in which receipts were counted, and how much they were."""

    start_us: int
    end_us: int
    bytes: int
    packets: int


@dataclass(slots=True)
class Once:
    """Receipts that wait, those that were counted at the receiver, and what dead agents' pods got."""

    reports: Reports
    held: list[Receipt] = field(default_factory=list)
    settled: dict[tuple[str, str], list[Span]] = field(default_factory=dict)
    """By sender and receiver."""
    deliveries: dict[str, list[Amount]] = field(default_factory=dict)
    """By receiver: what its senders counted beyond the last report of its own agent."""
    overlap_bytes: int = 0

    def receive(self, receipt: Receipt) -> None:
        """Take what a pod received from another one."""
        self.held.append(receipt)

    def send(self, sender: str, receiver: str, window: tuple[int, int], sent: tuple[int, int]) -> bool:
        """Whether what a pod sent to another one in a window is to be counted; `sent` are bytes and packets.

        It is not where the receiver's totals say so already.
        """
        start, end = window
        spans = self.settled.get((sender, receiver), ())
        known = any(span.start_us < end and start < span.end_us for span in spans)
        if known or self.reports.in_gap(receiver, start, end):
            self.overlap_bytes += sent[0]
            return False
        if sender != receiver and self.reports.expected(receiver, end):
            self._deliver(receiver, Amount(end, *sent))
        return True

    def settle(self, now_us: int) -> ByScope:
        """The counters of receipts that are found to be nobody else's; the rest waits or is dropped."""
        added: ByScope = {}
        waiting = []
        excess = len(self.held) - _MOST_HELD
        # Most receipts share their sender and window with others.
        asked: dict[tuple[str, int, int], tuple[Sight, bool]] = {}
        for at, receipt in enumerate(self.held):
            key = receipt.sender, receipt.start_us, receipt.end_us
            answer = asked.get(key)
            if answer is None:
                answer = asked[key] = self.reports.sight(*key), self.reports.expected(key[0], key[2])
            seen, expected = answer
            if seen is Sight.WHOLE:
                continue
            if expected and at >= excess and now_us - receipt.end_us < HOLD_US:
                waiting.append(receipt)
            elif seen is Sight.PART:
                self.overlap_bytes += receipt.counts[_RX[0]]
            else:
                add_scopes(added, {receipt.scope: receipt.counts})
                self._settled(receipt)
        self.held = waiting
        self._forget()
        return added

    def counted_elsewhere(self, uid: str, since_us: int) -> tuple[Amount, Amount]:
        """What other pods' totals hold of the time of a gap: of what the pod sent, and of what it received."""
        spans = [
            span
            for (sender, _), listed in self.settled.items()
            if sender == uid
            for span in listed
            if span.end_us > since_us
        ]
        sent = [Amount(span.end_us, span.bytes, span.packets) for span in spans]
        got = [amount for amount in self.deliveries.pop(uid, ()) if amount.end_us > since_us]
        return _added(sent), _added(got)

    def rename(self, old: str, new: str) -> None:
        """Follow a pod that turned out to have another uid."""

        def now(uid: str) -> str:
            return new if uid == old else uid

        self.held = [
            Receipt(now(one.sender), now(one.receiver), one.start_us, one.end_us, one.scope, one.counts)
            for one in self.held
        ]
        settled, self.settled = self.settled, {}
        for (sender, receiver), spans in settled.items():
            self.settled.setdefault((now(sender), now(receiver)), []).extend(spans)
        for amount in self.deliveries.pop(old, ()):
            self._deliver(new, amount)

    def stored(self) -> dict[str, Any]:
        """Everything as plain values, for the store."""
        return {
            "held": [
                [one.sender, one.receiver, one.start_us, one.end_us, one.scope.value, one.counts] for one in self.held
            ],
            "settled": [
                [*pair, span.start_us, span.end_us, span.bytes, span.packets]
                for pair, spans in self.settled.items()
                for span in spans
            ],
            "deliveries": [[uid, *amount] for uid, amounts in self.deliveries.items() for amount in amounts],
        }

    def restore(self, stored: dict[str, Any]) -> None:
        """Take what `stored` gave."""
        self.held = [
            Receipt(sender, receiver, start, end, Scope(scope), counts)
            for sender, receiver, start, end, scope, counts in stored["held"]
        ]
        for sender, receiver, *span in stored["settled"]:
            self.settled.setdefault((sender, receiver), []).append(Span(*span))
        for uid, *amount in stored["deliveries"]:
            self.deliveries.setdefault(uid, []).append(Amount(*amount))

    def _deliver(self, receiver: str, amount: Amount) -> None:
        amounts = self.deliveries.setdefault(receiver, [])
        if amounts and (amounts[-1].end_us == amount.end_us or len(amounts) >= _MOST_DELIVERIES):
            amounts[-1] = _added([amounts[-1], amount])
        else:
            amounts.append(amount)

    def _settled(self, receipt: Receipt) -> None:
        spans = self.settled.setdefault((receipt.sender, receipt.receiver), [])
        size = [receipt.counts[at] for at in _RX]
        if spans and spans[-1].start_us <= receipt.start_us <= spans[-1].end_us:
            last = spans[-1]
            last.end_us = max(last.end_us, receipt.end_us)
            last.bytes, last.packets = last.bytes + size[0], last.packets + size[1]
        else:
            spans.append(Span(receipt.start_us, receipt.end_us, size[0], size[1]))

    def _forget(self) -> None:
        """Drop deliveries that their receiver's agent has reported, and the oldest spans beyond the bound."""
        for uid, amounts in list(self.deliveries.items()):
            left = [amount for amount in amounts if self.reports.expected(uid, amount.end_us)]
            if left:
                self.deliveries[uid] = left
            else:
                del self.deliveries[uid]
        count = sum(map(len, self.settled.values()))
        if count > _MOST_SETTLED:
            ends = sorted(span.end_us for spans in self.settled.values() for span in spans)
            oldest = ends[count - _MOST_SETTLED // 2]
            kept = {pair: [span for span in spans if span.end_us >= oldest] for pair, spans in self.settled.items()}
            self.settled = {pair: spans for pair, spans in kept.items() if spans}


def _added(amounts: Iterable[Amount]) -> Amount:
    listed = list(amounts)
    latest = max((one.end_us for one in listed), default=0)
    return Amount(latest, sum(one.bytes for one in listed), sum(one.packets for one in listed))
