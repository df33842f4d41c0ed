"""Tables of counters, and sums of their lines by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.flows.scope import SCOPES
from services.flows.traffic import ByScope, Counts

Table = npt.NDArray[np.uint64]
"""One line of `ROW_COUNTERS` per entry; in memory each counter's column lies in one piece, which is what sums read."""
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def chosen(table: Table, some: Mask | Numbers) -> Table:
    """Some lines of a table, with its columns still in one piece each."""
    return np.asarray(table.T[:, some]).T


def grouped(keys: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Equal keys: `order` that brings them together, where each group begins in it, and each group's key."""
    order = np.argsort(keys)
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), np.bool_), ordered[1:] != ordered[:-1]]))
    return order, begins, ordered[begins]


def summed(table: Table, order: Numbers, begins: Numbers) -> Table:
    """The lines of a table added by group, as `grouped` gives them; exact."""
    if not len(begins):
        return np.zeros((0, table.shape[1]), np.uint64, order="F")
    return np.add.reduceat(table.T[:, order], begins, axis=1).T


def sums_by(keys: Numbers, table: Table) -> tuple[Numbers, Table]:
    """Each key once, in order, and the sum of its lines."""
    order, begins, found = grouped(keys)
    return found, summed(table, order, begins)


def sums_by_scope(scopes: Numbers, table: Table) -> ByScope:
    """The lines of a table added by scope."""
    found, sums = sums_by(scopes, table)
    return {SCOPES[at]: line for at, line in zip(found.tolist(), sums.tolist(), strict=True)}


def table_of(lines: Sequence[Counts]) -> Table:
    """A table of these lines."""
    return np.array(lines, np.uint64, order="F")
