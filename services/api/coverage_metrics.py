"""How much nodes' sources saw, as Prometheus metrics; bounded, whatever agents report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from services.api import nodes
from services.api.mirror import Mirror
from services.flows.coverage import Direction, InterfaceCoverage, NodeCoverage, amount
from services.runtime.exposition import Labels, Metric, Sample

MOST_INTERFACES: Final = 10_000
"""Interfaces that have metrics of their own, eight samples each; nodes' sums hold all of them."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """An interface with its labels, and one of its directions."""

    labels: Labels
    way: Direction
    one: InterfaceCoverage


def coverage(mirror: Mirror, known: Mapping[str, NodeCoverage]) -> Iterable[Metric]:
    """What was captured of what interfaces counted."""
    reports = mirror.nodes.values()
    watched = [
        (report.node, one)
        for report in reports
        if report.node in known
        for one in known[report.node].interfaces
        if nodes.attached(one, report) and one.counters is not None and one.based
    ]
    # One interface of a name at a time is attached; should an agent say otherwise the scrape stays whole.
    single = list({(node, one.interface): (node, one) for node, one in watched}.values())
    yield from _interfaces([shown for node, one in single[:MOST_INTERFACES] for shown in _shown(mirror, node, one)])
    yield Metric(
        "podloxx_coverage_interfaces_left_out",
        "gauge",
        f"Interfaces beyond the {MOST_INTERFACES} that have metrics of their own.",
        [({}, max(0, len(single) - MOST_INTERFACES))],
    )
    yield from _nodes([known[report.node] for report in reports if report.node in known])
    told = [(report, known[report.node].interfaces) for report in reports if report.node in known]
    yield Metric(
        "podloxx_node_lost_interfaces",
        "gauge",
        "Interfaces that went while the node had no agent: what passed them last is in no total.",
        [({"node": report.node}, sum(nodes.lost(one, report) for one in listed)) for report, listed in told],
    )
    lags = ((report.node, nodes.lag_s(mirror, report)) for report in reports)
    yield Metric(
        "podloxx_agent_lag_seconds",
        "gauge",
        "How old the last traffic of the node is that is in the totals.",
        [({"node": node}, lag) for node, lag in lags if lag is not None],
    )


def _shown(mirror: Mirror, node: str, one: InterfaceCoverage) -> Iterable[_Shown]:
    namespace, pod = nodes.names(mirror, one)
    labels = {"node": node, "namespace": namespace or "", "pod": pod or "", "interface": one.interface}
    for way in Direction:
        yield _Shown({**labels, "direction": way.value}, way, one)


def _interfaces(shown: list[_Shown]) -> Iterable[Metric]:
    ratios = ((entry.labels, entry.one.sums.ratio(entry.way)) for entry in shown)
    yield Metric(
        "podloxx_coverage_ratio",
        "gauge",
        "Part of the bytes counted by an interface that its source captured since it was attached.",
        [(labels, ratio) for labels, ratio in ratios if ratio is not None],
    )
    yield Metric(
        "podloxx_interface_bytes_total",
        "counter",
        "Bytes that an interface itself counted since it was attached.",
        [(entry.labels, amount(entry.one.counted, entry.way).bytes) for entry in shown],
    )
    yield Metric(
        "podloxx_interface_captured_bytes_total",
        "counter",
        "Bytes that its source captured up to the same moment.",
        [(entry.labels, amount(entry.one.compared, entry.way).bytes) for entry in shown],
    )
    seen = ((entry.labels, entry.one.sees(entry.way)) for entry in shown)
    yield Metric(
        "podloxx_interface_direction_seen",
        "gauge",
        "1 where the source sees this direction, 0 where it does not; left out until enough has passed to tell.",
        [(labels, int(sees)) for labels, sees in seen if sees is not None],
    )


def _nodes(known: list[NodeCoverage]) -> Iterable[Metric]:
    sums = {one.node: one.sums for one in known}
    every = [({"node": node, "direction": way.value}, one, way) for node, one in sums.items() for way in Direction]
    ratios = ((labels, one.ratio(way)) for labels, one, way in every)
    yield Metric(
        "podloxx_node_coverage_ratio",
        "gauge",
        "Part of the bytes counted by the node's interfaces that was captured while they were attached.",
        [(labels, ratio) for labels, ratio in ratios if ratio is not None],
    )
    for name, text, kept in (
        ("interface", "Bytes that the node's interfaces counted while they were attached.", "counted"),
        ("captured", "Bytes that were captured up to the same moment.", "captured"),
        ("folded", "Captured bytes of which the flow is not known, since a table was full.", "folded"),
        ("agent_gap", "Bytes that passed between two agents.", "gap"),
    ):
        samples: list[Sample] = [(labels, amount(getattr(one, kept), way).bytes) for labels, one, way in every]
        yield Metric(f"podloxx_node_{name}_bytes_total", "counter", text, samples)
    yield Metric(
        "podloxx_node_uncovered_packets",
        "gauge",
        "Packets that interfaces counted and no source captured; those that a source lost are among node_lost_packets.",
        [sample for one in known for sample in _uncovered(one)],
    )


def _uncovered(known: NodeCoverage) -> Iterable[Sample]:
    sums = known.sums
    for reason, counters in (("attach", sums.attach), ("unseen", sums.unseen)):
        for way in Direction:
            yield {"node": known.node, "reason": reason, "direction": way.value}, amount(counters, way).packets
    # A source does not say in which direction it lost, so what has no reason has none either.
    yield {"node": known.node, "reason": "unexplained", "direction": ""}, known.unexplained_packets
