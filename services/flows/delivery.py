"""The delivery protocol's rules for both ends: which batch to send, which to apply."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise
from typing import Final

from services.flows.address import Address
from services.flows.delta import Window
from services.flows.keys import BATCH_BYTES, FROZEN_BATCHES, SUB_WINDOW_US, SUB_WINDOWS
from services.flows.table import combine, fold_excess

StreamId = tuple[int, int]
"""An entry's id in the stream: milliseconds and a number."""
NOTHING_READ: Final[StreamId] = (0, 0)
_ROWS_PER_ATTACHMENT: Final = 4
"""An attachment with all its addresses takes as many bytes in a batch as so many of the widest rows."""
_ROW_BYTES: Final = 130
"""The widest row: all counters at eight bytes, two addresses that no other row has, and what is left of a flow."""
_MOST_ROWS: Final = BATCH_BYTES // _ROW_BYTES - 500
"""Rows, attachments among them, of the largest batch that is accepted; what is left is for what windows have besides."""


def stream_id(entry: bytes) -> StreamId:
    """The id of an entry as Redis writes it."""
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number or 0)


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

    def skip(self, boot: str, confirmed: int) -> int:
        """How many batches `boot` saw confirmed that these totals do not have, now passed over.

        There are some where the totals that had them are lost and these began before, or with an
        entry that was long on its way. Their agent has forgotten them: whoever waits, waits for ever.
        """
        missing = confirmed - self.applied.get(boot, confirmed)
        if missing > 0:
            self.applied[boot] = confirmed
        return max(0, missing)

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


class Sent:
    """Frozen batches until they are confirmed, and which of them are to be sent again."""

    def __init__(self) -> None:
        self.frozen: deque[Frozen] = deque()
        self.confirmed = 0
        self._entries: dict[int, StreamId] = {}
        """Where the frozen batches lie in the stream, as far as that is sure."""
        self._read_to = NOTHING_READ

    def confirm(self, applied: int) -> None:
        """Forget every batch up to `applied`, which the aggregator has in its totals."""
        self.confirmed = max(self.confirmed, applied)
        while self.frozen and self.frozen[0].seq <= self.confirmed:
            self._entries.pop(self.frozen.popleft().seq, None)

    def read(self, cursor: StreamId) -> None:
        """Take up to which entry the aggregator has read; `NOTHING_READ` where nobody knows."""
        if cursor < self._read_to:
            # The store was lost. Ids are clock times, so after a clock step a lost entry could
            # look as if it were still to be read.
            self._entries.clear()
        self._read_to = cursor

    def due(self) -> list[Frozen]:
        """Frozen batches to send again, in order.

        Those are all from the first whose entry never arrived for sure, or was read and not
        applied: what follows it would be refused until it is there.
        """
        frozen = list(self.frozen)
        for at, batch in enumerate(frozen):
            entry = self._entries.get(batch.seq)
            if entry is None or entry <= self._read_to:
                return frozen[at:]
        return []

    def sending(self, batch: Frozen) -> None:
        """Note that a batch is on its way: until the reply is here it is not known whether it arrived."""
        self._entries.pop(batch.seq, None)

    def arrived(self, batch: Frozen, entry: StreamId) -> None:
        """Note that a batch lies in the stream under this id."""
        self._entries[batch.seq] = entry


@dataclass
class Outbox(Sent):
    """An agent's batches between capture and confirmation.

    `encode` turns windows and a number into the bytes of a batch; it is called once per number.
    Bounded: `FROZEN_BATCHES` of at most `batch_rows` flows each, then `SUB_WINDOWS` windows with
    at most twice as many flows together, an attachment counting as some flows. What exceeds that
    merges, then folds; sums stay right.
    """

    encode: Callable[[int, tuple[Window, ...]], bytes]
    batch_rows: int
    waiting: list[Window] = field(default_factory=list)
    _next: int = 1

    def __post_init__(self) -> None:
        Sent.__init__(self)

    def add(self, window: Window) -> None:
        """Take a window that was never sent."""
        self.waiting.append(self._folded(window))
        if len(self.frozen) >= FROZEN_BATCHES and len(self.waiting) > 1:
            earlier, later = self.waiting[-2:]
            if later.end_us - earlier.start_us <= SUB_WINDOW_US:
                self._coalesce(len(self.waiting) - 2)
        while len(self.waiting) > SUB_WINDOWS or (
            len(self.waiting) > 1 and sum(map(_rows, self.waiting)) > 2 * self.batch_rows
        ):
            spans = [b.end_us - a.start_us for a, b in pairwise(self.waiting)]
            self._coalesce(spans.index(min(spans)))

    def freeze(self) -> Frozen | None:
        """Number and encode what waits and fits; None where nothing waits or enough is frozen."""
        if not self.waiting or len(self.frozen) >= FROZEN_BATCHES:
            return None
        count = 1
        while count < len(self.waiting) and self._fit(self.waiting[: count + 1]):
            count += 1
        batch = Frozen(self._next, self.encode(self._next, tuple(self.waiting[:count])))
        self.frozen.append(batch)
        del self.waiting[:count]
        self._next += 1
        return batch

    def _coalesce(self, at: int) -> None:
        self.waiting[at : at + 2] = [self._folded(merge(self.waiting[at], self.waiting[at + 1]))]

    def _folded(self, window: Window) -> Window:
        """The window, no larger than a batch may be."""
        room = _MOST_ROWS - _ROWS_PER_ATTACHMENT * len(window.attachments)
        return replace(window, flows=fold_excess(window.flows, max(min(room, self.batch_rows), 0)))

    def _fit(self, windows: list[Window]) -> bool:
        """Whether these may be one batch."""
        return sum(len(one.flows) for one in windows) <= self.batch_rows and sum(map(_rows, windows)) <= _MOST_ROWS


def _rows(window: Window) -> int:
    """How many rows a window counts as in a batch."""
    return len(window.flows) + _ROWS_PER_ATTACHMENT * len(window.attachments)


def merge(earlier: Window, later: Window) -> Window:
    """One window that covers both: flows and losses added, each attachment in its latest state."""
    attachments = {entry.id: entry for entry in earlier.attachments}
    for entry in later.attachments:
        before = attachments.get(entry.id, entry)
        addresses = _union(before.addresses, entry.addresses)
        attachments[entry.id] = replace(entry, addresses=addresses, passed=before.passed, hidden=before.hidden)
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
