"""The last 15 minutes of every row, in buckets of 5 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.aggregator.sums import Numbers, Table, sums_by
from services.flows import history
from services.flows.history import Passed
from services.flows.keys import HISTORY_BUCKET_S, HISTORY_BUCKETS
from services.flows.scope import SCOPES
from services.flows.traffic import ROW_COUNTERS

_COUNTERS: Final = [ROW_COUNTERS.index(name) for name in Passed._fields]
_OPEN: Final = 2
"""Buckets that windows still end in; agents that are later than that are few."""
_BUCKET_US: Final = HISTORY_BUCKET_S * 1_000_000


class Bucket:
    """What passed in 5 seconds, by row and scope: many rows' columns, as narrow as they can be once it is complete."""

    def __init__(self) -> None:
        self._keys: npt.NDArray[Any] = np.zeros(0, np.int64)
        """Row and scope in one number, in order."""
        self._columns: list[npt.NDArray[Any]] = [np.zeros(0, np.uint64)] * len(Passed._fields)
        self._more: list[tuple[Numbers, Table]] = []

    def add(self, keys: Numbers, counts: Table) -> None:
        """Add what passed; a key may stand there several times."""
        self._more.append((keys, counts))

    def narrow(self) -> None:
        """Take less memory."""
        self._complete()
        self._keys, *self._columns = (
            column.astype(np.min_scalar_type(int(column.max(initial=0)))) for column in (self._keys, *self._columns)
        )

    def take_out(self, row: int) -> tuple[Numbers, Table] | None:
        """Remove a row; its keys and what passed, None where there is nothing."""
        self._complete()
        first, last = np.searchsorted(self._keys, [row * len(SCOPES), (row + 1) * len(SCOPES)]).tolist()
        if first == last:
            return None
        found = self._keys[first:last].astype(np.int64), self._table(slice(first, last))
        self._keys, *self._columns = (np.delete(column, slice(first, last)) for column in (self._keys, *self._columns))
        return found

    def columns(self) -> tuple[Numbers, Numbers, Table]:
        """Rows, scopes, and a column per field of `Passed`."""
        self._complete()
        rows, scopes = np.divmod(self._keys.astype(np.int64), len(SCOPES))
        return rows, scopes, self._table(slice(None))

    def _complete(self) -> None:
        if self._more:
            keys = np.concatenate([self._keys.astype(np.int64), *(keys for keys, _ in self._more)])
            tables = [self._table(slice(None)).T, *(counts.T for _, counts in self._more)]
            self._keys, sums = sums_by(keys, np.concatenate(tables, axis=1).T)
            self._columns = list(sums.T)
            self._more = []

    def _table(self, some: slice) -> Table:
        return np.stack([column[some].astype(np.uint64) for column in self._columns]).T


@dataclass(slots=True)
class History:
    """Buckets by number (Redis time divided by the bucket's length)."""

    changed: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    _buckets: dict[int, Bucket] = field(default_factory=dict)
    _wide: set[int] = field(default_factory=set)

    def __iter__(self) -> Iterator[int]:
        return iter(self._buckets)

    def add(self, rows: Numbers, scopes: Numbers, ends: Numbers, counts: Table) -> None:
        """Add what rows saw in windows (`ROW_COUNTERS`) to the buckets in which those ended."""
        keys, numbers = rows * len(SCOPES) + scopes, ends // _BUCKET_US
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            self._bucket(number).add(keys[mine], counts[mine][:, _COUNTERS])
        self._drop_old()

    def restore(self, number: int, stored: bytes) -> None:
        """Take a bucket as it was stored; raises TrafficError."""
        rows, scopes, columns = history.decode_columns(stored)
        bucket = self._buckets[number] = Bucket()
        bucket.add(rows * len(SCOPES) + scopes, np.stack(columns).T)
        bucket.narrow()

    def encoded(self, number: int) -> bytes:
        """A bucket as it is stored."""
        rows, scopes, counts = self._buckets[number].columns()
        return history.encode_columns(rows, scopes, list(counts.T))

    def merge(self, row: int, into: int) -> None:
        """Add a row to another one."""
        for number in list(self._buckets):
            if found := self._buckets[number].take_out(row):
                keys, counts = found
                self._bucket(number).add(keys + (into - row) * len(SCOPES), counts)

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.changed.clear()
        self.dropped.clear()
        for number in sorted(self._wide)[:-_OPEN]:
            self._wide.discard(number)
            self._buckets[number].narrow()

    def shift(self, step_us: int) -> None:
        """Redis's clock was set; to within half a bucket."""
        step = round(step_us / _BUCKET_US)
        before, self._buckets = self._buckets, {number + step: bucket for number, bucket in self._buckets.items()}
        self._wide = {number + step for number in self._wide}
        self.dropped |= before.keys() - self._buckets.keys()
        self.changed = set(self._buckets)

    def drop_later(self, now_us: int) -> None:
        """Drop what is of a time that is not yet, by a clock that was set back: what passes now would be too old beside it."""
        self._drop([number for number in self._buckets if number > now_us // _BUCKET_US])

    def _bucket(self, number: int) -> Bucket:
        """A bucket that is about to change."""
        self.changed.add(number)
        self._wide.add(number)
        return self._buckets.setdefault(number, Bucket())

    def _drop_old(self) -> None:
        oldest = max(self._buckets, default=0) - HISTORY_BUCKETS
        self._drop([number for number in self._buckets if number <= oldest])

    def _drop(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._buckets[number]
            self._wide.discard(number)
            self.changed.discard(number)
            self.dropped.add(number)
