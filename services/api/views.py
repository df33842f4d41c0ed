"""What the API answers, as plain functions of the mirror."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from services.api.mirror import Mirror, RowView
from services.flows.delta import Kind, Malformed
from services.flows.protocols import ethertype_name, protocol_name
from services.flows.scope import COLUMN_OF, Column, Scope
from services.flows.traffic import ROW_COUNTERS, ByScope, Counts, Peer, Tick, add_scopes, no_counts

_AT: Final = {name: at for at, name in enumerate(ROW_COUNTERS)}
_INSIDE: Final = frozenset((Column.LOCAL, Column.CROSS))
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


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
    """A time in Unix microseconds as RFC 3339; empty where it is not known."""
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat().replace("+00:00", "Z") if us else ""


def six(scopes: ByScope) -> dict[str, int]:
    """The original's six counters: transmit and receive are TCP and UDP, unknown is the rest."""
    sums = dict.fromkeys(
        (
            "packetsSum",
            "transmitBytes",
            "receivedBytes",
            "unknownBytes",
            "localTransmitBytes",
            "localReceivedBytes",
        ),
        0,
    )
    for scope, counts in scopes.items():
        sent = counts[_AT["tx_bytes"]] - counts[_AT["tx_other_bytes"]]
        received = counts[_AT["rx_bytes"]] - counts[_AT["rx_other_bytes"]]
        sums["packetsSum"] += counts[_AT["tx_packets"]] + counts[_AT["rx_packets"]]
        sums["transmitBytes"] += sent
        sums["receivedBytes"] += received
        sums["unknownBytes"] += counts[_AT["tx_other_bytes"]] + counts[_AT["rx_other_bytes"]]
        if COLUMN_OF[scope] in _INSIDE or scope is Scope.OTHER:
            sums["localTransmitBytes"] += sent - counts[_AT["tx_ingress_bytes"]]
            sums["localReceivedBytes"] += received - counts[_AT["rx_ingress_bytes"]]
    return sums


def by_scope(scopes: ByScope) -> dict[str, dict[str, int]]:
    """Bytes and packets per scope."""
    return {
        scope.value: {
            "transmitBytes": counts[_AT["tx_bytes"]],
            "receivedBytes": counts[_AT["rx_bytes"]],
            "packets": counts[_AT["tx_packets"]] + counts[_AT["rx_packets"]],
        }
        for scope, counts in scopes.items()
    }


def overview(mirror: Mirror) -> dict[str, Any]:
    """`/traffic/overview`."""
    totals: ByScope = {}
    rates: ByScope = {}
    now = mirror.now_us
    for row in mirror.rows.values():
        add_scopes(totals, row.totals)
        add_scopes(rates, row.rates(now))
    per_second = six(rates)
    inside = per_second["localTransmitBytes"] + per_second["localReceivedBytes"]
    shown = mirror.shown().values()
    return {
        **six(totals),
        "totalNodes": len({row.identity.node for row in shown if row.identity.node}),
        "totalNamespaces": len({row.identity.namespace for row in shown}),
        "totalPods": len(shown),
        "uptime": rfc3339(mirror.session.started_us),
        "lastUpdate": mirror.at_us // 1_000_000,
        "externalBandwidthPerSec": human(per_second["transmitBytes"] + per_second["receivedBytes"] - inside),
        "internalBandwidthPerSec": human(inside),
        "packetsPerSec": per_second["packetsSum"],
        "scopes": by_scope(totals),
        "clusterBytes": sum(c[_AT["tx_bytes"]] + c[_AT["rx_bytes"]] for c in mirror.cluster.values()),
        "clusterScopes": by_scope(mirror.cluster),
        "pendingBytes": mirror.pending_bytes,
        "overlapBytes": mirror.overlap_bytes,
        "loss": mirror.loss,
        "nodesReporting": sum(mirror.live(node) for node in mirror.nodes),
    }


def total(mirror: Mirror, peers: Mapping[int, Iterable[Peer]]) -> dict[str, Any]:
    """`/traffic/total`."""
    return {key: _pod(row, peers.get(row.number, ())) for key, row in mirror.shown().items()}


