"""How many flow rows an aggregator books per second of processor time, step by step."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from services.aggregator.totals import Totals
from services.flows import traffic, wire
from tests.bench.report import Report
from tests.support.agents import SECOND
from tests.support.many_nodes import BEGAN, ManyNodes

_STEPS: Final = ("decode", "book", "settle", "commit")
_SHAPES: Final = {
    "1 agent, 100 pods, 100,000 rows": ManyNodes(nodes=1, pods=100, flows=1000),
    "10 agents, 30 pods each, 100,000 rows": ManyNodes(nodes=10, pods=30, flows=333),
    "100 agents, 30 pods each, 100,000 rows": ManyNodes(nodes=100, pods=30, flows=33),
    "1,000 agents, 30 pods each, 300,000 rows": ManyNodes(nodes=1000, pods=30, flows=10, friends=5),
}
_GOAL: Final = next(iter(_SHAPES))


@dataclass(slots=True)
class Steps:
    """Seconds of processor time of one second's batches, step by step."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        before = time.process_time()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - before


def one_second(cluster: ManyNodes, totals: Totals, at: int) -> Steps:
    """Book what all agents send of one second, as the aggregator does before it writes that to the store."""
    steps = Steps()
    batches = map(wire.encode, cluster.second(at))
    # What comes within a quarter of a second is booked together.
    while some := list(itertools.islice(batches, max(1, cluster.nodes // 4))):
        with steps.step("decode"):
            received = [wire.decode(raw) for raw in some]
        with steps.step("book"):
            totals.apply(*received)
    with steps.step("settle"):
        totals.settle((BEGAN + at + 1) * SECOND)
    with steps.step("commit"):
        traffic.encode_tick(totals.tick(1, at + 1, (BEGAN + at + 1) * SECOND))
        list(totals.peers.changed())
        totals.committed()
    return steps


@pytest.mark.timeout(900)
def test_rows_a_second(report: Report, rounds: int) -> None:
    lines = []
    for name, cluster in _SHAPES.items():
        totals = Totals(cluster.directory(), 1000)
        # At first everything is new.
        seconds = [one_second(cluster, totals, at) for at in range(rounds + 2)][2:]
        spent = {step: statistics.median(one.spent[step] for one in seconds) for step in _STEPS}
        rows = cluster.nodes * cluster.pods * cluster.flows
        whole = sum(spent.values())
        lines.append((name, *(f"{spent[step] * 1000:.0f}" for step in _STEPS), f"{rows / whole:,.0f}"))
        if name == _GOAL:
            booked = rows / (whole - spent["commit"])
            report.goal(f"rows decoded and booked a second: {name}", booked, at_least=1_000_000)
        assert totals.loss == {}
        sent = sum(counts[0] for counts in totals.cluster.values())
        assert sent > 0
    report.table(
        "What an aggregator does with one second's batches, processor milliseconds",
        ("batches", *_STEPS, "rows a second"),
        lines,
    )
