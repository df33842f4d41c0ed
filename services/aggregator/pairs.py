"""What pods exchanged with other pods, by column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.aggregator.names import Names
from services.aggregator.sums import Mask, Numbers, Table, chosen, sums_by_scope
from services.flows.columns import narrow, wide
from services.flows.scope import SCOPES, Scope
from services.flows.traffic import ROW_COUNTERS, ByScope

_OTHER_WAY: Final = {
    way: np.array([not name.startswith(f"{way}_") for name in ROW_COUNTERS], np.bool_) for way in ("tx", "rx")
}


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """One entry per window, pair of pods and more; times are Redis microseconds."""

    names: Names
    starts: Numbers
    ends: Numbers
    mine: Numbers
    """Per entry the number of the pod whose interface told it."""
    others: Numbers
    """The same for the pod at the other end."""
    scopes: Numbers
    """Per entry the place in `SCOPES`."""
    counts: Table

    def __len__(self) -> int:
        return len(self.mine)

    def one_way(self, way: str) -> Pairs:
        """The entries in which something was sent (`tx`) or received (`rx`), with the counters of that alone."""
        counts = self.counts.copy(order="F")
        counts[:, _OTHER_WAY[way]] = 0
        return replace(self, counts=counts).where(np.asarray(counts.any(axis=1)))

    def where(self, some: Mask) -> Pairs:
        """Some of the entries."""
        if some.all():
            return self
        starts, ends, mine, others, scopes = (column[some] for column in self._columns())
        return Pairs(self.names, starts, ends, mine, others, scopes, chosen(self.counts, some))

    def plus(self, other: Pairs) -> Pairs:
        """These entries, and then those of another one."""
        if not len(self) or not len(other):
            return self if len(self) else other
        columns = zip(self._columns(), other._columns(), strict=True)
        starts, ends, mine, others, scopes = (np.concatenate(both) for both in columns)
        return Pairs(
            self.names, starts, ends, mine, others, scopes, np.concatenate([self.counts.T, other.counts.T], axis=1).T
        )

    def shifted(self, step_us: int) -> Pairs:
        """The same by a clock that was set."""
        return replace(self, starts=self.starts + step_us, ends=self.ends + step_us)

    def by_scope(self) -> ByScope:
        """Sums of all entries."""
        return sums_by_scope(self.scopes, self.counts)

    def entries(self) -> Iterator[tuple[str, str, Scope, list[int]]]:
        """Uid, uid of the other end, scope and counters of each."""
        columns = [column.tolist() for column in (self.mine, self.others, self.scopes, self.counts)]
        for mine, other, scope, counts in zip(*columns, strict=True):
            yield self.names.known[mine], self.names.known[other], SCOPES[scope], counts

    def renamed(self, old: str, new: str) -> Pairs:
        """The same after a pod turned out to have another uid."""
        before, now = self.names.number(old), self.names.number(new)
        mine, others = (np.where(column == before, now, column) for column in (self.mine, self.others))
        return replace(self, mine=mine, others=others)

    def stored(self) -> list[Any]:
        """Plain values, for the store."""
        used, inverse = np.unique(np.concatenate([self.mine, self.others]), return_inverse=True)
        inverse = inverse.reshape(-1)
        uids = [self.names.known[at] for at in used.tolist()]
        places = inverse[: len(self)], inverse[len(self) :]
        columns = (self.starts, self.ends, *places, self.scopes, *self.counts.T)
        # Scopes by their names: their places are another matter in another version.
        return [len(self), uids, [scope.value for scope in SCOPES], [narrow(one.astype(np.uint64)) for one in columns]]

    @classmethod
    def restored(cls, names: Names, stored: list[Any]) -> Pairs:
        """What `stored` gave; raises TypeError and ValueError where it is something else."""
        count, uids, scopes, packed = stored
        starts, ends, mine, others, places, *counts = (wide(one, count) for one in packed)
        if len(counts) != len(ROW_COUNTERS):
            raise ValueError("not one column per counter")
        numbers = np.array([0, *map(names.number, uids)], np.int64)[1:]
        known = np.array([SCOPES.index(Scope(value)) for value in scopes], np.int64)
        return cls(
            names,
            starts.astype(np.int64),
            ends.astype(np.int64),
            numbers[mine],
            numbers[others],
            known[places],
            np.stack(counts).astype(np.uint64).T,
        )

    @classmethod
    def none(cls, names: Names) -> Pairs:
        """No entries."""
        empty = np.zeros(0, np.int64)
        return cls(names, empty, empty, empty, empty, empty, np.zeros((0, len(ROW_COUNTERS)), np.uint64, order="F"))

    def _columns(self) -> tuple[npt.NDArray[np.int64], ...]:
        return self.starts, self.ends, self.mine, self.others, self.scopes
