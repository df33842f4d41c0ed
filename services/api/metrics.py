"""The totals in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from services.api import coverage_metrics
from services.api.counters import RX, RX_PACKETS, TX, TX_PACKETS, total_bytes
from services.api.mirror import Mirror, RowView
from services.flows.coverage import NodeCoverage
from services.flows.traffic import NodeReport
from services.runtime.exposition import Labels, Metric, Sample, Sums, written
from services.runtime.process_metrics import process_metrics

_LOSS_UNITS: Final = ("packets", "bytes", "batches")
_GAUGES: Final = {
    "cpu_seconds_total": ("counter", "Processor time of the node's agent."),
    "resident_memory_max_bytes": ("gauge", "The most memory that the node's agent had."),
    "discovery_delay_seconds": ("summary", "For how long new interfaces were there uncounted."),
    "discovery_delay_max_seconds": ("gauge", "The longest that a new interface was there uncounted."),
}
"""What agents report of themselves, as far as more than the name tells what it is."""
_GAUGE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SUFFIXES: Final = ("_sum", "_count", "_bucket", "_created", "_info")
"""Names that end so belong to other kinds of metrics, and would spoil the whole scrape."""
_TAKEN: Final = {
    "lag_seconds",
    "lag_seconds_total",
    *(name for name, (kind, _) in _GAUGES.items() if kind == "summary"),
}
"""Names that an agent cannot give to a metric of its own: they are other metrics already."""
_MOST_GAUGES: Final = 32
"""Names of agents' own metrics that are passed on; agents have a handful."""


def exposition(
    mirror: Mirror | None,
    known: Mapping[str, NodeCoverage] | None = None,
    *,
    clients: int,
    ready: bool,
    accept: str = "",
) -> tuple[str, str]:
    """All metrics and their content type; counters begin with the session. Without a mirror those of the API alone.

    `known` is the nodes' coverage; without it those that follow from it are left out. `accept` is what a scrape accepts.
    """
    metrics = list(_own(clients, ready=ready))
    if mirror is not None:
        metrics += _totals(mirror)
        metrics += coverage_metrics.coverage(mirror, known or {})
    return written(metrics, accept)


def _own(clients: int, *, ready: bool) -> Iterable[Metric]:
    yield from process_metrics("api")
    yield Metric("podloxx_api_ready", "gauge", "1 where what is served is current.", [({}, int(ready))])
    yield Metric("podloxx_websocket_clients", "gauge", "Connected WebSocket clients.", [({}, clients)])


def _totals(mirror: Mirror) -> Iterable[Metric]:
    rows = list(mirror.shown().values())
    yield _per_pod("bytes", "Bytes", rows, TX, RX)
    yield _per_pod("packets", "Packets", rows, TX_PACKETS, RX_PACKETS)
    yield Metric(
        "podloxx_cluster_bytes_total",
        "counter",
        "Bytes by scope, each counted once.",
        [({"scope": scope.value}, total_bytes({scope: counts})) for scope, counts in mirror.cluster.items()],
    )
    yield Metric("podloxx_pending_bytes", "gauge", "Bytes that wait for their place.", [({}, mirror.pending_bytes)])
    yield Metric("podloxx_overlap_bytes_total", "counter", "Bytes seen at both ends.", [({}, mirror.overlap_bytes)])
    yield from _lost("podloxx_lost", "that were not counted as they should be", [({}, mirror.loss)])
    yield Metric(
        "podloxx_session_start_time_seconds",
        "gauge",
        "When the session's totals began, in Unix time.",
        [({}, mirror.session.started_us / 1e6)],
    )
    yield Metric(
        "podloxx_last_tick_timestamp_seconds",
        "gauge",
        "When the aggregator committed last, in Unix time.",
        [({}, mirror.at_us / 1e6)],
    )
    yield from _nodes(mirror)


def _per_pod(what: str, title: str, rows: Iterable[RowView], sent: int, received: int) -> Metric:
    return Metric(
        f"podloxx_pod_{what}_total",
        "counter",
        f"{title} on pods' interfaces by scope and direction, seen from the pod.",
        [
            ({**_pod(row), "scope": scope.value, "direction": direction}, counts[at])
            for row in rows
            for scope, counts in row.totals.items()
            for direction, at in (("transmit", sent), ("receive", received))
        ],
    )


def _nodes(mirror: Mirror) -> Iterable[Metric]:
    reports = list(mirror.nodes.values())
    yield Metric(
        "podloxx_node_up",
        "gauge",
        "1 where the node's agent reported lately.",
        [(_node(one) | {"source": one.source}, int(mirror.live(one.node))) for one in reports],
    )
    yield Metric(
        "podloxx_node_attachments",
        "gauge",
        "Interfaces that the node's agent captures.",
        [(_node(one), one.attachments) for one in reports],
    )
    yield from _lost("podloxx_node_lost", "that the node's agent lost", [(_node(one), one.loss) for one in reports])
    yield from _agents(reports)


def _agents(reports: list[NodeReport]) -> Iterable[Metric]:
    """What agents, which listen nowhere, report of themselves."""
    values: dict[str, list[Sample]] = {}
    for one in reports:
        for name, value in _measured(one.gauges).items():
            values.setdefault(name, []).append((_node(one), value))
    for name in sorted(values, key=lambda name: (name not in _GAUGES, name))[:_MOST_GAUGES]:
        kind = "counter" if name.endswith("_total") else "gauge"
        kind, text = _GAUGES.get(name, (kind, "As the node's agent reports it."))
        yield Metric(f"podloxx_agent_{name}", kind, text, values[name])


def _measured(gauges: Mapping[str, float]) -> dict[str, float | Sums]:
    """An agent's metrics by name; two of them make a summary, other names that mean something else are left out."""
    found: dict[str, float | Sums] = {
        name: Sums(gauges[f"{name}_sum"], gauges[f"{name}_count"])
        for name, (kind, _) in _GAUGES.items()
        if kind == "summary" and f"{name}_sum" in gauges and f"{name}_count" in gauges
    }
    for name, value in gauges.items():
        # Of OpenMetrics a counter's name is that without the suffix.
        taken = name in _TAKEN or f"{name}_total" in gauges
        if _GAUGE.fullmatch(name) and not name.endswith(_SUFFIXES) and not taken:
            found[name] = value
    return found


def _lost(name: str, text: str, losses: Iterable[tuple[Labels, Mapping[str, int]]]) -> Iterable[Metric]:
    """One metric per unit: reasons of bytes and batches say so in their names."""
    samples: dict[str, list[Sample]] = {unit: [] for unit in _LOSS_UNITS}
    for labels, loss in losses:
        for reason, count in loss.items():
            if reason.endswith("-bytes"):
                samples["bytes"].append(({**labels, "reason": reason.removesuffix("-bytes")}, count))
            elif reason.startswith("batch-"):
                samples["batches"].append(({**labels, "reason": reason.removeprefix("batch-")}, count))
            else:
                samples["packets"].append(({**labels, "reason": reason}, count))
    for unit, found in samples.items():
        yield Metric(f"{name}_{unit}_total", "counter", f"{unit.capitalize()} {text}, by reason.", found)


def _pod(row: RowView) -> Labels:
    who = row.identity
    return {"namespace": who.namespace, "pod": who.pod, "node": who.node}


def _node(report: NodeReport) -> Labels:
    return {"node": report.node}
