"""At which end the traffic of Services counts for the cluster.

A client's interface shows a Service's address, its backend's interface the client's own: the same
bytes under two names, which no flow of the one joins to a flow of the other. So one end is the truth
for all traffic of a Service in both directions: its backends where each of them is watched, for they
know who is how far away; else its clients. What goes to a backend directly, at a port of the Service,
follows the same rule, because at the backend it looks the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from services.aggregator.directory import Directory
from services.aggregator.sums import Mask, Numbers
from services.flows.address import Address
from services.flows.scope import Ambiguous, Named

_ASK_AGAIN_US: Final = 5_000_000
_NEW_US: Final = 10_000_000
"""For how long the first report of a backend's agent may be on its way."""
_MOST: Final = 50_000


class Watches(Protocol):
    """What agents told of pods' interfaces."""

    def watched(self, uid: str) -> bool:
        """Whether an agent sees both directions of a pod's traffic."""


@dataclass(slots=True)
class _Decision:
    """Where the traffic of Services that share backends counts; what was told before a change follows the old one."""

    at_backends: bool
    asked_us: int
    followed_us: int = 0
    """End of the last window that followed it."""
    changed_us: int = 0
    """Windows that begin earlier follow the opposite."""


@dataclass
class Backing:
    """The decisions; who has the backends' addresses is asked for the window that the directory was given last."""

    directory: Directory
    points: Watches
    _now_us: int = 0
    _known: dict[Named, _Decision] = field(default_factory=dict)
    _new: dict[str, int] = field(default_factory=dict)
    """Since when a pod is known to be a backend without an agent that watches it."""

    def refresh(self, now_us: int) -> None:
        """Take the time, which is Redis's."""
        self._now_us = now_us
        if len(self._known) > _MOST:
            self._known.clear()
        if len(self._new) > _MOST:
            self._new.clear()

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self._now_us += step_us
        # Services that share backends share a decision.
        for decision in {id(one): one for one in self._known.values()}.values():
            decision.asked_us += step_us
            decision.followed_us += step_us
            decision.changed_us += step_us
        self._new = {uid: since_us + step_us for uid, since_us in self._new.items()}

    def at_backends(self, services: Sequence[Named], which: Numbers, starts: Numbers, ends: Numbers) -> Mask:
        """Whether the traffic of Services counts at their backends, not at their clients.

        There is one answer per entry: `which` is the place of its Service, the rest its window.
        """
        decisions = [self._decision(one) for one in services]
        found = np.array([one.at_backends for one in decisions], np.bool_)[which]
        early = starts < np.array([one.changed_us for one in decisions], np.int64)[which]
        followed = np.zeros(len(decisions), np.int64)
        np.maximum.at(followed, which[~early], ends[~early])
        for one, end in zip(decisions, followed.tolist(), strict=True):
            one.followed_us = max(one.followed_us, end)
        return np.asarray(found ^ early)

    def at_backends_now(self, service: Named) -> bool:
        """Whether the traffic of a Service counts at its backends from now on."""
        return self._decision(service).at_backends

    def service_at(self, address: Address, protocol: int, port: int) -> Named | None:
        """The Service that stands at a port of an address; several follow one decision."""
        found = self.directory.endpoints.services_at(address, (protocol, port))
        return next(iter(found), None)

    def may_be_at_clients(self, addresses: Iterable[Address], start_us: int, end_us: int) -> bool:
        """Whether some of what one with these addresses exchanged counts at clients, who do not know it by name."""
        services = list({service for one in addresses for service in self.directory.endpoints.services_of(one)})
        times = (np.full(len(services), one) for one in (start_us, end_us))
        return not self.at_backends(services, np.arange(len(services)), *times).all()

    def _decision(self, service: Named) -> _Decision:
        decision = self._known.get(service)
        if decision is None or self._now_us - decision.asked_us >= _ASK_AGAIN_US:
            decision = self._decide(service, decision)
        return decision

    def _decide(self, service: Named, before: _Decision | None) -> _Decision:
        services, addresses = self.directory.endpoints.joined(service)
        # All are asked: each has its own time to be new.
        at_backends = {self._watched(one) for one in addresses} == {True}
        decision = _Decision(at_backends, self._now_us)
        if before is not None:
            same = before.at_backends is at_backends
            decision.followed_us = before.followed_us
            decision.changed_us = before.changed_us if same else before.followed_us
        self._known.update(dict.fromkeys(services, decision))
        return decision

    def _watched(self, address: Address) -> bool:
        try:
            pod = self.directory.pod(address)
        except Ambiguous:
            return True
        if pod is None:
            return False
        if self.points.watched(pod.uid):
            self._new.pop(pod.uid, None)
            return True
        return self._now_us - self._new.setdefault(pod.uid, self._now_us) < _NEW_US
