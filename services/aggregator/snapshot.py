"""The totals as they stand in Redis, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from services.aggregator.rows import RowState
from services.aggregator.stored_points import point_in, points_out
from services.aggregator.totals import Totals
from services.flows import traffic
from services.flows.traffic import Session

POSITION: Final = "position"
"""Field of the totals: the id of the last committed tick."""
SESSION: Final = "session"
_ROW: Final = "row:"
_POINTS: Final = "points:"
_BOOKS: Final = "books"
"""Field of the totals: what the aggregator needs besides to go on, and nobody else."""
_PEERS_PER_PART: Final = 20_000
"""A few megabytes: what Redis takes in without keeping others waiting."""

Pairs = list[object]
"""Fields and values in turn, as HSET takes them."""


@dataclass(slots=True)
class Part:
    """Fields of the totals, and of rows' peers."""

    totals: Pairs = field(default_factory=list)
    peers: dict[str, Pairs] = field(default_factory=dict)

    def add_peer(self, row: int, name: bytes, value: bytes) -> None:
        """Add a peer's field."""
        self.peers.setdefault(str(row), []).extend((name, value))


def changed(totals: Totals, session: Session, at_us: int) -> dict[str, Any]:
    """What a commit writes besides numbers and cursors; `session` names epoch and tick."""
    part = _session_part(totals, session)
    for number in totals.rows.changed:
        part.totals += _row(totals, number)
    for node in totals.points_changed:
        part.totals += [f"{_POINTS}{node}", msgpack.packb(points_out(totals.points, node))]
    for row, name, peer in totals.peers.changed():
        part.add_peer(row, name, traffic.encode_peer(peer))
    return _change(totals, part, session, totals.history.changed, at_us)


def whole(totals: Totals, session: Session, at_us: int) -> tuple[list[Part], dict[str, Any]]:
    """Everything: parts that come first, and the commit that completes them."""
    part = Part()
    parts = [part]
    for number in totals.rows.by_number:
        part.totals += _row(totals, number)
    count = 0
    for row, name, peer in totals.peers.changed(every=True):
        if count == _PEERS_PER_PART:
            part, count = Part(), 0
            parts.append(part)
        part.add_peer(row, name, traffic.encode_peer(peer))
        count += 1
    last = _session_part(totals, session)
    for node in totals.nodes:
        last.totals += [f"{_POINTS}{node}", msgpack.packb(points_out(totals.points, node))]
    return parts, _change(totals, last, session, set(totals.history.buckets), at_us)


def session_of(totals: Totals, epoch: int, n: int, started_us: int) -> Session:
    """The session as it is after tick `n`."""
    return Session(
        epoch=epoch,
        n=n,
        started_us=started_us,
        cluster=totals.cluster,
        nodes=totals.nodes,
        pending_bytes=totals.pending_bytes,
        overlap_bytes=totals.overlap_bytes,
        loss=dict(totals.loss),
    )


def restore(totals: Totals, stored: Mapping[bytes, bytes]) -> Session:
    """Fill empty totals from their hash, but for peers and observation points; raises as `traffic`'s codecs."""
    session = traffic.decode_session(stored[SESSION.encode()])
    totals.cluster, totals.nodes = session.cluster, dict(session.nodes)
    totals.loss.update(session.loss)
    for number, value in _numbered(stored):
        row = traffic.decode_row(number, value)
        totals.rows.restore(RowState(number, row.identity, row.totals, row.window_us, session.started_us))
    books = msgpack.unpackb(stored[_BOOKS.encode()])
    totals.rows.next_number = books["next_row"]
    totals.once.restore(books["once"])
    totals.gap_bytes.restore(books["gap_bytes"])
    totals.gap_packets.restore(books["gap_packets"])
    totals.once.overlap_bytes = session.overlap_bytes
    return session


def restore_points(totals: Totals, stored: Mapping[bytes, bytes]) -> None:
    """Fill in observation points, last: where the directory knows more by now, rows change."""
    found = [value for name, value in stored.items() if name.startswith(_POINTS.encode())]
    totals.points.restore(point_in(raw) for value in found for raw in msgpack.unpackb(value))
    totals.follow_moves()


def rows_in(stored: Mapping[bytes, bytes]) -> list[int]:
    """The numbers of the rows in a hash of totals."""
    return [number for number, _ in _numbered(stored)]


def _numbered(stored: Mapping[bytes, bytes]) -> Iterator[tuple[int, bytes]]:
    prefix = _ROW.encode()
    for name, value in stored.items():
        if name.startswith(prefix):
            yield int(name.removeprefix(prefix)), value


def _session_part(totals: Totals, session: Session) -> Part:
    books = {"next_row": totals.rows.next_number, "once": totals.once.stored()}
    books |= {"gap_bytes": totals.gap_bytes.stored(), "gap_packets": totals.gap_packets.stored()}
    position = f"{session.epoch}-{session.n}"
    encoded = traffic.encode_session(session)
    return Part([POSITION, position, SESSION, encoded, _BOOKS, msgpack.packb(books)])


def _row(totals: Totals, number: int) -> Pairs:
    return [f"{_ROW}{number}", traffic.encode_row(totals.rows.by_number[number].frozen())]


def _change(totals: Totals, part: Part, session: Session, buckets: set[int], at_us: int) -> dict[str, Any]:
    history = totals.history
    return {
        "position": f"{session.epoch}-{session.n}",
        "totals": part.totals,
        "peers": part.peers,
        "totals_gone": [f"{_ROW}{number}" for number in totals.rows.removed],
        "peers_gone": [str(number) for number in totals.rows.removed],
        "history": [value for at in buckets for value in (str(at), traffic.encode_history(history.buckets[at]))],
        "history_gone": [str(at) for at in history.dropped],
        "tick": traffic.encode_tick(totals.tick(session.epoch, session.n, at_us)),
    }
