"""What the ledger knows of all shards' observation points: whose they are, and what of their time was told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from services.aggregator.names import Names
from services.aggregator.point import Key, Point
from services.aggregator.sights import NOBODY, Sights, columns_of
from services.aggregator.sums import Numbers
from services.flows.delta import Coverage


@dataclass(slots=True)
class Sighting:
    """An observation point as far as others' totals depend on it; times are Redis microseconds, as a `Point` has them."""

    uid: str
    from_us: int
    reported_us: int
    gap_from_us: int
    gap_to_us: int
    covered: Coverage
    open: bool

    @classmethod
    def of(cls, point: Point, uid: str) -> Sighting:
        """What a point is to others."""
        times = point.from_us, point.reported_us, point.gap_from_us, point.gap_to_us
        return cls(uid, *times, point.covered, point.open)

    def tells(self, point: Point, uid: str) -> bool:
        """Whether nothing of the point is another now, but up to when it was reported."""
        return (
            (self.uid, self.from_us, self.gap_from_us, self.gap_to_us)
            == (uid, point.from_us, point.gap_from_us, point.gap_to_us)
            and self.covered is point.covered
            and self.open == point.open
        )

    def shifted(self, step_us: int) -> Sighting:
        """The same by a clock that was set."""
        gap = (self.gap_from_us + step_us, self.gap_to_us + step_us) if self.gap_to_us else (0, 0)
        return Sighting(self.uid, self.from_us + step_us, self.reported_us + step_us, *gap, self.covered, self.open)

    def plain(self) -> list[Any]:
        """Plain values, for the store."""
        times = self.from_us, self.reported_us, self.gap_from_us, self.gap_to_us
        return [self.uid, *times, self.covered.value, self.open]

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Sighting:
        """What `plain` gave; raises TypeError and ValueError where it is something else."""
        uid, from_us, reported_us, gap_from_us, gap_to_us, covered, is_open = plain
        times = from_us, reported_us, gap_from_us, gap_to_us
        if not isinstance(uid, str) or any(type(one) is not int for one in times):
            raise ValueError("no sighting")
        return cls(uid, from_us, reported_us, gap_from_us, gap_to_us, Coverage(covered), bool(is_open))


@dataclass(slots=True)
class Sightings:
    """All of them by agent and attachment; uids are numbered by `names`."""

    names: Names
    known: dict[Key, Sighting] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """The boot ids of agents of which something must be stored again."""
    _of_uid: dict[str, dict[Key, Sighting]] = field(default_factory=dict)
    _of_boot: dict[str, set[int]] = field(default_factory=dict)
    _shards: dict[str, int] = field(default_factory=dict)
    """By boot id, whose agent's they are."""
    _several: set[str] = field(default_factory=set)
    """The uids with several points."""
    _first: Numbers = field(default_factory=lambda: np.zeros((1, len(NOBODY)), np.int64))
    """By the number of a uid the columns of its first point."""

    def sights(self, uids: Sequence[str]) -> Sights:
        """What agents told of these pods."""
        numbers = [self.names.number(uid) for uid in uids]
        self._reach(max(numbers, default=0))
        several = self._several
        more = {at: list(self._of(uid))[1:] for at, uid in enumerate(uids) if uid in several} if several else {}
        return Sights(self._first[numbers], more)

    def watched(self, uid: str) -> bool:
        """Whether an agent sees both directions of a pod's traffic."""
        return any(one.open and one.covered is Coverage.FULL for one in self._of(uid))

    def put(self, key: Key, one: Sighting, shard: int) -> None:
        """Take what is known by now of a point, whose node is in a shard."""
        self._take_out(key)
        self._shards[key[0]] = shard
        self.known[key] = one
        self._of_uid.setdefault(one.uid, {})[key] = one
        self._of_boot.setdefault(key[0], set()).add(key[1])
        self.changed.add(key[0])
        self._show(one.uid)

    def reported(self, boot: str, numbers: Iterable[int], until_us: int) -> None:
        """An agent told of these attachments up to a moment."""
        for number in numbers:
            one = self.known.get((boot, number))
            if one is not None and one.reported_us < until_us:
                one.reported_us = until_us
                if one is next(iter(self._of(one.uid))):
                    self._first[self.names.number(one.uid), 1] = until_us
        self.changed.add(boot)

    def drop(self, key: Key) -> None:
        """Forget a point."""
        self._take_out(key)
        self.changed.add(key[0])

    def rename(self, old: str, new: str) -> None:
        """A pod turned out to have another uid."""
        for key, one in list(self._of_uid.get(old, {}).items()):
            self.put(key, replace(one, uid=new), self._shards[key[0]])

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        for key, one in self.known.items():
            self.known[key] = self._of_uid[one.uid][key] = one.shifted(step_us)
        for uid in self._of_uid:
            self._show(uid)
        self.changed |= self._of_boot.keys()

    def of_boot(self, boot: str) -> list[Any]:
        """An agent's points as plain values, for the store."""
        points = [[number, *self.known[boot, number].plain()] for number in sorted(self._of_boot.get(boot, ()))]
        return [self._shards[boot], points]

    def restore(self, boot: str, stored: Sequence[Any]) -> None:
        """Take what `of_boot` gave; raises TypeError and ValueError where it is something else."""
        shard, points = stored
        for number, *one in points:
            self.put((boot, number), Sighting.from_plain(one), shard)

    def of_shard(self, shard: int) -> list[Key]:
        """The points of a shard's nodes."""
        return [key for key in self.known if self._shards[key[0]] == shard]

    def boots(self) -> Collection[str]:
        """The boot ids of all agents."""
        return self._of_boot.keys()

    def _of(self, uid: str) -> Collection[Sighting]:
        return self._of_uid.get(uid, {}).values()

    def _show(self, uid: str) -> None:
        """The points of a uid are others than before."""
        number, points = self.names.number(uid), self._of(uid)
        self._reach(number)
        self._first[number] = columns_of(next(iter(points), None))
        if len(points) > 1:
            self._several.add(uid)
        else:
            self._several.discard(uid)

    def _reach(self, number: int) -> None:
        if number >= len(self._first):
            more = np.zeros((max(number + 1, 2 * len(self._first)), len(NOBODY)), np.int64)
            more[: len(self._first)] = self._first
            self._first = more

    def _take_out(self, key: Key) -> None:
        before = self.known.pop(key, None)
        if before is None:
            return
        of_uid, of_boot = self._of_uid.get(before.uid, {}), self._of_boot[key[0]]
        of_uid.pop(key, None)
        of_boot.discard(key[1])
        if not of_uid:
            self._of_uid.pop(before.uid, None)
        self._show(before.uid)
        if not of_boot:
            del self._of_boot[key[0]], self._shards[key[0]]
