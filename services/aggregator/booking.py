"""Turns the flows of windows into what is booked: whose, with whom, which verdict, how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from services.aggregator.attachments import Points
from services.aggregator.backing import Backing
from services.aggregator.names import Names
from services.aggregator.pairs import Pairs
from services.aggregator.subjects import Subjects, subjects_of
from services.aggregator.sums import Mask, Numbers, Table, chosen, sums_by, sums_by_scope
from services.aggregator.verdicts import Judged, Peers, Verdicts, Windows
from services.flows.address import from_words
from services.flows.delta import COUNTERS, FLOW, Batch, Kind, Rows, Side, Window
from services.flows.protocols import TCP, UDP
from services.flows.table import Words, group_columns, key_of
from services.flows.traffic import ROW_COUNTERS, VIA_INGRESS, ByScope, Counted

_AT: Final = {name: at for at, name in enumerate(ROW_COUNTERS)}
_WAYS: Final = [(_AT[f"{way}_bytes"], _AT[f"{way}_other_bytes"], _AT[f"{way}_ingress_bytes"]) for way in ("tx", "rx")]


class Told(NamedTuple):
    """Some flows of a window, which are to be booked."""

    batch: Batch
    window: Window
    flows: Rows


class Sums(NamedTuple):
    """Counters by row, scope and window, by column."""

    rows: Numbers
    scopes: Numbers
    starts: Numbers
    ends: Numbers
    counts: Table


@dataclass(frozen=True, slots=True, eq=False)
class Booked:
    """One entry per flow, by column; the counters are those of the flows. Times are Redis microseconds."""

    names: Names
    keys: Rows
    """`FLOW_KEY` with the row's number as `attachment` and the label's as `reserved3`."""
    counts: Table
    windows: Numbers
    starts: Numbers
    ends: Numbers
    scopes: Numbers
    counted: Numbers
    """Per entry a `Counted`."""
    mine: Numbers
    """The number of the pod itself."""
    others: Numbers
    """The number of the pod at the other end, 0 where there is none."""
    local_hi: Words
    local_lo: Words
    """The pod's own address."""
    times: list[tuple[int, int]]
    """When each window began and ended."""

    def by_row(self) -> Sums:
        """Sums per row, scope and window."""
        rows = self.keys["attachment"].astype(np.int64)
        # A row's number has 32 bits; there are no 16 scopes, and no 65,536 windows at a time.
        found, counts = sums_by(rows << 20 | self.scopes << 16 | self.windows, self.counts)
        windows = found & 0xFFFF
        starts, ends = (np.zeros(int(self.windows.max(initial=0)) + 1, np.int64) for _ in range(2))
        starts[self.windows], ends[self.windows] = self.starts, self.ends
        return Sums(found >> 20, found >> 16 & 15, starts[windows], ends[windows], counts)

    def alone(self) -> ByScope:
        """Sums of what no other pod's agent can report, by scope."""
        mine = (self.others == 0) & (self.counted == Counted.AT_SENDER)
        return sums_by_scope(self.scopes[mine], chosen(self.counts, mine))

    def with_services(self) -> Pairs:
        """What counts at the clients of Services; at the other end is nobody."""
        return self._pairs((self.others == 0) & (self.counted == Counted.HERE))

    def between(self) -> tuple[Pairs, Numbers]:
        """What was exchanged with other pods, and per entry a `Counted`."""
        some = self.others != 0
        return self._pairs(some), self.counted[some]

    def _pairs(self, some: Mask) -> Pairs:
        columns = (self.starts, self.ends, self.mine, self.others, self.scopes)
        starts, ends, mine, others, scopes = (column[some] for column in columns)
        return Pairs(self.names, starts, ends, mine, others, scopes, chosen(self.counts, some))


def book(told: Sequence[Told], points: Points, verdicts: Verdicts, backing: Backing) -> Booked:
    """The entries of the flows of windows."""
    flows = np.concatenate([one.flows for one in told]) if told else np.zeros(0, FLOW)
    windows = np.repeat(np.arange(len(told)), [len(one.flows) for one in told])
    times = np.array([one.batch.times(one.window) for one in told], np.int64).reshape(-1, 2).T
    errors = np.array([one.batch.error_us for one in told], np.int64)
    # The keys of one row alone are a view, and `flows` must stay as they are.
    keys = key_of(flows).copy()
    subjects = subjects_of([(one.batch, one.window) for one in told], keys, windows, points, verdicts)
    counts = _counts(flows, keys)
    around = Windows(times[0] - errors, times[1] + errors)
    peers = Peers(keys["kind"], keys["peer_hi"].copy(), keys["peer_lo"].copy(), subjects.places, windows)
    judged = _judged(peers, around, subjects, verdicts)
    if len(told):
        latest = int(around.starts.argmax())
        points.directory.at(int(around.starts[latest]), int(around.ends[latest]))
    booked = Booked(
        names=points.names,
        keys=keys,
        counts=counts,
        windows=windows,
        starts=times[0][windows],
        ends=times[1][windows],
        scopes=judged.scopes,
        counted=np.full(len(keys), Counted.AT_SENDER, np.int64),
        mine=subjects.names,
        # A file holds each packet once, whoever's it is: nobody else reports it.
        others=np.where(subjects.once, judged.others, 0),
        local_hi=flows["local_hi"],
        local_lo=flows["local_lo"],
        times=[one.batch.times(one.window) for one in told],
    )
    keys["attachment"] = subjects.rows
    _with_services(booked, judged, subjects, verdicts, backing)
    _at_endpoints(booked, subjects, backing)
    # A pod that talks with its node counts both directions itself: it knows nobody there.
    booked.counted[(booked.others != 0) & subjects.as_node] = Counted.THERE
    ingress = judged.ingress & (keys["server"] != Side.PEER)
    if ingress.any():
        for column, part, other in _WAYS:
            counts[:, other] = np.where(ingress, counts[:, column] - counts[:, part], np.uint64(0))
    keys["reserved3"] = _labelled(judged.labels, booked.counted, ingress, verdicts)
    return booked


