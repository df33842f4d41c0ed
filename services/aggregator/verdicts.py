"""Verdicts on peers, each worked out once until something changes."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.aggregator.attachments import Points
from services.aggregator.directory import Directory
from services.aggregator.index import Index
from services.aggregator.names import Names
from services.aggregator.places import DISTANCES, Places
from services.aggregator.sums import Mask, Numbers
from services.flows.address import Address, from_words, to_words
from services.flows.delta import Kind
from services.flows.scope import SCOPES, Named, Pod, Rule, Scope, Verdict, is_special, itself, resolve, seen_from
from services.flows.table import Words
from services.flows.traffic import Counted

_MOST: Final = 200_000
"""Peers and verdicts kept; a scan of the whole internet must not fill the memory, nor must pods that come and go."""
_NEVER: Final = np.iinfo(np.int64).max
_WITHOUT_PEER: Final = {
    int(Kind.NOT_IP): Verdict(Scope.UNKNOWN, Rule.NOT_IP),
    int(Kind.MALFORMED): Verdict(Scope.UNKNOWN, Rule.MALFORMED),
    int(Kind.FOLDED): Verdict(Scope.UNKNOWN, Rule.FOLDED),
}
_WHAT: Final = {
    Rule.SERVICE: "service",
    Rule.NODE: "node",
    Rule.NODE_GATEWAY: "node",
    Rule.USER_CIDR: "cidr",
}


class Label(NamedTuple):
    """What a peer is called in the totals: it keeps peers of the same address apart."""

    scope: Scope
    rule: str
    name: str = ""
    namespace: str = ""
    what: str = ""
    via: str = ""
    counted: Counted = Counted.AT_SENDER


class Judged(NamedTuple):
    """Verdicts as they are booked, by column: numbers of scopes and labels, and who is at the other end."""

    scopes: Numbers
    labels: Numbers
    others: Numbers
    """The numbers of the pods at the other end, 0 where there is none."""
    ingress: Mask
    """Whether that pod brings traffic in from outside the cluster."""
    services: Numbers
    """The places in `Verdicts.services` of the Services at the other end, -1 where there is none."""
    special: Mask
    """Whether the address is the same to everybody, also to who has it."""


class Peers(NamedTuple):
    """Peers to be judged, by column: their addresses, and from where and in which window they were seen."""

    kinds: Words
    hi: Words
    lo: Words
    here: Numbers
    """Numbers of places."""
    windows: Numbers
    """Places in `Windows`."""

    def some(self, chosen: Mask | Numbers) -> Peers:
        """Some of them."""
        here, windows = self.here[chosen], self.windows[chosen]
        return Peers(self.kinds[chosen], self.hi[chosen], self.lo[chosen], here, windows)


class Windows(NamedTuple):
    """When windows began and ended at the earliest and latest, with their agents' error; Redis microseconds."""

    starts: Numbers
    ends: Numbers


class Labels:
    """Numbers for labels; a number never changes its meaning."""

    def __init__(self) -> None:
        self.known: list[Label] = []
        self._numbers: dict[Label, int] = {}

    def number(self, label: Label) -> int:
        """The number of a label."""
        number = self._numbers.get(label)
        if number is None:
            number = self._numbers[label] = len(self.known)
            self.known.append(label)
        return number


class _Seen:
    """The directory, and behind it what agents saw of pods that it does not know."""

    def __init__(self, directory: Directory, points: Points) -> None:
        self._stand_ins = points.stand_ins
        self._directory = directory
        self._window = 0, 0
        self.service = directory.service
        self.is_api_server = directory.is_api_server
        self.node = directory.node
        self.node_gateway = directory.node_gateway
        self.user_cidr = directory.user_cidr
        self.in_cluster_range = directory.in_cluster_range
        self.in_private_cidr = directory.in_private_cidr

    def at(self, start_us: int, end_us: int) -> None:
        """From now on answers are about this window."""
        self._window = start_us, end_us
        self._directory.at(start_us, end_us)

    def settled_us(self, address: Address) -> int:
        """From when on a window gets the same answer as every later one."""
        return max(self._directory.settled_us(address), self._stand_ins.settled_us(address))

    def pod(self, address: Address) -> Pod | None:
        return self._directory.pod(address) or self._stand_ins.pod(address, *self._window)


