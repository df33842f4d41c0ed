"""The totals in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.api.mirror import Mirror
from services.flows.traffic import ROW_COUNTERS

_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")
_TX_PACKETS, _RX_PACKETS = ROW_COUNTERS.index("tx_packets"), ROW_COUNTERS.index("rx_packets")
CONTENT_TYPE: Final = "text/plain; version=0.0.4"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Sample = tuple[dict[str, str], float]


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
            yield f"{self.name}{{{shown}}} {value:.17g}" if shown else f"{self.name} {value:.17g}"


def exposition(mirror: Mirror, clients: int) -> str:
    """All metrics; counters begin with the session."""
    return "".join(f"{line}\n" for metric in _metrics(mirror, clients) for line in metric.lines())


def _metrics(mirror: Mirror, clients: int) -> Iterable[Metric]:
    rows = list(mirror.shown().values())
    yield Metric(
        "podloxx_pod_bytes_total",
        "counter",
        "Bytes on pods' interfaces by scope and direction, seen from the pod.",
        (
            (_labels(row.identity.namespace, row.identity.pod, row.identity.node, scope.value, direction), counts[at])
            for row in rows
            for scope, counts in row.totals.items()
            for direction, at in (("transmit", _TX), ("receive", _RX))
        ),
    )
    yield Metric(
        "podloxx_pod_packets_total",
        "counter",
        "Packets on pods' interfaces by scope and direction, seen from the pod.",
        (
            (_labels(row.identity.namespace, row.identity.pod, row.identity.node, scope.value, direction), counts[at])
            for row in rows
            for scope, counts in row.totals.items()
            for direction, at in (("transmit", _TX_PACKETS), ("receive", _RX_PACKETS))
        ),
    )
    yield Metric(
        "podloxx_cluster_bytes_total",
        "counter",
        "Bytes by scope, each counted once.",
        (({"scope": scope.value}, counts[_TX] + counts[_RX]) for scope, counts in mirror.cluster.items()),
    )
    yield Metric(
        "podloxx_lost_total",
        "counter",
        "What was not counted as it should be, by reason: packets, batches or bytes as the reason says.",
        (({"reason": reason}, count) for reason, count in mirror.loss.items()),
    )
    yield from _nodes(mirror)
    yield Metric("podloxx_pending_bytes", "gauge", "Bytes that wait for their place.", [({}, mirror.pending_bytes)])
    yield Metric("podloxx_overlap_bytes_total", "counter", "Bytes seen at both ends.", [({}, mirror.overlap_bytes)])
    yield Metric("podloxx_websocket_clients", "gauge", "Connected WebSocket clients.", [({}, clients)])


def _nodes(mirror: Mirror) -> Iterable[Metric]:
    reports = list(mirror.nodes.values())
    yield Metric(
        "podloxx_node_up",
        "gauge",
        "1 where the node's agent reported lately.",
        (({"node": one.node, "source": one.source}, float(mirror.live(one.node))) for one in reports),
    )
    yield Metric(
        "podloxx_node_attachments",
        "gauge",
        "Interfaces that the node's agent captures.",
        (({"node": one.node}, one.attachments) for one in reports),
    )
    yield Metric(
        "podloxx_node_lost_total",
        "counter",
        "Packets that the node's agent could not count, by reason.",
        (({"node": one.node, "reason": reason}, n) for one in reports for reason, n in one.loss.items()),
    )
    for name, kind in (("cpu_seconds_total", "counter"), ("resident_memory_max_bytes", "gauge")):
        yield Metric(
            f"podloxx_agent_{name}",
            kind,
            "As the node's agent reports it of itself.",
            (({"node": one.node}, one.gauges[name]) for one in reports if name in one.gauges),
        )


def _labels(namespace: str, pod: str, node: str, scope: str, direction: str) -> dict[str, str]:
    return {"namespace": namespace, "pod": pod, "node": node, "scope": scope, "direction": direction}
