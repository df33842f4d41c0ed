"""What `/traffic/nodes` answers: each node's agent, and how much it sees of each interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.api.mirror import Mirror
from services.api.views import rfc3339
from services.flows.coverage import Direction, InterfaceCoverage, NodeCoverage, Sums, amount
from services.flows.traffic import NodeReport

_GAUGES: Final = {
    "cpuSeconds": "cpu_seconds_total",
    "memoryMaxBytes": "resident_memory_max_bytes",
    "discoveryDelayMaxSeconds": "discovery_delay_max_seconds",
}
_OF_FILES: Final = "pcap"
"""The source whose windows lie at any time: it has no lag."""


def nodes(mirror: Mirror, known: Mapping[str, NodeCoverage]) -> dict[str, Any]:
    """`/traffic/nodes`, by node; null is what nobody could measure, 0 is what was measured."""
    return {name: _node(mirror, report, known.get(name)) for name, report in sorted(mirror.nodes.items())}


def lag_s(mirror: Mirror, report: NodeReport) -> float | None:
    """How old the last traffic is that is in the totals; None for an agent that reads files."""
    return None if report.source == _OF_FILES else max(0, mirror.now_us - report.window_end_us) / 1e6


def attached(one: InterfaceCoverage, report: NodeReport) -> bool:
    """Whether the node's agent watches an interface now, as far as its last report tells."""
    return one.detached_us is None and one.boot == report.boot


def lost(one: InterfaceCoverage, report: NodeReport) -> bool:
    """Whether nobody watches an interface any more although nobody saw its end: it went while there was no agent."""
    return one.detached_us is None and one.boot != report.boot


def names(mirror: Mirror, one: InterfaceCoverage) -> tuple[str | None, str | None]:
    """Namespace and pod of an interface; None where its row is not known (yet)."""
    row = mirror.rows.get(one.row)
    return (row.identity.namespace, row.identity.pod) if row else (None, None)


def _node(mirror: Mirror, report: NodeReport, known: NodeCoverage | None) -> dict[str, Any]:
    sums = known.sums if known else None
    return {
        "live": mirror.live(report.node),
        "lagSeconds": lag_s(mirror, report),
        "lastReport": _time(mirror.reported_us.get(report.node)),
        "boot": report.boot,
        "source": report.source or None,
        "attachments": report.attachments,
        **{name: report.gauges.get(gauge) for name, gauge in _GAUGES.items()},
        "gauges": dict(report.gauges),
        "since": _time(known.since_us if known else None),
        "lostPackets": dict(known.loss) if known else None,
        "unexplainedPackets": known.unexplained_packets if known else None,
        "lostInterfaces": sum(lost(one, report) for one in known.interfaces) if known else None,
        **{way.value: _way(sums, way, measured=True) if sums else None for way in Direction},
        "interfaces": [_interface(mirror, report, one) for one in _ordered(known, report)],
    }


def _ordered(known: NodeCoverage | None, report: NodeReport) -> list[InterfaceCoverage]:
    """Those that are watched first, by name."""
    listed = known.interfaces if known else ()
    return sorted(listed, key=lambda one: (not attached(one, report), one.interface, one.since_us))


def _interface(mirror: Mirror, report: NodeReport, one: InterfaceCoverage) -> dict[str, Any]:
    namespace, pod = names(mirror, one)
    sums, measured = one.sums, one.counters is not None and one.based
    return {
        "interface": one.interface,
        "index": one.index,
        "namespace": namespace,
        "pod": pod,
        "source": one.source,
        "attached": attached(one, report),
        "lost": lost(one, report),
        "since": rfc3339(one.since_us),
        "until": rfc3339(one.reported_us),
        "ended": _time(one.detached_us),
        "sides": one.sides.value if one.sides else None,
        **{way.value: {**_way(sums, way, measured=measured), "seen": one.sees(way)} for way in Direction},
    }


def _way(sums: Sums, way: Direction, *, measured: bool) -> dict[str, Any]:
    """One direction; without an interface's own counters nothing but what was captured is known."""
    ratio = sums.ratio(way)
    answer: dict[str, Any] = {"coveragePercent": None if ratio is None else 100.0 * ratio}
    for name, counters, needs_counters in (
        ("counted", sums.counted, True),
        ("captured", sums.captured, False),
        ("uncovered", sums.uncovered, True),
        ("attach", sums.attach, True),
        ("unseen", sums.unseen, True),
        ("folded", sums.folded, False),
        ("agentGap", sums.gap, True),
    ):
        bytes_, packets = amount(counters, way)
        known = measured or not needs_counters
        answer[f"{name}Bytes"] = bytes_ if known else None
        answer[f"{name}Packets"] = packets if known else None
    return answer


def _time(us: int | None) -> str | None:
    return None if us is None else rfc3339(us)
