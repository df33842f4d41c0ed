"""Who had which address as far as only pods' own frames or routes tell: pods named after their interfaces."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.aggregator.directory.interface_names import uid_behind
from services.aggregator.directory.tenures import Tenures
from services.aggregator.point import Point
from services.flows.address import Address
from services.flows.scope import Ambiguous, Pod


@dataclass(slots=True)
class StandIns:
    """Behind the directory: it answers where that one knows nobody."""

    _tenures: Tenures = field(default_factory=Tenures)
    _pods: dict[str, Pod] = field(default_factory=dict)
    """By uid, as long as they have or had an address."""

    def pod(self, one: Address, start_us: int, end_us: int) -> Pod | None:
        """The pod with an address in a window; raises Ambiguous where several had it."""
        uids = self._tenures.holders(one, start_us, end_us)
        if len(uids) > 1:
            raise Ambiguous
        return self._pods.get(uids.pop()) if uids else None

    def settled_us(self, one: Address) -> int:
        """From when on a window gets the same answer as every later one, until something changes."""
        return self._tenures.settled_us(one)

    def claim(self, point: Point, pod: Pod) -> bool:
        """A point's pod stands for whoever is behind it; whether it has any of the point's addresses now.

        One that another interface has as well stays with that one.
        """
        has = False
        for one in point.addresses:
            if point.detached_us is not None or not self._tenures.now(one):
                self._pods[pod.uid] = pod
                self._tenures.begin(one, pod.uid, point.from_us)
            if point.detached_us is not None:
                self._tenures.end(one, pod.uid, point.detached_us)
            has |= any(tenure.uid == pod.uid for tenure in self._tenures.now(one))
        return has

    def end(self, point: Point, at_us: int) -> set[Address]:
        """A point's interface ended; the addresses that nobody has any more."""
        uid = uid_behind(point.node, point.interface)
        free = {one for one in point.addresses if any(tenure.uid == uid for tenure in self._tenures.now(one))}
        for one in free:
            self._tenures.end(one, uid, at_us)
        return free

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self._tenures.shift(step_us)

    def drop(self, point: Point) -> set[Address]:
        """Forget what a point told; the addresses of which it had told anything."""
        uid = uid_behind(point.node, point.interface)
        self._pods.pop(uid, None)
        return {one for one in point.addresses if self._tenures.drop(one, uid)}
