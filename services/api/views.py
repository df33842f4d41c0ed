"""What the API answers, as plain functions of the mirror."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from services.api.counters import RX, RX_PACKETS, SIX, TX, TX_PACKETS, Six, gap_bytes, six, total_bytes
from services.api.mirror import Mirror, RowView
from services.api.peers import Candidates
from services.flows import keys
from services.flows.delta import Kind, Malformed
from services.flows.protocols import ethertype_name, protocol_name
from services.flows.traffic import ByScope, Identity, Peer, add_scopes

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_MALFORMED: Final = {reason.value: reason.label for reason in Malformed}
_CANDIDATES: Final = 100
_NO_TIME_US: Final = 253_402_300_799_000_000
"""The end of the year 9999, from where on no time can be written; agents' clocks are not ours."""
_COUNTER_ENDINGS: Final = ("Bytes", "Packets", "Sum")


def human(count: float) -> str:
    """Bytes in decimal units with at most three digits, such as "4.6 MB"."""
    size, unit = float(count), 0
    # 999.5 would be written as 1000.
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    text = f"{size:.0f}" if size >= 99.95 or unit == 0 else f"{size:.1f}"
    return f"{text} {_UNITS[unit]}"


def rfc3339(us: int) -> str:
    """A time in Unix microseconds as RFC 3339; empty where it is not known, or none."""
    if not 0 < us < _NO_TIME_US:
        return ""
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat().replace("+00:00", "Z")


def by_scope(scopes: ByScope) -> dict[str, dict[str, int]]:
    """Bytes and packets per scope."""
    return {
        scope.value: {
            "transmitBytes": counts[TX],
            "receivedBytes": counts[RX],
            "packets": counts[TX_PACKETS] + counts[RX_PACKETS],
        }
        for scope, counts in scopes.items()
    }


def overview(mirror: Mirror, why_old: str = "") -> dict[str, Any]:
    """`/traffic/overview`: sums over the pods' own views; `why_old` says why they are not current."""
    totals: ByScope = {}
    rates: ByScope = {}
    for row in mirror.rows.values():
        add_scopes(totals, row.totals)
        if mirror.live_row(row):
            add_scopes(rates, row.rates)
    packets, sent, received, _, near_sent, near_received = six(rates)
    shown = mirror.shown().values()
    return {
        **_named(six(totals)),
        "totalNodes": len({row.identity.node for row in shown if row.identity.node}),
        "totalNamespaces": len({row.identity.namespace for row in shown}),
        "totalPods": len(shown),
        "uptime": rfc3339(mirror.session.started_us),
        "lastUpdate": mirror.at_us // 1_000_000,
        "externalBandwidthPerSec": human(sent + received - near_sent - near_received),
        "internalBandwidthPerSec": human(near_sent + near_received),
        "packetsPerSec": packets,
        "scopes": by_scope(totals),
        "agentGapBytes": gap_bytes(totals),
        "clusterBytes": total_bytes(mirror.cluster),
        "clusterScopes": by_scope(mirror.cluster),
        "pendingBytes": mirror.pending_bytes,
        "overlapBytes": mirror.overlap_bytes,
        "loss": mirror.loss,
        "coverage": dict(Counter(row.identity.coverage for row in shown)),
        "nodesReporting": len(mirror.live_nodes()),
        "nodesKnown": len(mirror.nodes),
        "problem": why_old,
    }


def total(mirror: Mirror, peers: Mapping[int, Iterable[Peer]]) -> dict[str, Any]:
    """`/traffic/total`; `peers` by row number."""
    return {key: _pod(row, peers.get(row.number, ())) for key, row in mirror.shown().items()}


def flow(mirror: Mirror, added: Mapping[int, Six]) -> dict[str, dict[str, int]]:
    """`/traffic/flow` of the increments `added`, by row number; pods without any are left out."""
    shown = mirror.shown().items()
    return {key: _named(added[row.number]) for key, row in shown if row.number in added}


def peers_of(row: RowView, peers: Iterable[Peer], behind: Candidates, most: int | None = None) -> dict[str, Any]:
    """`/traffic/peers`: those with the most bytes first; of more than `most` the rest is only counted.

    `behind` are the pods that a Service or node may stand for.
    """
    ranked = sorted(peers, key=lambda peer: -(peer.counts[TX] + peer.counts[RX]))
    return {
        "pod": row.identity.key,
        "uid": row.identity.uid,
        "peers": [_peer(peer, behind) for peer in ranked[:most]],
        "more": len(ranked) - len(ranked[:most]),
    }


