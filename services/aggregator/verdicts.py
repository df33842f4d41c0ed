"""Verdicts on peers, each worked out once until something changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.aggregator.attachments import Points
from services.aggregator.directory import Directory
from services.flows.address import Address, from_words
from services.flows.delta import Kind
from services.flows.scope import Named, Pod, Rule, Scope, Verdict, World, classify

_MOST: Final = 200_000
"""Verdicts kept; a scan of the whole internet must not fill the memory."""
_WITHOUT_PEER: Final = {
    Kind.NOT_IP: Verdict(Scope.UNKNOWN, Rule.NOT_IP),
    Kind.MALFORMED: Verdict(Scope.UNKNOWN, Rule.MALFORMED),
    Kind.FOLDED: Verdict(Scope.UNKNOWN, Rule.FOLDED),
}


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
    _world: World = field(init=False)
    _known: dict[tuple[str, int, int], Verdict] = field(default_factory=dict)
    _generation: tuple[int, int] = (-1, -1)

    def __post_init__(self) -> None:
        self._world = _Seen(self.directory, self.points)

    def refresh(self) -> None:
        """Forget every verdict if the directory or the observation points changed."""
        generation = self.directory.generation, self.points.generation
        if generation != self._generation or len(self._known) > _MOST:
            self._known.clear()
            self._generation = generation

    def of(self, me: Pod, own: frozenset[Address], kind: Kind, hi: int, lo: int) -> Verdict:
        """The verdict on the peer with the words `hi` and `lo` of the pod `me`."""
        if kind is not Kind.IP:
            return _WITHOUT_PEER[kind]
        key = me.uid, hi, lo
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._known[key] = classify(from_words(hi, lo), me, own, self._world)
        return verdict


def described(verdict: Verdict) -> tuple[str, str, str]:
    """Name, namespace and what it is (`pod`, `service`, `node`, `cidr` or nothing) of a peer."""
    peer = verdict.peer
    if isinstance(peer, Pod):
        return peer.name, peer.namespace, "pod"
    if isinstance(peer, Named):
        return peer.name, peer.namespace, _WHAT[verdict.rule]
    return "", "", ""


_WHAT: Final = {
    Rule.SERVICE: "service",
    Rule.NODE: "node",
    Rule.NODE_GATEWAY: "node",
    Rule.USER_CIDR: "cidr",
}
