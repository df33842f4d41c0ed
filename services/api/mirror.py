"""The totals as they stand in Redis, kept current by applying ticks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.flows.keys import HISTORY_BUCKET_S, HISTORY_BUCKETS, TICKS_KEPT_S
from services.flows.scope import COLUMN_OF, Column, Scope
from services.flows.traffic import (
    ROW_COUNTERS,
    ByScope,
    Identity,
    NodeReport,
    Row,
    RowChange,
    Session,
    Tick,
    add_scopes,
)
from services.runtime.clock import Clock

STALE_US: Final = 5_000_000
"""A node whose agent has not reported for so long is not live."""
_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")
COLUMNS: Final = tuple(Column)


class GapError(Exception):
    """A tick does not follow the one before: the totals must be read again."""


class CursorError(Exception):
    """A tick id from which increments can no longer be added up."""


@dataclass(slots=True)
class RowView:
    """A row with what it did last; times are Redis microseconds."""

    number: int
    identity: Identity
    totals: ByScope
    last: ByScope = field(default_factory=dict)
    """Increments of its last change …"""
    window_us: int = 0
    """… and the time in which they came."""
    changed_us: int = 0

    def rates(self, now_us: int) -> ByScope:
        """Counters per second; empty for a row that has been silent since."""
        if not self.window_us or now_us - self.changed_us > max(2 * self.window_us, 2_000_000):
            return {}
        return {scope: [n * 1_000_000 // self.window_us for n in counts] for scope, counts in self.last.items()}


@dataclass(slots=True)
class Mirror:
    """One shard's totals in memory; `clock` tells how old the last tick is."""

    clock: Clock
    session: Session
    rows: dict[int, RowView] = field(default_factory=dict)
    nodes: dict[str, NodeReport] = field(default_factory=dict)
    reported_us: dict[str, int] = field(default_factory=dict)
    cluster: ByScope = field(default_factory=dict)
    loss: dict[str, int] = field(default_factory=dict)
    ticks: deque[Tick] = field(default_factory=deque)
    timeline: dict[int, list[int]] = field(default_factory=dict)
    """Bytes of all rows per column of the dashboard and 5 s bucket."""
    n: int = 0
    at_us: int = 0
    pending_bytes: int = 0
    overlap_bytes: int = 0
    _offset_us: int = 0

    @classmethod
    def of(cls, clock: Clock, session: Session, rows: list[Row], now_us: int) -> Mirror:
        """The mirror of totals that were read at `now_us` (Redis time)."""
        mirror = cls(clock, session)
        mirror.rows = {row.number: RowView(row.number, row.identity, row.totals) for row in rows}
        mirror.cluster, mirror.loss, mirror.n = session.cluster, dict(session.loss), session.n
        mirror.nodes = dict(session.nodes)
        mirror.reported_us = dict.fromkeys(session.nodes, now_us - STALE_US)
        mirror.pending_bytes, mirror.overlap_bytes = session.pending_bytes, session.overlap_bytes
        mirror._seen(now_us)
        return mirror

    @property
    def epoch(self) -> int:
        """The session's epoch."""
        return self.session.epoch

    @property
    def tick_id(self) -> str:
        """The cursor of now."""
        return f"{self.epoch}-{self.n}"

    @property
    def now_us(self) -> int:
        """Redis time, as far as the last tick and our clock tell."""
        return max(self.at_us, self.clock.monotonic_us() + self._offset_us)

    def apply(self, tick: Tick) -> None:
        """Add a tick; raises GapError where it is not the next one."""
        if (tick.epoch, tick.n) != (self.epoch, self.n + 1):
            raise GapError
        for number, identity in tick.identities.items():
            if number in self.rows:
                self.rows[number].identity = identity
            else:
                self.rows[number] = RowView(number, identity, {})
        for number in tick.removed:
            self.rows.pop(number, None)
        for change in tick.changes:
            self._change(change, tick.at_us)
        for report in tick.nodes:
            self.nodes[report.node] = report
            self.reported_us[report.node] = tick.at_us
        add_scopes(self.cluster, tick.cluster)
        for reason, count in tick.loss.items():
            self.loss[reason] = self.loss.get(reason, 0) + count
        self.pending_bytes, self.overlap_bytes = tick.pending_bytes, tick.overlap_bytes
        self.n = tick.n
        self.remember(tick)
        self._seen(tick.at_us)

    def remember(self, tick: Tick) -> None:
        """Keep a tick for cursors; at the start also those before the totals were read."""
        self.ticks.append(tick)
        while self.ticks[0].at_us < tick.at_us - TICKS_KEPT_S * 1_000_000:
            self.ticks.popleft()

    def take_history(self, buckets: Mapping[int, Mapping[int, Mapping[Scope, tuple[int, int]]]]) -> None:
        """Fill the timeline from the stored history."""
        for number, rows in buckets.items():
            for scopes in rows.values():
                for scope, (sent, received) in scopes.items():
                    self._bucket(number)[COLUMNS.index(COLUMN_OF[scope])] += sent + received

    def since(self, epoch: int, n: int) -> Iterator[Tick]:
        """The ticks after a cursor; raises CursorError where some of them are gone."""
        first = self.ticks[0].n if self.ticks else self.n + 1
        if epoch != self.epoch or not first - 1 <= n <= self.n:
            raise CursorError
        return (tick for tick in list(self.ticks) if tick.n > n)

    def within(self, window_us: int) -> Iterator[Tick]:
        """The ticks of the last `window_us`."""
        start = self.now_us - window_us
        return (tick for tick in list(self.ticks) if tick.at_us > start)

    def live(self, node: str) -> bool:
        """Whether a node's agent reported lately."""
        return self.now_us - self.reported_us.get(node, 0) < STALE_US

    def shown(self) -> dict[str, RowView]:
        """Rows by `namespace/pod`; of several pods of that name the newest."""
        shown: dict[str, RowView] = {}
        for number in sorted(self.rows):
            row = self.rows[number]
            shown[row.identity.key] = row
        return shown

    def _change(self, change: RowChange, at_us: int) -> None:
        row = self.rows.get(change.number)
        if row is None:
            raise GapError
        add_scopes(row.totals, change.added)
        # Bytes without a window (a gap that was found) are no rate.
        if change.window_us:
            row.last, row.window_us, row.changed_us = change.added, change.window_us, at_us
        bucket = self._bucket(at_us // (HISTORY_BUCKET_S * 1_000_000))
        for scope, counts in change.added.items():
            bucket[COLUMNS.index(COLUMN_OF[scope])] += counts[_TX] + counts[_RX]

    def _bucket(self, number: int) -> list[int]:
        bucket = self.timeline.setdefault(number, [0] * len(COLUMNS))
        while len(self.timeline) > HISTORY_BUCKETS:
            del self.timeline[min(self.timeline)]
        return bucket

    def _seen(self, at_us: int) -> None:
        self.at_us = at_us
        self._offset_us = at_us - self.clock.monotonic_us()
