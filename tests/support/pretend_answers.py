"""REST answers of a pretended cluster: who talks with whom, outside as well, and the agents of its nodes."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.support.pretend_cluster import PretendCluster

_TIMES: Final = {"firstSeen": "2026-09-21T13:00:00Z", "lastSeen": "2026-09-21T14:00:00Z"}


def answers(cluster: PretendCluster) -> dict[str, Any]:
    """By path."""
    draw = random.Random(3)
    return {
        "/readyz": {"status": "ok"},
        "/traffic/map": {"by": "namespace", "edges": _edges(cluster, draw)},
        "/traffic/external": _external(cluster, draw),
        "/traffic/nodes": {name: _agent(draw, at) for at, name in enumerate(_nodes(cluster))},
    }


def _nodes(cluster: PretendCluster) -> list[str]:
    return [f"node-{at + 1:02}" for at in range(cluster.nodes_wanted)]


def _edges(cluster: PretendCluster, draw: random.Random) -> list[dict[str, Any]]:
    namespaces = sorted({pod.ns for pod in cluster.pods.values()})
    pairs = [(one, other) for one in namespaces for other in (*namespaces, ":internet", ":private", ":service")]
    pairs += [(":internet", one) for one in namespaces[:6]]
    return [
        {"from": one, "to": other, "bytes": int(draw.lognormvariate(18, 2)), "packets": 10}
        for one, other in pairs
        if draw.random() < 0.35
    ]


def _external(cluster: PretendCluster, draw: random.Random) -> dict[str, Any]:
    keys = [f"{pod.ns}/{pod.name}" for pod in cluster.pods.values()]
    found = [
        {
            "address": f"203.0.113.{at + 1}" if at % 4 else f"10.200.{at}.15",
            "name": ("", "", "payments", "object-store", "")[at % 5],
            "scope": "internet" if at % 4 else "private",
            "rule": "public" if at % 4 else "user-cidr",
            "protocol": "tcp" if at % 6 else "udp",
            "port": (443, 443, 5432, 53, 8080)[at % 5],
            "server": "peer",
            "pods": draw.sample(keys, min(3, len(keys))),
            "podCount": 3 + at % 30,
            "transmitBytes": int(draw.lognormvariate(14, 2)),
            "receivedBytes": int(draw.lognormvariate(15, 2)),
            "transmitPackets": 1,
            "receivedPackets": 2,
            **_TIMES,
        }
        for at in range(120)
    ]
    return {"destinations": found, "more": {"destinations": 0, "transmitBytes": 0, "receivedBytes": 0}}


def _agent(draw: random.Random, at: int) -> dict[str, Any]:
    way = {
        "coveragePercent": 97.2 if at == 4 else 100.0,
        **dict.fromkeys(("countedBytes", "capturedBytes", "countedPackets"), 10**9),
        **dict.fromkeys(("uncoveredPackets", "unseenPackets", "foldedPackets", "agentGapPackets"), 0),
    }
    ways = {"transmit": way, "receive": way}
    interface = {"interface": "veth0a1b", "namespace": "shop", "pod": "web-1", "attached": True, "sides": "both"}
    return {
        "live": at > 0,
        "lagSeconds": 0.4 + draw.random(),
        "lastReport": "2026-09-21T14:00:00Z",
        "source": "tcx",
        "attachments": 30,
        "cpuSeconds": 100.0 + at,
        "memoryMaxBytes": 5.1e7 * (1 + draw.random()),
        "since": "2026-09-21T13:00:00Z",
        "lostPackets": {"kernel-drop": 12} if at == 4 else {},
        "unexplainedPackets": 0,
        **ways,
        "interfaces": [{**interface, **ways}],
    }