class Verdicts:
    """The ladder's answers for the rows of one aggregator."""

    def __init__(self, directory: Directory, points: Points, names: Names) -> None:
        self._directory = directory
        self._points = points
        self._names = names
        self._world = _Seen(directory, points)
        self.labels = Labels()
        self.places = Places()
        self.services: list[Named] = []
        """The Services that are at other ends."""
        self._table: npt.NDArray[np.int64]
        """A column per verdict, a line per field of `Judged`."""
        self.forget()

    def refresh(self) -> None:
        """Forget verdicts that may be others by now."""
        changed = self._directory.changes()
        seen = self._points.take_changed()
        if changed is None or max(len(self._index), len(self._numbers)) > _MOST:
            self.forget()
        elif changed or seen:
            words = np.array([to_words(one) for one in (*changed, *seen)], np.uint64)
            numbers = self._index.find([words[:, 1], words[:, 0]])
            self._since[numbers[numbers >= 0]] = _NEVER

    def known(self, hi: Words, lo: Words) -> Mask:
        """Which peers have a verdict since the last change."""
        numbers = self._index.find([lo, hi])
        return np.asarray((numbers >= 0) & (self._since[numbers] != _NEVER))

    def judge(self, peers: Peers, windows: Windows) -> Judged:
        """The verdicts on peers, were they somebody else's than who saw them."""
        judged = np.zeros(len(peers.kinds), np.int64)
        for kind, verdict in _WITHOUT_PEER.items():
            mine = peers.kinds == kind
            if mine.any():
                judged[mine] = self._judged(verdict)
        ip = np.flatnonzero(peers.kinds == Kind.IP)
        if len(ip):
            judged[ip] = self._judge_addresses(peers.some(ip), windows)
        return self._columns(judged)

    def itself(self, me: Pod) -> Judged:
        """The verdict of a pod on itself."""
        number = self._judged(itself(me, Verdict(Scope.SAME_POD, Rule.OWN_ADDRESS)))
        return self._columns(np.array([number], np.int64))._replace(ingress=np.zeros(1, np.bool_))

    def _judge_addresses(self, peers: Peers, windows: Windows) -> Numbers:
        numbers = self._index.add([peers.lo, peers.hi])
        self._grow()
        self._resolve_new(numbers, windows)
        judged = np.zeros(len(numbers), np.int64)
        # An address that has changed hands meanwhile is asked about for each window by itself.
        late = windows.starts[peers.windows] < self._since[numbers]
        if late.any():
            judged[late] = self._judge_one_by_one(peers.some(late), windows)
        settled = np.flatnonzero(~late)
        numbers, here = numbers[settled], peers.here[settled]
        there = self._there[numbers]
        how = np.where(there >= 0, self.places.distances(here, there), 0)
        found = self._variants[numbers, how]
        new = found < 0
        if new.any():
            for number, code in set(zip(numbers[new].tolist(), how[new].tolist(), strict=True)):
                self._variants[number, code] = self._judged(_at(self._found[number], code))
            found = self._variants[numbers, how]
        judged[settled] = found
        return judged

    def _resolve_new(self, numbers: Numbers, windows: Windows) -> None:
        """Ask the ladder about addresses without a verdict; what it says of the latest window holds for all settled ones."""
        new = np.unique(numbers[self._since[numbers] == _NEVER])
        if not len(new):
            return
        latest = int(windows.starts.argmax())
        start, end = int(windows.starts[latest]), int(windows.ends[latest])
        self._world.at(start, end)
        lo, hi = self._index.words(new)
        for number, words in zip(new.tolist(), zip(hi.tolist(), lo.tolist(), strict=True), strict=True):
            one = from_words(*words)
            since = self._world.settled_us(one)
            if start >= since:
                found = self._found[number] = resolve(one, self._world)
                self._since[number], self._variants[number] = since, -1
                self._there[number] = self.places.number(found.peer.place) if isinstance(found.peer, Pod) else -1

    def _judge_one_by_one(self, peers: Peers, windows: Windows) -> Numbers:
        known: dict[tuple[int, ...], int] = {}
        judged = np.zeros(len(peers.kinds), np.int64)
        columns = [column.tolist() for column in (peers.hi, peers.lo, peers.here, peers.windows)]
        for at, asked in enumerate(zip(*columns, strict=True)):
            if asked not in known:
                hi, lo, here, window = asked
                self._world.at(int(windows.starts[window]), int(windows.ends[window]))
                found = resolve(from_words(hi, lo), self._world)
                known[asked] = self._judged(seen_from(self.places.known[here], found))
            judged[at] = known[asked]
        return judged

    def _judged(self, verdict: Verdict) -> int:
        """The number under which a verdict is booked."""
        number = self._numbers.get(verdict)
        if number is None:
            number = self._numbers[verdict] = len(self._numbers)
            if number == self._table.shape[1]:
                self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
            self._table[:, number] = self._booked(verdict)
        return number

    def _booked(self, verdict: Verdict) -> tuple[int, ...]:
        peer = verdict.peer
        name, namespace, what, other, ingress, service = "", "", "", 0, False, -1
        if isinstance(peer, Pod):
            name, namespace, what = peer.name, peer.namespace, "pod"
            other, ingress = self._names.number(peer.uid), peer.ingress
        elif isinstance(peer, Named):
            name, namespace, what = peer.name, peer.namespace, _WHAT[verdict.rule]
        if isinstance(peer, Named) and verdict.rule is Rule.SERVICE:
            service = self._service_numbers.setdefault(peer, len(self.services))
            if service == len(self.services):
                self.services.append(peer)
        label = Label(verdict.scope, verdict.rule.value, name, namespace, what)
        special = is_special(verdict.rule)
        return SCOPES.index(verdict.scope), self.labels.number(label), other, ingress, service, special

    def _columns(self, judged: Numbers) -> Judged:
        scopes, labels, others, ingress, services, special = self._table[:, judged]
        return Judged(scopes, labels, others, ingress.astype(np.bool_), services, special.astype(np.bool_))

    def forget(self) -> None:
        """Forget all verdicts."""
        self._index = Index(2)
        self._found: dict[int, Verdict] = {}
        """What `resolve` said of each address, by its number in the index."""
        self._numbers: dict[Verdict, int] = {}
        self._table = np.zeros((len(Judged._fields), 64), np.int64)
        self.services = []
        self._service_numbers: dict[Named, int] = {}
        self._since = np.full(0, _NEVER)
        """The first window for which what is known of an address holds."""
        self._there = np.zeros(0, np.int64)
        """The place of a pod with the address, -1 where there is none."""
        self._variants = np.zeros((0, len(DISTANCES)), np.int64)
        """The number of the verdict from each distance, -1 where it was not needed yet."""
        self._grow()

    def _grow(self) -> None:
        more = self._index.capacity - len(self._since)
        if more:
            self._since = np.concatenate([self._since, np.full(more, _NEVER)])
            self._there = np.concatenate([self._there, np.full(more, -1)])
            self._variants = np.concatenate([self._variants, np.full((more, len(DISTANCES)), -1)])


def _at(found: Verdict, distance: int) -> Verdict:
    """What `resolve` found, from so far away."""
    return Verdict(*DISTANCES[distance], found.peer) if isinstance(found.peer, Pod) else found
