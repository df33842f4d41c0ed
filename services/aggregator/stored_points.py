"""Observation points as plain values, for the store."""

from __future__ import annotations

from typing import Any

from services.aggregator.attachments import Points
from services.aggregator.point import Point
from services.flows import address
from services.flows.delta import Coverage, InterfaceCounters


def points_out(points: Points, node: str) -> list[dict[str, Any]]:
    """The points of a node."""
    return [
        {
            "id": number,
            "row": point.row,
            "node": point.node,
            "machine": point.machine,
            "boot": point.boot,
            "interface": point.interface,
            "index": point.index,
            "source": point.source,
            "began": point.began_us,
            "from": point.from_us,
            "reported": point.reported_us,
            "coverage": point.coverage.value,
            "detached": point.detached_us,
            "replaced": point.replaced,
            "addresses": [address.to_bytes(one) for one in point.addresses],
            "first": _counters_out(point.first),
            "accounted": _counters_out(point.accounted),
            "gap": [point.gap_from_us, point.gap_to_us],
            "measured": point.measured.value if point.measured else None,
            "hides": point.hides,
            "hidden": _counters_out(point.hidden),
            "left": _counters_out(point.left),
        }
        for (_, number), point in points.of_node.get(node, {}).items()
    ]


def point_in(raw: dict[str, Any]) -> tuple[int, Point]:
    """Number and point of what `points_out` gave; raises KeyError, TypeError or ValueError."""
    return raw["id"], Point(
        row=raw["row"],
        node=raw["node"],
        machine=raw["machine"],
        boot=raw["boot"],
        interface=raw["interface"],
        index=raw["index"],
        source=raw["source"],
        began_us=raw["began"],
        from_us=raw["from"],
        reported_us=raw["reported"],
        coverage=Coverage(raw["coverage"]),
        detached_us=raw["detached"],
        replaced=raw["replaced"],
        addresses=tuple(map(address.from_bytes, raw["addresses"])),
        first=_counters_in(raw["first"]),
        accounted=_counters_in(raw["accounted"]),
        gap_from_us=raw["gap"][0],
        gap_to_us=raw["gap"][1],
        measured=Coverage(raw["measured"]) if raw["measured"] else None,
        hides=raw["hides"],
        hidden=_counters_in(raw.get("hidden")),
        left=InterfaceCounters(*raw["left"]),
    )


def _counters_out(counters: InterfaceCounters | None) -> list[int] | None:
    if counters is None:
        return None
    return [counters.tx_bytes, counters.tx_packets, counters.rx_bytes, counters.rx_packets]


def _counters_in(raw: list[int] | None) -> InterfaceCounters | None:
    return None if raw is None else InterfaceCounters(*raw)
