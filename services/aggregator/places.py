"""Numbers for places, and the distances between many of them at once."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.aggregator.sums import Numbers
from services.flows.scope import Place, Rule, Scope

DISTANCES: Final = (
    (Scope.CLUSTER, Rule.POD),
    (Scope.SAME_NODE, Rule.POD_SAME_NODE),
    (Scope.SAME_ZONE, Rule.POD_SAME_ZONE),
    (Scope.CROSS_ZONE, Rule.POD_CROSS_ZONE),
    (Scope.CROSS_REGION, Rule.POD_CROSS_REGION),
)
"""All answers of `flows.scope.distance`."""


class Places:
    """A number never changes its meaning."""

    def __init__(self) -> None:
        self.known: list[Place] = []
        self._numbers: dict[Place, int] = {}
        self._parts: dict[str, int] = {"": 0}
        self._table = np.zeros((3, 64), np.int64)
        """Nodes, zones and regions as numbers, 0 where not known."""

    def number(self, place: Place) -> int:
        """The number of a place."""
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = len(self.known)
            self.known.append(place)
            if number == self._table.shape[1]:
                self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
            for at, part in enumerate((place.node, place.zone, place.region)):
                self._table[at, number] = self._parts.setdefault(part, len(self._parts))
        return number

    def distances(self, here: Numbers, there: Numbers) -> Numbers:
        """`flows.scope.distance` of each pair of places, as a place in `DISTANCES`."""
        (node, zone, region), (node_there, zone_there, region_there) = self._table[:, here], self._table[:, there]
        known = (zone != 0) & (zone_there != 0)
        found = np.where(known, np.where(zone == zone_there, 2, 3), 0)
        found[(region != 0) & (region_there != 0) & (region != region_there)] = 4
        found[(node != 0) & (node == node_there)] = 1
        return found
