"""Several shards as one: which of them has what, and what they tell together."""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from services.flows import traffic
from services.flows.history import Passed
from services.flows.keys import LEDGER, Keys, shard_of
from services.flows.scope import Scope
from services.flows.traffic import ByScope, Row, Session, Tick, add_scopes

Bucket = Mapping[int, Mapping[Scope, Passed]]
"""What passed in one step of the history, by row."""


class Stored(NamedTuple):
    """What a shard has in Redis; ticks as they are there, since decoded ones of two minutes take ten times the memory."""

    session: Session
    rows: list[Row]
    ticks: Sequence[bytes]
    buckets: Mapping[int, Bucket]


class Whole(NamedTuple):
    """What all shards have together; ticks are decoded one by one, and raise TrafficError."""

    session: Session
    rows: list[Row]
    ticks: Iterator[Tick]
    buckets: Mapping[int, Bucket]


@dataclass(slots=True)
class Shards:
    """All shards of a session: one that has everything, or several and the ledger, which has the cluster's totals.

    Rows of several have numbers of their own here, and ticks too: in which order ticks of different shards are taken
    is another one in each process, so their cursors have an epoch of it alone.
    """

    count: int = 1
    _gauges: dict[Keys, tuple[int, int]] = field(default_factory=dict)
    """What each said last of bytes that are pending, and that overlap."""

    @property
    def all(self) -> Sequence[Keys]:
        """Their names."""
        return [*map(Keys, range(self.count)), *([Keys(LEDGER)] if self.count > 1 else [])]

    def of_row(self, number: int) -> tuple[Keys, int]:
        """Which one has a row, and under which number."""
        row, shard = divmod(number, self.count)
        return Keys(shard), row

    def of_node(self, node: str) -> Keys:
        """Which one has what a node's agent told."""
        return Keys(shard_of(node, self.count))

    def rows(self, names: Keys, bucket: Bucket) -> Bucket:
        """A step of a shard's history, by rows' numbers here."""
        if self.count == 1:
            return bucket
        return {self.number(names, number): scopes for number, scopes in bucket.items()}

    def tick(self, names: Keys, tick: Tick, epoch: int, n: int) -> Tick:
        """A tick of a shard as the next one of all: it gets that epoch and number."""
        if self.count == 1:
            return tick
        self._gauges[names] = tick.pending_bytes, tick.overlap_bytes
        pending, overlap = map(sum, zip(*self._gauges.values(), strict=True))
        return replace(self._numbered(names, tick, epoch, n), pending_bytes=pending, overlap_bytes=overlap)

    def together(self, parts: Mapping[Keys, Stored]) -> Whole:
        """What all of them hold."""
        if self.count == 1:
            [only] = parts.values()
            return Whole(only.session, only.rows, map(traffic.decode_tick, only.ticks), only.buckets)
        epoch = secrets.randbits(48) + 1
        self._gauges = {
            names: (part.session.pending_bytes, part.session.overlap_bytes) for names, part in parts.items()
        }
        buckets: dict[int, Bucket] = {}
        for names, part in parts.items():
            for at, bucket in part.buckets.items():
                buckets[at] = {**buckets.get(at, {}), **self.rows(names, bucket)}
        rows = [
            replace(row, number=self.number(names, row.number)) for names, part in parts.items() for row in part.rows
        ]
        session = self._session(
            [part.session for part in parts.values()], epoch, sum(len(p.ticks) for p in parts.values())
        )
        return Whole(session, rows, self._in_turn(parts, epoch), buckets)

    def _in_turn(self, parts: Mapping[Keys, Stored], epoch: int) -> Iterator[Tick]:
        """All shards' ticks by the time of their commits; those of one shard stay in its order where the clock was set back."""
        each = [_decoded(names, part.ticks) for names, part in parts.items()]
        told = heapq.merge(*each, key=lambda one: one[1].at_us)
        return (self._numbered(names, tick, epoch, n) for n, (names, tick) in enumerate(told, 1))

    def _numbered(self, names: Keys, tick: Tick, epoch: int, n: int) -> Tick:
        return replace(
            tick,
            epoch=epoch,
            n=n,
            changes=tuple(replace(one, number=self.number(names, one.number)) for one in tick.changes),
            identities={self.number(names, number): one for number, one in tick.identities.items()},
            removed=tuple(self.number(names, number) for number in tick.removed),
        )

    def _session(self, parts: Sequence[Session], epoch: int, n: int) -> Session:
        cluster: ByScope = {}
        loss: dict[str, int] = {}
        for one in parts:
            add_scopes(cluster, one.cluster)
            for reason, count in one.loss.items():
                loss[reason] = loss.get(reason, 0) + count
        return Session(
            epoch=epoch,
            n=n,
            started_us=min(one.started_us for one in parts),
            cluster=cluster,
            nodes={name: report for one in parts for name, report in one.nodes.items()},
            pending_bytes=sum(one.pending_bytes for one in parts),
            overlap_bytes=sum(one.overlap_bytes for one in parts),
            loss=loss,
            shards=self.count,
        )

    def number(self, names: Keys, row: int) -> int:
        """The number here of a shard's row."""
        assert isinstance(names.shard, int), "the ledger has no rows"
        return row * self.count + names.shard


def _decoded(names: Keys, ticks: Sequence[bytes]) -> Iterator[tuple[Keys, Tick]]:
    return ((names, traffic.decode_tick(one)) for one in ticks)
