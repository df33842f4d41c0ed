"""What dividing nodes over shards gives: processor time of each shard's aggregator and of the ledger's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgpack
import pytest

from services.aggregator import letter, snapshot
from services.aggregator.cluster_ledger import ClusterLedger
from services.aggregator.letters import Letters, Sender
from services.aggregator.timeline import Offset
from services.aggregator.totals import Totals
from services.flows import wire
from services.flows.delta import Batch
from services.flows.keys import shard_of
from tests.bench.report import Report
from tests.support.agents import SECOND
from tests.support.many_nodes import BEGAN, ManyNodes

_COUNTS: Final = (1, 2, 4)
_COMMITS: Final = 4
"""A second."""
_WARM_UP: Final = 2
_SHAPES: Final = {
    "1,000 nodes, 10 pods each, 100,000 rows": ManyNodes(nodes=1000, pods=10, flows=10, friends=5),
    "1,000 nodes, 30 pods each, 300,000 rows": ManyNodes(nodes=1000, pods=30, flows=10, friends=5),
}


class Spent(NamedTuple):
    """Of one second of all agents: processor seconds of the busiest shard, of the ledger, and bytes of letters and commits."""

    shard: float
    all_shards: float
    ledger: float
    letter_bytes: int
    ledger_commit_bytes: int


@dataclass(slots=True)
class Aggregators:
    """All of them in one process, each one's time measured apart."""

    cluster: ManyNodes
    shards: int
    totals: list[Totals] = field(init=False)
    ledger: ClusterLedger = field(init=False)
    n: int = 0

    def __post_init__(self) -> None:
        self.totals = [Totals(self.cluster.directory(), 1000, self.shards, shard) for shard in range(self.shards)]
        self.ledger = ClusterLedger(self.cluster.directory(), 0, self.shards)

    def second(self, at: int) -> Spent:
        """What all agents send of one second."""
        busy, ledger, letter_bytes, commit_bytes = [0.0] * self.shards, 0.0, 0, 0
        parts = _parts(self.cluster.second(at), self.shards)
        for commit in range(_COMMITS):
            now_us = (BEGAN + at + 1) * SECOND + commit
            for shard, batches in enumerate(parts):
                some = batches[commit::_COMMITS]
                took, letters = self._shard(shard, some, now_us)
                busy[shard] += took
                letter_bytes += sum(map(len, letters))
                ledger += self._read(letters)
            if self.shards > 1:
                before = time.process_time()
                commit_bytes += self._commit(self.ledger, now_us)
                ledger += time.process_time() - before
        return Spent(max(busy), sum(busy), ledger, letter_bytes, commit_bytes)

    def _shard(self, shard: int, raw: Sequence[bytes], now_us: int) -> tuple[float, list[bytes]]:
        totals, letters = self.totals[shard], list[bytes]()
        before = time.process_time()
        totals.apply(*map(wire.decode, raw))
        accounts = totals.accounts
        if isinstance(accounts, Letters):
            accounts.seal(Sender(shard, "machine", Offset(0, 0), now_us))
        self._commit(totals, now_us)
        if isinstance(accounts, Letters):
            due = accounts.due()
            letters = [one.payload for one in due]
            accounts.confirm(due[-1].seq)
        return time.process_time() - before, letters

    def _read(self, letters: Sequence[bytes]) -> float:
        before = time.process_time()
        self.ledger.apply(*(letter.decode(self.ledger.names, one) for one in letters))
        return time.process_time() - before

    def _commit(self, totals: Totals, now_us: int) -> int:
        """What a commit takes before Redis has it; its size."""
        totals.settle(now_us)
        self.n += 1
        change = snapshot.changed(totals, snapshot.session_of(totals, 1, self.n, BEGAN * SECOND), now_us)
        size = len(msgpack.packb(change, use_bin_type=False))
        totals.committed()
        return size


def _parts(batches: Iterator[Batch], shards: int) -> list[list[bytes]]:
    """The batches of each shard, as its stream has them."""
    parts: list[list[bytes]] = [[] for _ in range(shards)]
    for one in batches:
        parts[shard_of(one.node, shards)].append(wire.encode(one))
    return parts


@pytest.mark.timeout(1800)
def test_shards(report: Report, rounds: int) -> None:
    for name, cluster in _SHAPES.items():
        lines, rate = [], {}
        for count in _COUNTS:
            aggregators = Aggregators(cluster, count)
            seconds = [aggregators.second(at) for at in range(rounds + _WARM_UP)][_WARM_UP:]
            spent = Spent(*(statistics.median(column) for column in zip(*seconds, strict=True)))
            rows = cluster.nodes * cluster.pods * cluster.flows
            rate[count] = rows / max(spent.shard, spent.ledger)
            lines.append(
                (
                    str(count),
                    f"{spent.shard * 1000:.0f}",
                    f"{spent.all_shards * 1000:.0f}",
                    f"{spent.ledger * 1000:.0f}",
                    f"{spent.letter_bytes / 1e6:.2f}",
                    f"{spent.ledger_commit_bytes / 1e6:.2f}",
                    f"{rate[count]:,.0f}",
                )
            )
            for totals in aggregators.totals:
                assert totals.loss == {}
            sent = [*aggregators.totals, aggregators.ledger]
            assert sum(counts[0] for one in sent for counts in one.cluster.values()) > 0
        header = (
            "shards",
            "busiest shard, ms",
            "all shards, ms",
            "ledger, ms",
            "letters, MB",
            "ledger's commits, MB",
            "rows a second, a processor for each",
        )
        report.table(f"Processor time of one second of {name}", header, lines)
        report.goal(f"rows a second with 4 shards, times those with 1: {name}", rate[4] / rate[1], at_least=2)
