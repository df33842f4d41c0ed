"""The totals as they stand in Redis, kept current by applying ticks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.api.counters import Six, column_bytes, columns_of, gap_bytes, total_bytes
from services.api.increments import CursorError, Increments
from services.flows.history import Passed
from services.flows.keys import HISTORY_BUCKET_S, HISTORY_BUCKETS
from services.flows.live_message import SPARK_STEPS
from services.flows.scope import Column, Scope
from services.flows.traffic import ByScope, Identity, NodeReport, Row, RowChange, Session, Tick, add_scopes
from services.runtime.clock import Clock

STALE_US: Final = 5_000_000
"""A node whose agent has not reported for so long is not live; agents report every second."""
_FADE_US: Final = 2_000_000
"""How long a rate stays where nothing tells which agent would report the row's silence."""
_BUCKET_US: Final = HISTORY_BUCKET_S * 1_000_000
COLUMNS: Final = tuple(Column)


class GapError(Exception):
    """A tick does not follow the one before: the totals must be read again."""


@dataclass(slots=True)
class RowView:
    """A row with what it does now; times are Redis microseconds."""

    number: int
    identity: Identity
    totals: ByScope
    rates: ByScope = field(default_factory=dict)
    """Counters per second over the window of its last change; empty: its agent reported without it since."""
    window_us: int = 0
    changed_us: int = 0
    changed_n: int = 0
    """The tick that changed its totals last."""
    revision: int = 0
    """The mirror's revision in which anything of it changed last."""
    spark: list[int] = field(default_factory=list)
    """Bytes in the last `SPARK_STEPS` buckets up to `spark_bucket`, or none at all."""
    spark_bucket: int = 0


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
    increments: Increments = field(default_factory=Increments)
    timeline: dict[int, list[int]] = field(default_factory=dict)
    """Bytes of all rows per column of the dashboard and 5 s bucket."""
    n: int = 0
    at_us: int = 0
    """When the last tick was committed."""
    pending_bytes: int = 0
    overlap_bytes: int = 0
    revision: int = 0
    """Counts ticks and what else changes rows; starts anew with every mirror."""
    _offset_us: int = 0
    _shown: dict[str, RowView] | None = None

    @classmethod
    def of(cls, clock: Clock, session: Session, rows: Iterable[Row], now_us: int) -> Mirror:
        """The mirror of totals that were read at `now_us` (Redis time); nothing is live before its ticks are recalled."""
        mirror = cls(clock, session, at_us=session.started_us, n=session.n)
        # Redis keeps no order among the fields of a hash; clients are to see the same one each time.
        ordered = sorted(rows, key=lambda row: row.number)
        mirror.rows = {row.number: RowView(row.number, row.identity, row.totals) for row in ordered}
        mirror.nodes = dict(session.nodes)
        mirror.cluster, mirror.loss = session.cluster, dict(session.loss)
        mirror.pending_bytes, mirror.overlap_bytes = session.pending_bytes, session.overlap_bytes
        mirror.set_now(now_us)
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
        """Redis time, as far as our clock and what was read tell."""
        return max(self.at_us, self.clock.monotonic_us() + self._offset_us)

    def set_now(self, redis_us: int) -> None:
        """Take Redis's clock as it was read: ours may run at another speed, and stands still in a machine asleep."""
        self._offset_us = redis_us - self.clock.monotonic_us()

    def recall(self, tick: Tick) -> None:
        """Take a tick that is in the totals already, the oldest first: rates, reports and increments follow from it."""
        if tick.epoch == self.epoch and tick.n <= self.n:
            self._observe(tick)

    def take_history(self, buckets: Mapping[int, Mapping[int, Mapping[Scope, Passed]]]) -> None:
        """Fill the timeline from the stored history."""
        for number, rows in sorted(buckets.items()):
            for row, scopes in rows.items():
                self._add_spark(row, number, sum(passed.tx_bytes + passed.rx_bytes for passed in scopes.values()))
                for scope, passed in scopes.items():
                    for column, sent, received in columns_of(scope, passed):
                        self._bucket(number)[COLUMNS.index(column)] += sent + received

    def apply(self, tick: Tick, before_us: int | None = None) -> None:
        """Add a tick; raises GapError where it is not the next one.

        Of one of several shards it may be older than the last one; `before_us` is when its own shard's last one was committed.
        """
        if (tick.epoch, tick.n) != (self.epoch, self.n + 1):
            raise GapError
        bucket = self._bucket(tick.at_us // _BUCKET_US)
        self.revision += 1
        self._identify(tick, bucket)
        for change in tick.changes:
            self._add(change, bucket)
            # What was merged comes from a row that had it in its own spark.
            if not tick.removed:
                self._add_spark(change.number, tick.at_us // _BUCKET_US, total_bytes(change.added))
        bucket[:] = [max(0, column) for column in bucket]
        latest_us = self.at_us
        if tick.at_us < (latest_us if before_us is None else before_us) - STALE_US:
            # Redis's clock was set back.
            self.set_now(tick.at_us)
            before_us = None
        self._observe(tick)
        if before_us is not None:
            self.at_us = max(self.at_us, latest_us)
        add_scopes(self.cluster, tick.cluster)
        for reason, count in tick.loss.items():
            self.loss[reason] = self.loss.get(reason, 0) + count
        self.pending_bytes, self.overlap_bytes = tick.pending_bytes, tick.overlap_bytes
        self.n = tick.n
        # The earliest that a tick ever came tells the clocks' difference best.
        self._offset_us = max(self._offset_us, tick.at_us - self.clock.monotonic_us())

    def live(self, node: str) -> bool:
        """Whether a node's agent reported lately."""
        return abs(self.now_us - self.reported_us.get(node, 0)) < STALE_US

    def live_row(self, row: RowView) -> bool:
        """Whether a row's rates are those of now."""
        reporter = self.reporter(row)
        return any(map(self.live, self.nodes)) if reporter is None else self.live(reporter)

    def live_nodes(self) -> frozenset[str]:
        """The nodes whose agents reported lately."""
        return frozenset(filter(self.live, self.nodes))

    def reporter(self, row: RowView) -> str | None:
        """The node whose agent reports a row; None where no agent has its node's name (an address file may differ)."""
        return row.identity.node if row.identity.node in self.nodes else None

    def shown(self) -> dict[str, RowView]:
        """Rows by `namespace/pod`; of several pods of that name the newest."""
        if self._shown is None:
            ordered = sorted(self.rows.values(), key=self._age)
            self._shown = {row.identity.key: row for row in ordered}
        return self._shown

    def _age(self, row: RowView) -> tuple[int, int]:
        """What is larger for a newer pod: numbers of several shards do not tell."""
        return row.identity.started_us if self.session.shards > 1 else 0, row.number

    @property
    def spark_until_s(self) -> float:
        """The Unix second at which the last bucket of all rows' sparks ends."""
        return float((self.now_us // _BUCKET_US + 1) * HISTORY_BUCKET_S)

    def spark(self, row: RowView) -> list[int]:
        """A row's bytes in the last `SPARK_STEPS` buckets; none where nothing passed."""
        since = max(0, self.now_us // _BUCKET_US - row.spark_bucket)
        return [*row.spark[since:], *[0] * since] if row.spark and since < SPARK_STEPS else []

    def since(self, epoch: int, n: int) -> dict[int, Six]:
        """The six counters' increments by row after a cursor; raises CursorError where some of them are gone."""
        if epoch != self.epoch:
            raise CursorError
        return self.increments.since(n, self.n)

    def within(self, window_us: int) -> dict[int, Six]:
        """The six counters' increments by row of the last `window_us`."""
        return self.increments.within(self.now_us - window_us)

    def _identify(self, tick: Tick, bucket: list[int]) -> None:
        for number, identity in tick.identities.items():
            row = self.rows.setdefault(number, RowView(number, identity, {}))
            row.identity, row.revision = identity, self.revision
        for number in tick.removed:
            gone = self.rows.pop(number, None)
            if gone is not None:
                # Its totals come again as increments of the row that it was merged into.
                for at, column in enumerate(column_bytes(gone.totals).values()):
                    bucket[at] -= column
        if tick.identities or tick.removed:
            self._shown = None

    def _add(self, change: RowChange, bucket: list[int]) -> None:
        row = self.rows.get(change.number)
        if row is None:
            raise GapError
        add_scopes(row.totals, change.added)
        for at, column in enumerate(column_bytes(change.added).values()):
            bucket[at] += column

    def _add_spark(self, number: int, bucket: int, count: int) -> None:
        """Add to a row's bytes in a bucket, which is the last one or a later one."""
        row = self.rows.get(number)
        if row is None or not count:
            return
        later = min(bucket - row.spark_bucket, SPARK_STEPS) if row.spark else SPARK_STEPS
        if later > 0:
            row.spark = [*row.spark[later:], *[0] * later]
            row.spark_bucket = bucket
        row.spark[-1] += count

    def _observe(self, tick: Tick) -> None:
        """What a tick tells besides sums."""
        self.increments.add(tick)
        self.at_us = tick.at_us
        for change in tick.changes:
            row = self.rows.get(change.number)
            if row is None:
                continue
            row.changed_n, row.revision = tick.n, self.revision
            # What was merged or missed did not pass within the window: the rate before is nearer to the truth.
            if change.window_us and not tick.removed:
                row.rates = _rates(change)
                row.window_us, row.changed_us = change.window_us, tick.at_us
        for report in tick.nodes:
            self.nodes[report.node] = report
            self.reported_us[report.node] = tick.at_us
        reported = frozenset(report.node for report in tick.nodes)
        for row in self.rows.values():
            if row.rates and row.changed_n < tick.n and self._fell_silent(row, reported, tick.at_us):
                row.rates, row.revision = {}, self.revision

    def _fell_silent(self, row: RowView, reported: frozenset[str], at_us: int) -> bool:
        reporter = self.reporter(row)
        if reporter is None:
            return at_us - row.changed_us > max(2 * row.window_us, _FADE_US)
        return reporter in reported

    def _bucket(self, number: int) -> list[int]:
        bucket = self.timeline.setdefault(number, [0] * len(COLUMNS))
        while len(self.timeline) > HISTORY_BUCKETS:
            del self.timeline[min(self.timeline)]
        return bucket


def _rates(change: RowChange) -> ByScope:
    gap = gap_bytes(change.added)
    return {
        scope: [count * 1_000_000 // change.window_us for count in counts]
        for scope, counts in change.added.items()
        if not (gap and scope is Scope.UNKNOWN)
    }
