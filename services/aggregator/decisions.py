"""Where Services count, where nodes are divided over shards: the ledger decides, and all shards follow.

Both ends of a connection must follow the same decision. So one comes into force some seconds after it was made: until
then every shard has read it, since it reads decisions before it books what agents told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgpack
import numpy as np

from services.aggregator.backing import Backing
from services.aggregator.directory import Directory
from services.aggregator.names import Names
from services.aggregator.sightings import Sightings
from services.aggregator.sums import Mask, Numbers
from services.flows.scope import Named

_ASK_AGAIN_US: Final = 1_000_000
LEAD_US: Final = 10_000_000
"""How long after it was made a decision comes into force: commits take no part of that."""
_KEPT_US: Final = 900_000_000
"""For how long windows may still come that follow an earlier decision."""

Changes = Mapping[Named, Sequence[int]]
"""The moments (Redis microseconds) at which a Service's traffic began to count at its other end: first it is at its backends."""


def encode(session: str, changes: Changes) -> bytes:
    """The ledger's session, and all its decisions."""
    packed: bytes = msgpack.packb([session, [[one.namespace, one.name, *at] for one, at in changes.items()]])
    return packed


def decode(data: bytes) -> tuple[str, Changes]:
    """What `encode` took; raises TypeError and ValueError where it is something else."""
    session, listed = msgpack.unpackb(data)
    changes = {Named(name, namespace): tuple(map(int, at)) for namespace, name, *at in listed}
    return str(session), changes


@dataclass(slots=True)
class Decisions:
    """The ledger's."""

    directory: Directory
    sightings: Sightings
    changes: dict[Named, list[int]] = field(default_factory=dict)
    changed: bool = False
    """Whether they must be stored again."""
    backing: Backing = field(init=False)
    _asked_us: int = 0

    def __post_init__(self) -> None:
        self.backing = Backing(self.directory, self.sightings)

    def refresh(self, now_us: int) -> None:
        """Decide again from time to time; `now_us` is Redis time."""
        if abs(now_us - self._asked_us) < _ASK_AGAIN_US:
            return
        self._asked_us = now_us
        self.backing.refresh(now_us)
        self.directory.at(now_us, now_us)
        endpoints = self.directory.endpoints
        # One without backends counts at its clients, whatever was decided.
        services = [one for one in endpoints.services() if any(True for _ in endpoints.addresses(one))]
        for service in services:
            at = self.changes.get(service, [])
            # One that is not in force yet stays: who has read it goes by it.
            if self.backing.at_backends_now(service) == bool(len(at) % 2) and (not at or at[-1] <= now_us):
                self.changes[service] = [*at, now_us + LEAD_US]
                self.changed = True
        backed = set(services)
        for service, at in list(self.changes.items()):
            if service not in backed and at[-1] < now_us - _KEPT_US:
                del self.changes[service]
            elif len(at) > 2 and at[1] < now_us - _KEPT_US:
                self.changes[service] = at[2:]

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self._asked_us += step_us
        self.backing.shift(step_us)
        self.changes = {service: [one + step_us for one in at] for service, at in self.changes.items()}
        self.changed = True


class Decided(Backing):
    """A shard's: as it read them last."""

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory, Sightings(Names()))
        self.changes: Changes = {}

    def refresh(self, now_us: int) -> None:
        """Nothing is decided here."""

    def shift(self, step_us: int) -> None:
        """Redis's clock was set; soon what is read follows."""
        self.changes = {service: [one + step_us for one in at] for service, at in self.changes.items()}

    def at_backends(self, services: Sequence[Named], which: Numbers, starts: Numbers, ends: Numbers) -> Mask:  # noqa: ARG002  # as everywhere
        """Whether the traffic of Services counts at their backends, not at their clients, by entry."""
        # One without backends has nobody there who would count it.
        backed = [any(True for _ in self.directory.endpoints.addresses(one)) for one in services]
        found = np.array(backed, np.bool_)[which]
        for place, service in enumerate(services):
            if at := self.changes.get(service):
                some = which == place
                found[some] &= np.searchsorted(np.array(at, np.int64), starts[some], side="right") % 2 == 0
        return found
