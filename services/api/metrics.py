"""The totals in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from services import __version__
from services.api.counters import RX, RX_PACKETS, TX, TX_PACKETS, total_bytes
from services.api.mirror import Mirror, RowView
from services.flows.traffic import NodeReport

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_LOSS_UNITS: Final = ("packets", "bytes", "batches")
_GAUGES: Final = {
    "cpu_seconds_total": ("counter", "Processor time of the node's agent."),
    "resident_memory_max_bytes": ("gauge", "The most memory that the node's agent had."),
}
"""What agents report of themselves."""

Labels = dict[str, str]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its samples."""

    name: str
    kind: str
    text: str
    samples: Iterable[Sample]

    def lines(self) -> Iterable[str]:
        """The metric as it is exposed."""
        yield f"# HELP {self.name} {self.text}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            shown = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
            # Whole numbers are written whole: who reads them exactly can.
            number = str(value) if isinstance(value, int) else f"{value:.17g}"
            yield f"{self.name}{{{shown}}} {number}" if shown else f"{self.name} {number}"


def exposition(mirror: Mirror | None, *, clients: int, ready: bool) -> str:
    """All metrics; counters begin with the session. Without a mirror those of the API alone."""
    metrics = [*_own(clients, ready=ready), *(_totals(mirror) if mirror is not None else ())]
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def _own(clients: int, *, ready: bool) -> Iterable[Metric]:
    yield Metric("podloxx_build_info", "gauge", "The version that runs.", [({"version": __version__}, 1)])
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
    for name, (kind, text) in _GAUGES.items():
        samples = [(_node(one), one.gauges[name]) for one in reports if name in one.gauges]
        yield Metric(f"podloxx_agent_{name}", kind, text, samples)


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
        if found or unit == "packets":
            yield Metric(f"{name}_{unit}_total", "counter", f"{unit.capitalize()} {text}, by reason.", found)


def _pod(row: RowView) -> Labels:
    who = row.identity
    return {"namespace": who.namespace, "pod": who.pod, "node": who.node}


def _node(report: NodeReport) -> Labels:
    return {"node": report.node}
