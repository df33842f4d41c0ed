"""Counters by row and scope, and what they got since the last commit, by column."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.aggregator.sums import Numbers, Table, table_of
from services.flows.scope import SCOPES
from services.flows.traffic import ROW_COUNTERS, ByScope

_FIRST: Final = 1024


class Lines(NamedTuple):
    """Some lines of a ledger, ordered by row."""

    rows: Numbers
    scopes: Numbers
    counts: Table


class Ledger:
    """A line for each row and scope that had anything."""

    def __init__(self) -> None:
        self._line_of: npt.NDArray[np.int32] = np.full((_FIRST, len(SCOPES)), -1, np.int32)
        self._rows: Numbers = np.zeros(_FIRST, np.int64)
        self._scopes: Numbers = np.zeros(_FIRST, np.int64)
        self._totals: Table = np.zeros((_FIRST, len(ROW_COUNTERS)), np.uint64)
        self._added: Table = np.zeros((_FIRST, len(ROW_COUNTERS)), np.uint64)
        self._size = 0
        self._free: list[int] = []
        self._changed: list[Numbers] = []

    def add(self, rows: Numbers, scopes: Numbers, counts: Table) -> None:
        """Add counters; a row and scope may stand there several times."""
        if not len(rows):
            return
        lines = self._lines(rows, scopes)
        if len(np.unique(lines)) == len(lines):
            self._totals[lines] += counts
            self._added[lines] += counts
        else:
            np.add.at(self._totals, lines, counts)
            np.add.at(self._added, lines, counts)
        self._changed.append(lines)

    def put(self, row: int, totals: ByScope) -> None:
        """Take a row's totals as they were stored."""
        if totals:
            scopes = np.array([SCOPES.index(scope) for scope in totals], np.int64)
            self._totals[self._lines(np.full(len(scopes), row), scopes)] = table_of(list(totals.values()))

    def of(self, row: int) -> ByScope:
        """A row's totals."""
        lines = self._line_of[row] if row < len(self._line_of) else np.zeros(0, np.int32)
        return {SCOPES[at]: self._totals[line].tolist() for at, line in enumerate(lines.tolist()) if line >= 0}

    def drop(self, row: int) -> None:
        """Forget a row."""
        lines = self._line_of[row][self._line_of[row] >= 0]
        self._totals[lines], self._added[lines] = 0, 0
        self._changed = [some[~np.isin(some, lines)] for some in self._changed]
        self._line_of[row] = -1
        self._free += lines.tolist()

    def added(self) -> Lines:
        """What came since the last commit."""
        return self._ordered(self._changed_lines(), self._added)

    def changed(self) -> Lines:
        """The totals of all rows that got something since the last commit."""
        rows = np.unique(self._rows[self._changed_lines()])
        lines = self._line_of[rows]
        return self._ordered(lines[lines >= 0].astype(np.int64), self._totals)

    def committed(self) -> None:
        """Forget what came: it is in the store."""
        self._added[self._changed_lines()] = 0
        self._changed = []

    def _changed_lines(self) -> Numbers:
        return np.unique(np.concatenate([np.zeros(0, np.int64), *self._changed]))

    def _ordered(self, lines: Numbers, table: Table) -> Lines:
        lines = lines[np.argsort(self._rows[lines] * len(SCOPES) + self._scopes[lines])]
        return Lines(self._rows[lines], self._scopes[lines], table[lines])

    def _lines(self, rows: Numbers, scopes: Numbers) -> Numbers:
        last = int(rows.max())
        if last >= len(self._line_of):
            more = max(last + 1 - len(self._line_of), len(self._line_of))
            self._line_of = np.concatenate([self._line_of, np.full((more, len(SCOPES)), -1, np.int32)])
        lines = self._line_of[rows, scopes].astype(np.int64)
        new = np.flatnonzero(lines < 0)
        if len(new):
            for at in np.unique(rows[new] * len(SCOPES) + scopes[new]).tolist():
                self._line_of[divmod(at, len(SCOPES))] = self._take(*divmod(at, len(SCOPES)))
            lines[new] = self._line_of[rows[new], scopes[new]]
        return lines

    def _take(self, row: int, scope: int) -> int:
        if self._free:
            line = self._free.pop()
        else:
            line = self._size
            self._size += 1
            if self._size > len(self._rows):
                self._rows, self._scopes, self._totals, self._added = map(
                    _doubled, (self._rows, self._scopes, self._totals, self._added)
                )
        self._rows[line], self._scopes[line] = row, scope
        return line


def _doubled(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([column, np.zeros_like(column)])