def exact(value: Any) -> Any:
    """The same with a decimal string beside every counter, for readers that round above 2^53.

    Keys of `loss` are reasons, to which nothing may be added.
    """
    if isinstance(value, list | tuple):
        return [exact(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    out = {key: exact(entry) for key, entry in value.items()}
    for key, entry in value.items():
        if isinstance(entry, int) and (key.endswith(_COUNTER_ENDINGS) or key == "packets"):
            out[f"{key}Exact"] = str(entry)
    return out


def _named(counters: Six) -> dict[str, int]:
    return dict(zip(SIX, counters, strict=True))


def _pod(row: RowView, peers: Iterable[Peer]) -> dict[str, Any]:
    who = row.identity
    return {
        "fileName": who.interface,
        "ip": who.ip,
        "podName": who.pod,
        "namespace": who.namespace,
        "node": who.node,
        "containerId": who.container_id,
        **_named(six(row.totals)),
        "transmitStartBytes": who.transmit_start_bytes,
        "receivedStartBytes": who.received_start_bytes,
        "startTime": rfc3339(who.started_us),
        "connections": _connections(who, peers),
        "uid": who.uid,
        "ips": who.ips,
        "zone": who.zone,
        "region": who.region,
        "ownerKind": who.owner_kind,
        "ownerName": who.owner_name,
        "labels": dict(who.labels),
        "coverage": who.coverage,
        "endTime": rfc3339(who.gone_us),
        "agentGapBytes": gap_bytes(row.totals),
        "scopes": by_scope(row.totals),
    }


def _connections(who: Identity, peers: Iterable[Peer]) -> dict[str, dict[str, Any]]:
    """Per pair of addresses; what has none (not IP, folded) is no connection."""
    packets: Counter[tuple[str, str]] = Counter()
    for peer in peers:
        if peer.address:
            packets[peer.local, peer.address] += peer.counts[TX_PACKETS] + peer.counts[RX_PACKETS]
    return {
        _connection_id(local, address): {"ip1": local or _own(who, address), "ip2": address, "packetSum": count}
        for (local, address), count in packets.items()
    }


def _connection_id(local: str, address: str) -> str:
    """A 64-bit number as the original's, the same for a peer at any time, after any restart."""
    digest = hashlib.blake2s(f"{local}|{address}".encode(), digest_size=8).digest()
    return str(int.from_bytes(digest))


def _own(who: Identity, address: str) -> str:
    """The pod's own address of the peer's family."""
    family = ":" in address
    return next((one for one in who.ips if (":" in one) == family), who.ip)


def _peer(peer: Peer, behind: Candidates) -> dict[str, Any]:
    candidates = behind.get(keys.behind(peer.what, peer.namespace, peer.name), ())
    return {
        "address": peer.address,
        "local": peer.local,
        "name": peer.name,
        "namespace": peer.namespace,
        "what": peer.what,
        "protocol": protocol_of(peer),
        "port": peer.port if peer.kind == Kind.IP else 0,
        "server": ("", "pod", "peer")[peer.server],
        "scope": peer.scope.value,
        "rule": peer.rule,
        "via": peer.via,
        "candidates": candidates[:_CANDIDATES],
        "candidateCount": len(candidates),
        "transmitBytes": peer.counts[TX],
        "receivedBytes": peer.counts[RX],
        "transmitPackets": peer.counts[TX_PACKETS],
        "receivedPackets": peer.counts[RX_PACKETS],
        "firstSeen": rfc3339(peer.first_us),
        "lastSeen": rfc3339(peer.last_us),
    }


def protocol_of(peer: Peer) -> str:
    """The name of a peer's protocol; empty for what was of any."""
    if peer.kind == Kind.NOT_IP:
        return ethertype_name(peer.port)
    if peer.kind == Kind.MALFORMED:
        return _MALFORMED.get(peer.port, str(peer.port))
    # Folded flows and folded peers were of any.
    return protocol_name(peer.protocol) if peer.address else ""
