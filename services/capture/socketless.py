"""Finds what pods' own interfaces counted and no socket had: ARP, answers of the kernel's own, what is forwarded."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.capture.control_groups import Owner
from services.capture.links import Link
from services.flows.address import Address
from services.flows.coverage import beyond, plus
from services.flows.delta import NOTHING, Attachment, InterfaceCounters

_ASK_AGAIN_S: Final = 5.0
"""How long a pod's addresses are taken to be what they were while nobody is known to have them."""


class PodSides(Protocol):
    """What can be read of pods' own ends of the node's links."""

    def links(self) -> tuple[Link, ...]:
        """The node's ends."""

    def own(self) -> dict[int, InterfaceCounters]:
        """What the pods' ends counted, by the index of the node's."""

    def own_addresses(self, link: Link) -> frozenset[Address]:
        """The pod's addresses."""


@dataclass(slots=True)
class _Side:
    """A pod's end of a link; `added` is what of its counters is among its pod's, or was there before we watched."""

    added: InterfaceCounters
    pod: str = ""
    addresses: frozenset[Address] = frozenset()
    asked_s: float = 0.0


@dataclass(slots=True)
class _Pod:
    counted: InterfaceCounters = NOTHING
    had: InterfaceCounters = NOTHING
    """What its sockets had, with what was told that none had."""


@dataclass(slots=True)
class Socketless:
    """Holds pods' interfaces against their sockets. `sides` is None where there is nothing to read.

    Interfaces are read before the source is drained the next time, so what is on its way between both is never told.
    """

    sides: PodSides | None = None
    _known: dict[int, _Side] = field(default_factory=dict)
    _read: dict[int, InterfaceCounters] = field(default_factory=dict)
    _pods: dict[str, _Pod] = field(default_factory=dict)

    def begin(self) -> None:
        """Take what interfaces counted until now for past."""
        self._look()
        for index, counters in self._read.items():
            self._known[index].added = counters

    def take(
        self,
        attachments: Mapping[Owner, Attachment],
        captured: Mapping[int, InterfaceCounters],
        present: Collection[Owner],
    ) -> dict[int, InterfaceCounters]:
        """What nobody's socket had until the last reading, by attachment; `captured` is what sockets had in this window.

        `present` are owners whose groups are there: others have no interface any more, and their addresses may be others'.
        """
        if self.sides is None:
            return {}
        points: dict[str, int] = {}
        for owner, entry in attachments.items():
            if name := _name(owner):
                points[name] = min(entry.id, points.get(name, entry.id))
                pod = self._pods.setdefault(name, _Pod())
                pod.had = plus(pod.had, captured.get(entry.id, NOTHING))
        self._match({owner: entry for owner, entry in attachments.items() if owner in present})
        for index, counters in self._read.items():
            side = self._known[index]
            if side.pod in self._pods:
                pod = self._pods[side.pod]
                pod.counted, side.added = plus(pod.counted, beyond(counters, side.added)), counters
        found = {}
        for name, number in points.items():
            pod = self._pods[name]
            missing = beyond(pod.counted, pod.had)
            if missing != NOTHING:
                found[number], pod.had = missing, plus(pod.had, missing)
        self._look()
        there = points.keys() | {side.pod for side in self._known.values()}
        self._pods = {name: pod for name, pod in self._pods.items() if name in there}
        return found

    def _look(self) -> None:
        """Read all interfaces; one that came since then began with nothing."""
        self._read = self.sides.own() if self.sides else {}
        self._known = {index: self._known.get(index) or _Side(NOTHING) for index in self._read}
        self._ask([side for side in self._known.values() if not side.asked_s])

    def _ask(self, some: list[_Side]) -> None:
        """Find out which addresses are behind interfaces, as long as they are there."""
        if not some or self.sides is None:
            return
        indexes = {id(side): index for index, side in self._known.items()}
        links = {link.index: link for link in self.sides.links()}
        for side in some:
            link = links.get(indexes[id(side)])
            side.asked_s = time.monotonic()
            if link is not None:
                side.addresses = self.sides.own_addresses(link) or side.addresses

    def _match(self, attachments: Mapping[Owner, Attachment]) -> None:
        """Find out whose interfaces are which by their addresses; those that several seem to have are nobody's."""
        unmatched = [side for side in self._known.values() if not side.pod]
        talking = {_name(owner) for owner, entry in attachments.items() if entry.addresses}
        if not unmatched or not talking - {side.pod for side in self._known.values()}:
            return
        due_s = time.monotonic() - _ASK_AGAIN_S
        self._ask([side for side in unmatched if not side.addresses or side.asked_s < due_s])
        owners: dict[Address, set[str]] = {}
        for owner, entry in attachments.items():
            for one in entry.addresses if _name(owner) else ():
                owners.setdefault(one, set()).add(_name(owner))
        for side in unmatched:
            names = set().union(*(owners.get(one, ()) for one in side.addresses))
            side.pod = names.pop() if len(names) == 1 else ""


def _name(owner: Owner) -> str:
    """What all containers of a pod have in common; empty for the machine's units."""
    return owner.pod_uid or owner.container_id
