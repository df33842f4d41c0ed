"""What a row, or a node, looks like to the clients of the WebSocket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from services.api.counters import RX, TX, column_bytes, internet_bytes, syns, total_bytes
from services.api.mirror import Mirror, RowView
from services.flows.live_message import COLUMNS, Node, Numbers, Pod
from services.flows.scope import SCOPES, Column

_BIT: Final = {scope: 1 << at for at, scope in enumerate(SCOPES)}
_SILENT: Final = (None,) * (len(COLUMNS) - 1)
Place = tuple[str, str]
"""Zone and region."""


def numbers(row: RowView, *, live: bool) -> Numbers:
    """A row's numbers in the order of `live_message.COLUMNS`."""
    total = total_bytes(row.totals)
    if not live:
        return *_SILENT, total
    rates, column = row.rates, column_bytes(row.rates)
    return (
        sum(counts[TX] for counts in rates.values()),
        sum(counts[RX] for counts in rates.values()),
        column[Column.LOCAL],
        column[Column.CROSS],
        column[Column.PRIVATE],
        *internet_bytes(rates),
        column[Column.OTHER],
        syns(rates),
        total,
    )


def summed(rows: Iterable[Numbers], *, known: bool) -> Numbers:
    """All rows together; rates are null where no agent reports at all."""
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    sums = [sum(value for value in column if value is not None) for column in columns]
    return tuple(value if known or name == "total" else None for name, value in zip(COLUMNS, sums, strict=True))


def pod(row: RowView) -> Pod:
    """What a row is called, and where it runs."""
    who = row.identity
    return Pod(
        id=row.number,
        ns=who.namespace,
        name=who.pod,
        node=who.node,
        zone=who.zone,
        region=who.region,
        owner_kind=who.owner_kind,
        owner=who.owner_name,
        labels=tuple(f"{name}={value}" for name, value in who.labels),
        ips=who.ips or ((who.ip,) if who.ip else ()),
        iface=who.interface,
        coverage=who.coverage,
        scopes=sum(_BIT[scope] for scope in row.totals),
        started=seconds(who.started_us),
        ended=seconds(who.gone_us),
    )


def nodes(mirror: Mirror, places: Mapping[str, Place]) -> tuple[Node, ...]:
    """All nodes by name; `places` says where those are that run pods."""
    return tuple(_node(mirror, name, places.get(name, ("", ""))) for name in sorted(mirror.nodes))


def places(rows: Iterable[Pod]) -> dict[str, Place]:
    """Where nodes are, as far as their pods say."""
    return {row.node: (row.zone, row.region) for row in rows if row.zone or row.region}


def seconds(us: int) -> float | None:
    """Microseconds, of which 0 means not known, as a message has them."""
    return us / 1e6 if us else None


def _node(mirror: Mirror, name: str, place: Place) -> Node:
    report, live = mirror.nodes[name], mirror.live(name)
    reported = None if live else seconds(mirror.reported_us.get(name, 0))
    return Node(name, *place, live=live, reported=reported, source=report.source, interfaces=report.attachments)
