"""Verdicts on peers, each worked out once until something changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.aggregator.attachments import Points
from services.aggregator.directory import Directory
from services.flows.address import Address, from_words
from services.flows.delta import Kind
from services.flows.scope import SCOPES, Named, Pod, Rule, Scope, Verdict, World, classify

_MOST: Final = 200_000
"""Verdicts kept; a scan of the whole internet must not fill the memory."""
_WITHOUT_PEER: Final = {
    Kind.NOT_IP: Verdict(Scope.UNKNOWN, Rule.NOT_IP),
    Kind.MALFORMED: Verdict(Scope.UNKNOWN, Rule.MALFORMED),
    Kind.FOLDED: Verdict(Scope.UNKNOWN, Rule.FOLDED),
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


class Judged(NamedTuple):
    """A verdict as it is booked: numbers of its scope and label, and the pod at the other end."""

    scope: int
    label: int
    other: str
    """The uid of the pod at the other end; empty where there is none."""


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
        self._points = points
        self._pod = directory.pod
        self.service = directory.service
        self.is_api_server = directory.is_api_server
        self.node = directory.node
        self.node_gateway = directory.node_gateway
        self.user_cidr = directory.user_cidr
        self.in_cluster_range = directory.in_cluster_range
        self.in_private_cidr = directory.in_private_cidr

    def pod(self, address: Address) -> Pod | None:
        return self._pod(address) or self._points.pod_at(address)


@dataclass(slots=True)
class Verdicts:
    """The ladder's answers for the rows of one aggregator."""

    directory: Directory
    points: Points
    labels: Labels = field(default_factory=Labels)
    _world: World = field(init=False)
    _known: dict[tuple[str, int, int], Judged] = field(default_factory=dict)
    _generation: tuple[int, int] = (-1, -1)

    def __post_init__(self) -> None:
        self._world = _Seen(self.directory, self.points)

    def refresh(self) -> None:
        """Forget every verdict if the directory or the observation points changed."""
        generation = self.directory.generation, self.points.generation
        if generation != self._generation or len(self._known) > _MOST:
            self._known.clear()
            self._generation = generation

    def of(self, me: Pod, own: frozenset[Address], kind: int, hi: int, lo: int) -> Judged:
        """The verdict on the peer with the words `hi` and `lo` of the pod `me`, whose addresses are `own`."""
        if kind != Kind.IP:
            return self._judged(_WITHOUT_PEER[Kind(kind)], me)
        key = me.uid, hi, lo
        judged = self._known.get(key)
        if judged is None:
            judged = self._known[key] = self._judged(classify(from_words(hi, lo), me, own, self._world), me)
        return judged

    def _judged(self, verdict: Verdict, me: Pod) -> Judged:
        peer = verdict.peer
        name, namespace, what, other = "", "", "", ""
        if isinstance(peer, Pod):
            name, namespace, what, other = peer.name, peer.namespace, "pod", peer.uid
        elif isinstance(peer, Named):
            name, namespace, what = peer.name, peer.namespace, _WHAT[verdict.rule]
        if verdict.scope is Scope.SAME_POD:
            other = me.uid
        label = Label(verdict.scope, verdict.rule.value, name, namespace, what)
        return Judged(SCOPES.index(verdict.scope), self.labels.number(label), other)