def flow(mirror: Mirror, ticks: Iterable[Tick]) -> dict[str, Any]:
    """`/traffic/flow`: the increments of `ticks`."""
    added: dict[int, ByScope] = {}
    for tick in ticks:
        for change in tick.changes:
            add_scopes(added.setdefault(change.number, {}), change.added)
    shown = {row.number: key for key, row in mirror.shown().items()}
    return {shown[number]: six(scopes) for number, scopes in sorted(added.items()) if number in shown}


def peers_of(row: RowView, peers: Iterable[Peer]) -> dict[str, Any]:
    """`/traffic/peers`: the largest first."""
    ranked = sorted(peers, key=lambda peer: -(peer.counts[0] + peer.counts[1]))
    return {"pod": row.identity.key, "uid": row.identity.uid, "peers": [_peer(peer) for peer in ranked]}


def _pod(row: RowView, peers: Iterable[Peer]) -> dict[str, Any]:
    who = row.identity
    connections: dict[str, dict[str, Any]] = {}
    packets: dict[str, int] = {}
    for peer in peers:
        if peer.address:
            count = peer.counts[_AT["tx_packets"]] + peer.counts[_AT["rx_packets"]]
            packets[peer.address] = packets.get(peer.address, 0) + count
    for address, count in packets.items():
        connections[_connection_id(who.ip, address)] = {"ip1": who.ip, "ip2": address, "packetSum": count}
    return {
        "fileName": who.interface,
        "ip": who.ip,
        "podName": who.pod,
        "namespace": who.namespace,
        "node": who.node,
        "containerId": who.container_id,
        **six(row.totals),
        "transmitStartBytes": who.transmit_start_bytes,
        "receivedStartBytes": who.received_start_bytes,
        "startTime": rfc3339(who.started_us),
        "connections": connections,
        "uid": who.uid,
        "ips": who.ips,
        "zone": who.zone,
        "region": who.region,
        "ownerKind": who.owner_kind,
        "ownerName": who.owner_name,
        "labels": dict(who.labels),
        "coverage": who.coverage,
        "scopes": by_scope(row.totals),
    }


def _connection_id(one: str, two: str) -> str:
    """Stable over time and restarts, as short as the original's."""
    return hashlib.blake2s(f"{one}|{two}".encode(), digest_size=8).hexdigest()


def _peer(peer: Peer) -> dict[str, Any]:
    counts: Counts = peer.counts or no_counts()
    return {
        "address": peer.address,
        "name": peer.name,
        "namespace": peer.namespace,
        "what": peer.what,
        "protocol": _protocol(peer),
        "port": peer.port if peer.kind == Kind.IP else 0,
        "server": ("", "pod", "peer")[peer.server],
        "scope": peer.scope.value,
        "rule": peer.rule,
        "via": peer.via,
        "transmitBytes": counts[_AT["tx_bytes"]],
        "receivedBytes": counts[_AT["rx_bytes"]],
        "transmitPackets": counts[_AT["tx_packets"]],
        "receivedPackets": counts[_AT["rx_packets"]],
        "firstSeen": rfc3339(peer.first_us),
        "lastSeen": rfc3339(peer.last_us),
    }


def _protocol(peer: Peer) -> str:
    if peer.kind == Kind.NOT_IP:
        return ethertype_name(peer.port)
    if peer.kind == Kind.MALFORMED:
        return Malformed(peer.port).label
    if peer.kind == Kind.FOLDED or not peer.address:
        return ""
    return protocol_name(peer.protocol)


def exact(value: Any) -> Any:
    """The same with a decimal string beside every integer that JSON readers may round."""
    if isinstance(value, dict):
        out = {key: exact(entry) for key, entry in value.items()}
        numbers = {key: entry for key, entry in value.items() if type(entry) is int}
        return out | {f"{key}Exact": str(entry) for key, entry in numbers.items()}
    if isinstance(value, list | tuple):
        return [exact(entry) for entry in value]
    return value
