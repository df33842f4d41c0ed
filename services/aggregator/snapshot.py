"""The totals as they stand in Redis, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from services.aggregator.behind import Key
from services.aggregator.stored_points import point_in, points_out
from services.aggregator.totals import Totals
from services.flows import coverage, traffic
from services.flows.keys import COVERAGE, behind
from services.flows.traffic import Session

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
    peers: dict[str, list[bytes]] = field(default_factory=dict)


def changed(totals: Totals, session: Session, at_us: int) -> dict[str, Any]:
    """What a commit writes besides numbers and cursors; `session` names epoch and tick."""
    part = _session_part(totals, session)
    for number, value in totals.rows.stored():
        part.totals += [f"{_ROW}{number}", value]
    for node in totals.points_changed:
        part.totals += _points(totals, node)
    part.totals += _behind(totals, totals.behind.changed)
    part.totals += _fields(totals, every=False)
    part.peers = {str(row): pairs for row, pairs in totals.peers.changed()}
    return _change(totals, part, session, totals.history.changed, at_us)


def whole(totals: Totals, session: Session, at_us: int) -> tuple[list[Part], dict[str, Any]]:
    """Everything: parts that come first, and the commit that completes them."""
    part = Part()
    parts = [part]
    for number in totals.rows.by_number:
        part.totals += _row(totals, number)
    room = 2 * _PEERS_PER_PART
    for row, pairs in totals.peers.changed(every=True):
        while pairs:
            if not room:
                part, room = Part(), 2 * _PEERS_PER_PART
                parts.append(part)
            taken, pairs = pairs[:room], pairs[room:]  # noqa: PLW2901  # what does not fit comes next
            part.peers[str(row)] = taken
            room -= len(taken)
    last = _session_part(totals, session)
    for node in totals.nodes:
        last.totals += _points(totals, node)
    last.totals += _behind(totals, totals.behind.known)
    last.totals += _fields(totals, every=True)
    return parts, _change(totals, last, session, set(totals.history), at_us)


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
        shards=totals.shards,
    )


def restore(totals: Totals, stored: Mapping[bytes, bytes]) -> Session:
    """Fill empty totals from their hash, but for peers and observation points; raises as `traffic`'s codecs."""
    session = traffic.decode_session(stored[SESSION.encode()])
    totals.accounts.counts, totals.nodes = session.cluster, dict(session.nodes)
    totals.loss.update(session.loss)
    for number, value in _numbered(stored):
        row = traffic.decode_row(number, value)
        totals.rows.restore(row, session.started_us)
    books = msgpack.unpackb(stored[_BOOKS.encode()])
    totals.restore(books, stored)
    totals.accounts.overlap_bytes = session.overlap_bytes
    return session


def restore_points(totals: Totals, stored: Mapping[bytes, bytes]) -> None:
    """Fill in observation points and their coverage, last: where the directory knows more by now, rows change."""
    for name, value in stored.items():
        if name.startswith(COVERAGE.encode()):
            totals.meters.restore(coverage.decode(value))
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
    return Part([SESSION, traffic.encode_session(session), _BOOKS, msgpack.packb(totals.books())])


def _points(totals: Totals, node: str) -> Pairs:
    pairs: Pairs = [f"{_POINTS}{node}", msgpack.packb(points_out(totals.points, node))]
    known = totals.meters.encoded(node)
    return pairs if known is None else [*pairs, f"{COVERAGE}{node}", known]


def _behind(totals: Totals, changed: Iterable[Key]) -> Pairs:
    known = totals.behind.known
    return [
        value
        for what, name in changed
        for value in (behind(what, name.namespace, name.name), msgpack.packb(known[what, name]))
    ]


def _fields(totals: Totals, *, every: bool) -> Pairs:
    return [value for pair in totals.stored_fields(every=every).items() for value in pair]


def _row(totals: Totals, number: int) -> Pairs:
    return [f"{_ROW}{number}", traffic.encode_row(totals.rows.by_number[number].frozen())]


def _change(totals: Totals, part: Part, session: Session, buckets: set[int], at_us: int) -> dict[str, Any]:
    kept = totals.history
    return {
        "position": f"{session.epoch}-{session.n}",
        "totals": part.totals,
        "peers": part.peers,
        "totals_gone": [*(f"{_ROW}{number}" for number in totals.rows.removed), *totals.gone_fields()],
        "peers_gone": [str(number) for number in totals.rows.removed],
        "history": [value for at in buckets for value in (str(at), kept.encoded(at))],
        "history_gone": [str(at) for at in kept.dropped],
        "tick": totals.rows.encoded_tick(totals.bare_tick(session.epoch, session.n, at_us)),
    }
