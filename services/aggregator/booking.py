"""Turns the flows of a window into what is booked: whose, with whom, which verdict, how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.aggregator.attachments import PCAP, Point, Points
from services.aggregator.verdicts import Judged, Verdicts
from services.flows.address import Address, from_words
from services.flows.delta import COUNTERS, Batch, Kind, Rows
from services.flows.protocols import TCP, UDP
from services.flows.scope import SCOPES, Pod, Scope
from services.flows.table import group, key_of, sum_by
from services.flows.traffic import ROW_COUNTERS, ByScope, Counts

Table = npt.NDArray[np.uint64]
"""One line of `ROW_COUNTERS` per entry."""
Numbers = npt.NDArray[np.int64]
_WORDS: Final = np.dtype([("hi", "<u8"), ("lo", "<u8")])
_PAIR: Final = np.dtype([("row", "<u4"), ("kind", "<u4"), ("hi", "<u8"), ("lo", "<u8")])
_TRIPLE: Final = np.dtype([("row", "<u4"), ("scope", "<u4"), ("other", "<u8")])


class Between(NamedTuple):
    """What a row exchanged with one other pod."""

    row: int
    other: str
    """The other pod's uid."""
    scope: Scope
    counts: Counts


class _Subject(NamedTuple):
    """Whose a flow is."""

    row: int
    pod: Pod
    own: frozenset[Address]
    once: bool
    """Whether the other end's agent may report the same bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Booked:
    """A window's entries, one per row, peer and service; the counters add up to those of the flows."""

    keys: Rows
    """`FLOW_KEY` with the row's number as `attachment` and the label's as `reserved3`."""
    counts: Table
    scopes: Numbers
    others: Numbers
    """Per entry the place in `uids` of the pod at the other end."""
    uids: list[str]

    def by_row(self) -> dict[int, ByScope]:
        """Sums per row and scope."""
        added: dict[int, ByScope] = {}
        for row, scope, _, counts in self._sums(np.ones(len(self.keys), np.bool_), by_other=False):
            added.setdefault(row, {})[SCOPES[scope]] = counts
        return added

    def alone(self) -> ByScope:
        """Sums of what no other pod's agent can report, by scope."""
        mine = self.others == 0
        found = np.unique(self.scopes[mine]).tolist()
        return {SCOPES[at]: self.counts[mine & (self.scopes == at)].sum(axis=0).tolist() for at in found}

    def between(self) -> Iterator[Between]:
        """Sums of what was exchanged with other pods."""
        for row, scope, other, counts in self._sums(self.others != 0, by_other=True):
            yield Between(row, self.uids[other], SCOPES[scope], counts)

    def _sums(self, chosen: npt.NDArray[np.bool_], *, by_other: bool) -> Iterator[tuple[int, int, int, Counts]]:
        key = np.zeros(int(chosen.sum()), _TRIPLE)
        key["row"], key["scope"] = self.keys["attachment"][chosen], self.scopes[chosen]
        if by_other:
            key["other"] = self.others[chosen]
        first, inverse = group(key)
        sums = summed(self.counts[chosen], inverse, len(first))
        kept = key[first]
        yield from zip(kept["row"].tolist(), kept["scope"].tolist(), kept["other"].tolist(), sums.tolist(), strict=True)


def summed(table: Table, inverse: npt.NDArray[np.intp], groups: int) -> Table:
    """The lines of a table added by group."""
    out = np.zeros((groups, table.shape[1]), np.uint64)
    for at in range(table.shape[1]):
        out[:, at] = sum_by(inverse, table[:, at], groups)
    return out