def _counts(flows: Rows, keys: Rows) -> Table:
    counts = np.zeros((len(ROW_COUNTERS), len(flows)), np.uint64).T
    for at, name in enumerate(COUNTERS):
        counts[:, at] = flows[name]
    other = (keys["kind"] != Kind.IP) | ((keys["protocol"] != TCP) & (keys["protocol"] != UDP))
    if other.any():
        for column, part, _ in _WAYS:
            counts[:, part] = np.where(other, counts[:, column], np.uint64(0))
    return counts


def _judged(peers: Peers, windows: Windows, subjects: Subjects, verdicts: Verdicts) -> Judged:
    """The verdicts on peers, also where they are the pods themselves."""
    judged = verdicts.judge(peers, windows)
    own = (judged.others != 0) & (judged.others == subjects.names)
    for hi, lo in subjects.own:
        own |= (peers.hi == hi) & (peers.lo == lo)
    own &= (peers.kinds == Kind.IP) & ~judged.special
    mine = np.flatnonzero(own)
    for which in np.unique(subjects.which[mine]).tolist():
        some = mine[subjects.which[mine] == which]
        for column, one in zip(judged, verdicts.itself(subjects.pods[which]), strict=True):
            column[some] = one
    return judged


def _with_services(booked: Booked, judged: Judged, subjects: Subjects, verdicts: Verdicts, backing: Backing) -> None:
    """Decide where what has a Service at its other end counts."""
    some = np.flatnonzero((judged.services >= 0) & subjects.once)
    if len(some):
        found, which = np.unique(judged.services[some], return_inverse=True)
        services = [verdicts.services[at] for at in found.tolist()]
        at_backends = backing.at_backends(services, which, booked.starts[some], booked.ends[some])
        booked.counted[some] = np.where(at_backends, Counted.THERE, Counted.HERE)


def _at_endpoints(booked: Booked, subjects: Subjects, backing: Backing) -> None:
    """Decide where traffic at the ports of Services' backends counts."""
    keys = booked.keys
    between = (booked.others != 0) & (keys["kind"] == Kind.IP)
    there = np.flatnonzero(between & (keys["server"] == Side.PEER))
    _follow(booked, there, keys["peer_hi"][there], keys["peer_lo"][there], backing, Side.PEER)
    here = np.flatnonzero(between & (keys["server"] == Side.LOCAL))
    # Of several own addresses the first one with a Service decides.
    for hi, lo in reversed(subjects.own):
        _follow(booked, here, hi[here], lo[here], backing, Side.LOCAL)


def _follow(booked: Booked, some: Numbers, hi: Words, lo: Words, backing: Backing, side: Side) -> None:
    """Let entries count where the Services say that stand at these addresses, `side` of them."""
    protocols, ports = (booked.keys[name][some].astype(np.uint64) for name in ("protocol", "port"))
    may = backing.directory.endpoints.may_stand_at(hi, lo, protocols, ports)
    if not may.any():
        return
    some, columns = some[may], [column[may] for column in (lo, hi, protocols << np.uint64(16) | ports)]
    first, inverse = group_columns(columns)
    listed = zip(*(column[first].tolist() for column in columns), strict=True)
    at = [backing.service_at(from_words(hi, lo), port >> 16, port & 0xFFFF) for lo, hi, port in listed]
    services = list(dict.fromkeys(one for one in at if one is not None))
    places = {service: place for place, service in enumerate(services)}
    which = np.array([-1 if one is None else places[one] for one in at], np.int64)[inverse]
    some, which = some[which >= 0], which[which >= 0]
    at_backends = backing.at_backends(services, which, booked.starts[some], booked.ends[some])
    booked.counted[some] = np.where(at_backends == (side is Side.LOCAL), Counted.HERE, Counted.THERE)


def _labelled(labels: Numbers, counted: Numbers, ingress: Mask, verdicts: Verdicts) -> Numbers:
    """The labels that also tell where something counts, and what it came through."""
    if not (counted.any() or ingress.any()):
        return labels
    combined = (labels * len(Counted) + counted) * 2 + ingress
    found, inverse = np.unique(combined, return_inverse=True)
    known = verdicts.labels
    new = []
    for number in found.tolist():
        label, how = divmod(number // 2, len(Counted))
        new.append(
            known.number(known.known[label]._replace(counted=Counted(how), via=VIA_INGRESS if number % 2 else ""))
        )
    return np.array(new, np.int64)[inverse]
