"""What `/traffic/external`, `/traffic/map` and `/traffic/ports` answer: peers of all pods, added up by what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.api.counters import RX, RX_PACKETS, TX, TX_PACKETS
from services.api.mirror import Mirror, RowView
from services.api.views import protocol_of, rfc3339
from services.flows.delta import Coverage, Kind
from services.flows.scope import COLUMN_OF, Column
from services.flows.traffic import Counted, Identity, Peer

_EXTERNAL: Final = frozenset({Column.PRIVATE, Column.INTERNET})
MOST_DESTINATIONS: Final = 10_000
_PODS_NAMED: Final = 20
"""Pods named per destination; all are counted."""

Peers = Mapping[int, Iterable[Peer]]


@dataclass(slots=True)
class _Sum:
    """Counters of one destination, and who talked with it."""

    first_us: int = 0
    last_us: int = 0
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    pods: set[str] = field(default_factory=set)

    def add(self, peer: Peer, pod: str) -> None:
        """Add what one pod exchanged with it."""
        self.first_us = min(self.first_us or peer.first_us, peer.first_us)
        self.last_us = max(self.last_us, peer.last_us)
        for at, counter in enumerate((TX, RX, TX_PACKETS, RX_PACKETS)):
            self.counts[at] += peer.counts[counter]
        self.pods.add(pod)


def external(mirror: Mirror, peers: Peers, most: int) -> dict[str, Any]:
    """`/traffic/external`: who outside the cluster is talked with, those with the most bytes first.

    Of more than `most` destinations the rest is added up in `more`.
    """
    found: dict[tuple[Peer | str | int, ...], _Sum] = {}
    shown: dict[tuple[Peer | str | int, ...], Peer] = {}
    for key, row in mirror.shown().items():
        for peer in peers.get(row.number, ()):
            if COLUMN_OF[peer.scope] in _EXTERNAL:
                what = peer.address, peer.kind, peer.protocol, peer.port, peer.server, peer.rule, peer.name
                shown.setdefault(what, peer)
                found.setdefault(what, _Sum()).add(peer, key)
    ranked = sorted(found.items(), key=lambda item: -(item[1].counts[0] + item[1].counts[1]))
    rest = [one.counts for _, one in ranked[most:]]
    return {
        "destinations": [_destination(shown[what], one) for what, one in ranked[:most]],
        "more": {
            "destinations": len(rest),
            "transmitBytes": sum(one[0] for one in rest),
            "receivedBytes": sum(one[1] for one in rest),
        },
    }


def _destination(peer: Peer, one: _Sum) -> dict[str, Any]:
    return {
        "address": peer.address,
        "name": peer.name,
        "scope": peer.scope.value,
        "rule": peer.rule,
        "protocol": protocol_of(peer),
        "port": peer.port,
        "server": ("", "pod", "peer")[peer.server],
        "pods": sorted(one.pods)[:_PODS_NAMED],
        "podCount": len(one.pods),
        "transmitBytes": one.counts[0],
        "receivedBytes": one.counts[1],
        "transmitPackets": one.counts[2],
        "receivedPackets": one.counts[3],
        "firstSeen": rfc3339(one.first_us),
        "lastSeen": rfc3339(one.last_us),
    }


GROUPS: Final[Mapping[str, Callable[[Identity], str]]] = {
    "namespace": lambda who: who.namespace,
    "workload": lambda who: f"{who.namespace}/{who.owner_name or who.pod}",
    "node": lambda who: who.node,
    "zone": lambda who: who.zone,
    "pod": lambda who: who.key,
}
"""What pods can be put together by."""


def traffic_map(mirror: Mirror, peers: Peers, by: str) -> dict[str, Any]:
    """`/traffic/map`: who sends how much to whom, between groups and what is no pod; each byte once.

    What one pod sends to another counts where it is sent, and where it is received only if nobody sees
    the sender; traffic of Services counts at the end that knows the other one. Groups that are no pods'
    begin with a colon and carry their scope's name.
    """
    group = GROUPS[by]
    edges: dict[tuple[str, str], list[int]] = {}
    by_name = {(row.identity.namespace, row.identity.pod): row for row in mirror.shown().values()}

    def add(source: str, target: str, size: int, packets: int) -> None:
        if size or packets:
            edge = edges.setdefault((source, target), [0, 0])
            edge[0] += size
            edge[1] += packets

    for row in mirror.shown().values():
        me = group(row.identity)
        for peer in peers.get(row.number, ()):
            other = by_name.get((peer.namespace, peer.name)) if peer.what == "pod" else None
            them = group(other.identity) if other else f":{peer.scope.value}"
            if _counts(peer, other, sent=True):
                add(me, them, peer.counts[TX], peer.counts[TX_PACKETS])
            if _counts(peer, other, sent=False):
                add(them, me, peer.counts[RX], peer.counts[RX_PACKETS])
    return {
        "by": by,
        "edges": [
            {"from": source, "to": target, "bytes": size, "packets": packets}
            for (source, target), (size, packets) in sorted(edges.items(), key=lambda item: (-item[1][0], item[0]))
        ],
    }


def ports(mirror: Mirror, peers: Peers) -> dict[str, Any]:
    """`/traffic/ports`: over which servers' ports each pod talks, whoever the server is."""
    found = {
        key: sorted({peer.port for peer in peers.get(row.number, ()) if peer.kind == Kind.IP and peer.port})
        for key, row in mirror.shown().items()
    }
    return {"pods": {key: listed for key, listed in found.items() if listed}}


def _counts(peer: Peer, other: RowView | None, *, sent: bool) -> bool:
    """Whether one direction of what a row tells of a peer is to be added up, not what the peer tells itself."""
    if peer.counted is Counted.HERE or (sent and peer.counted is Counted.AT_SENDER):
        return True
    if other is None:
        return peer.counted is Counted.AT_SENDER
    sees = Coverage(other.identity.coverage)
    return not (sees.sees_ingress if sent else sees.sees_egress)