def book(flows: Rows, batch: Batch, points: Points, verdicts: Verdicts) -> Booked:
    """The entries of a window's flows."""
    # The keys of one row alone are a view, and `flows` must stay as they are.
    keys = key_of(flows).copy()
    subjects = _own(keys, batch, points)
    first, inverse = group(keys)
    counts = np.zeros((len(first), len(ROW_COUNTERS)), np.uint64)
    for at, name in enumerate(COUNTERS):
        counts[:, at] = sum_by(inverse, flows[name], len(first))
    kept = keys[first]
    other = (kept["kind"] != Kind.IP) | ~np.isin(kept["protocol"], (TCP, UDP))
    for name in ("tx", "rx"):
        counts[:, ROW_COUNTERS.index(f"{name}_other_bytes")] = np.where(
            other, counts[:, ROW_COUNTERS.index(f"{name}_bytes")], np.uint64(0)
        )
    return _judge(kept, counts, subjects, verdicts)


def _own(keys: Rows, batch: Batch, points: Points) -> dict[int, _Subject]:
    """Replace attachments by rows, in place; the local address stays only where it tells whose a flow is."""
    subjects: dict[int, _Subject] = {}
    found, inverse = np.unique(keys["attachment"], return_inverse=True)
    rows = np.zeros(len(found), np.uint32)
    several = np.zeros(len(found), np.bool_)
    for at, attachment in enumerate(found.tolist()):
        point = points.known[batch.boot, attachment]
        pod = points.pod_of(point)
        rows[at], several[at] = point.row, point.source == PCAP
        if not several[at]:
            subjects[point.row] = _Subject(point.row, pod, points.own_addresses(point.row, pod), once=True)
    for word in ("local_hi", "local_lo"):
        keys[word] = np.where(several[inverse], keys[word], np.uint64(0))
    owned = rows[inverse]
    for at in np.flatnonzero(several).tolist():
        point = points.known[batch.boot, int(found[at])]
        mine = np.flatnonzero(inverse == at)
        owned[mine] = _by_address(keys[mine], point, points, subjects)
    keys["attachment"] = owned
    return subjects


def _by_address(keys: Rows, point: Point, points: Points, subjects: dict[int, _Subject]) -> npt.NDArray[np.uint32]:
    """The row of each entry of a point behind which many pods are."""
    local = np.zeros(len(keys), _WORDS)
    local["hi"], local["lo"] = keys["local_hi"], keys["local_lo"]
    first, inverse = group(local)
    rows = np.zeros(len(first), np.uint32)
    for at, (hi, lo) in enumerate(local[first].tolist()):
        address = from_words(hi, lo) if hi or lo else None
        row, pod = points.by_address(point, address)
        own = points.directory.addresses(pod) or frozenset(() if address is None else (address,))
        # A file holds each packet once, whoever's it is.
        subjects[row] = _Subject(row, pod, own, once=False)
        rows[at] = row
    return rows[inverse]


def _judge(keys: Rows, counts: Table, subjects: dict[int, _Subject], verdicts: Verdicts) -> Booked:
    pairs = np.zeros(len(keys), _PAIR)
    pairs["row"], pairs["kind"] = keys["attachment"], keys["kind"]
    pairs["hi"], pairs["lo"] = keys["peer_hi"], keys["peer_lo"]
    first, inverse = group(pairs)
    columns = [pairs[first][name].tolist() for name in ("row", "kind", "hi", "lo")]
    judged: list[Judged] = []
    uids, numbers = [""], {"": 0}
    others = np.zeros(len(first), np.int64)
    for at, (row, kind, hi, lo) in enumerate(zip(*columns, strict=True)):
        subject = subjects[row]
        verdict = verdicts.of(subject.pod, subject.own, kind, hi, lo)
        judged.append(verdict)
        if verdict.other and subject.once:
            number = numbers.setdefault(verdict.other, len(uids))
            if number == len(uids):
                uids.append(verdict.other)
            others[at] = number
    keys["reserved3"] = np.array([one.label for one in judged], np.uint32)[inverse]
    scopes = np.array([one.scope for one in judged], np.int64)[inverse]
    return Booked(keys, counts, scopes, others[inverse], uids)
