"""The delivery protocol's rules for both ends: which batch to send, which to apply."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

from services.flows.address import Address
from services.flows.delta import Window
from services.flows.keys import FROZEN_BATCHES, SUB_WINDOW_US, SUB_WINDOWS
from services.flows.table import combine, fold_excess


class Verdict(Enum):
    """What the aggregator does with a batch."""

    APPLY = "apply"
    DUPLICATE = "duplicate"
    """Already in the totals: drop it."""
    AHEAD = "ahead"
    """A number before it is missing: leave it, its agent sends again from there."""


@dataclass(slots=True)
class Inbox:
    """Numbers applied per boot id: the aggregator's memory of what is in the totals."""

    applied: dict[str, int] = field(default_factory=dict)

    def judge(self, boot: str, seq: int, confirmed: int) -> Verdict:
        """The verdict on batch `seq` of `boot`, whose agent last saw `confirmed` confirmed.

        An unknown boot id starts at what its agent saw confirmed: those batches are gone.
        """
        last = self.applied.setdefault(boot, confirmed)
        if seq <= last:
            return Verdict.DUPLICATE
        return Verdict.APPLY if seq == last + 1 else Verdict.AHEAD

    def apply(self, boot: str, seq: int) -> None:
        """Note that batch `seq` is in the totals."""
        self.applied[boot] = seq


@dataclass(frozen=True, slots=True)
class Frozen:
    """A batch as it was first sent: its number and its bytes never change again."""

    seq: int
    payload: bytes


@dataclass(slots=True)
class Outbox:
    """An agent's batches between capture and confirmation.

    `encode` turns windows and a number into the bytes of a batch; it is called once per number.
    Bounded: `FROZEN_BATCHES` of at most `batch_rows` flows each, then `SUB_WINDOWS` windows with
    at most twice as many flows together. What exceeds that merges, then folds; sums stay right.
    """

    encode: Callable[[int, tuple[Window, ...]], bytes]
    batch_rows: int
    frozen: deque[Frozen] = field(default_factory=deque)
    waiting: list[Window] = field(default_factory=list)
    confirmed: int = 0
    _next: int = 1

    def add(self, window: Window) -> None:
        """Take a window that was never sent."""
        self.waiting.append(replace(window, flows=fold_excess(window.flows, self.batch_rows)))
        if len(self.frozen) >= FROZEN_BATCHES and len(self.waiting) > 1:
            earlier, later = self.waiting[-2:]
            if later.end_us - earlier.start_us <= SUB_WINDOW_US:
                self._coalesce(len(self.waiting) - 2)
        while len(self.waiting) > SUB_WINDOWS or (len(self.waiting) > 1 and self._rows() > 2 * self.batch_rows):
            spans = [b.end_us - a.start_us for a, b in pairwise(self.waiting)]
            self._coalesce(spans.index(min(spans)))

    def confirm(self, applied: int) -> None:
        """Forget every batch up to `applied`, which the aggregator has in its totals."""
        self.confirmed = max(self.confirmed, applied)
        while self.frozen and self.frozen[0].seq <= self.confirmed:
            self.frozen.popleft()

    def freeze(self) -> Frozen | None:
        """Number and encode what waits and fits; None where nothing waits or enough is frozen."""
        if not self.waiting or len(self.frozen) >= FROZEN_BATCHES:
            return None
        count, rows = 1, len(self.waiting[0].flows)
        while count < len(self.waiting) and rows + len(self.waiting[count].flows) <= self.batch_rows:
            rows += len(self.waiting[count].flows)
            count += 1
        batch = Frozen(self._next, self.encode(self._next, tuple(self.waiting[:count])))
        self.frozen.append(batch)
        del self.waiting[:count]
        self._next += 1
        return batch

    def _rows(self) -> int:
        return sum(len(window.flows) for window in self.waiting)

    def _coalesce(self, at: int) -> None:
        one = merge(self.waiting[at], self.waiting[at + 1])
        self.waiting[at : at + 2] = [replace(one, flows=fold_excess(one.flows, self.batch_rows))]


def merge(earlier: Window, later: Window) -> Window:
    """One window that covers both: flows and losses added, each attachment in its latest state."""
    attachments = {entry.id: entry for entry in earlier.attachments}
    for entry in later.attachments:
        before = attachments.get(entry.id)
        addresses = entry.addresses if before is None else _union(before.addresses, entry.addresses)
        attachments[entry.id] = replace(entry, addresses=addresses)
    loss = dict(earlier.loss)
    for reason, packets in later.loss.items():
        loss[reason] = loss.get(reason, 0) + packets
    return Window(
        start_us=min(earlier.start_us, later.start_us),
        end_us=max(earlier.end_us, later.end_us),
        attachments=tuple(attachments.values()),
        flows=combine([earlier.flows, later.flows]),
        loss=loss,
    )


def _union(first: tuple[Address, ...], second: tuple[Address, ...]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(first + second))
