"""Grouping and summing of table rows by equal keys, vectorised and exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.flows.delta import COUNTERS, FLOW, FLOW_KEY, InterfaceCounters, Kind, Rows

_ODD: Final = np.array(
    [
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
        0xA0761D6478BD642F,
        0xE7037ED1A0B428DB,
        0x8EBC6AF09C88C6E3,
        0x589965CC75374CC3,
    ],
    dtype=np.uint64,
)
"""Odd multipliers, one for each word of a key (keys have at most 64 bytes)."""


_AT_ONCE: Final = 2048
"""Rows that are turned into columns at once: what they take fits into a processor's first cache."""
Words = npt.NDArray[np.uint64]


def group(keys: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """`group_columns` for a padding-free structured array whose size is a multiple of 8 bytes."""
    return group_columns(transposed(np.ascontiguousarray(keys).view(np.uint64).reshape(-1, keys.dtype.itemsize // 8)))


def group_columns(
    columns: Sequence[Words] | Words, factors: Words = _ODD
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Group equal rows of a table that is given by its columns.

    Returns `first`, the index of the first row of each group, in the order of (the upper bits of)
    their `hashes`, and `inverse`, each row's group.
    """
    count = len(columns[0])
    # Columns in which nothing differs (IPv4 fills half of an address) tell nothing apart.
    telling = [column for column in columns if count and (column != column[0]).any()]
    if not telling:
        return np.zeros(min(count, 1), np.intp), np.zeros(count, np.intp)
    # Sorting plain numbers is vectorised, and many times as fast as sorting indexes by what they
    # point at: so each row's number stands in the low bits of its hash.
    low = np.uint64((1 << count.bit_length()) - 1)
    packed = hashes(columns, factors)
    packed &= ~low
    packed |= np.arange(count, dtype=np.uint64)
    packed.sort()
    order = (packed & low).view(np.intp)
    is_new = np.ones(count, np.bool_)
    np.greater(packed[1:] ^ packed[:-1], low, out=is_new[1:])
    first = order[is_new]
    inverse = np.empty(count, np.intp)
    inverse[order] = np.cumsum(is_new) - 1
    if len(first) < count and not all(_same_within(column[order], is_new) for column in telling):
        # Two keys share a hash: rare, yet whoever chooses addresses can look for it.
        _, first, inverse = np.unique(np.stack(telling), axis=1, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def hashes(columns: Sequence[Words] | Words, factors: Words = _ODD) -> Words:
    """A 64-bit hash of each row, different for other (odd) `factors`."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column, factor in zip(columns, factors, strict=False):
        mixed ^= column
        mixed *= factor
        mixed ^= mixed >> np.uint64(32)
    return mixed


def transposed(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A contiguous transposed copy of a two-dimensional table, one side of which is long, five times as fast as NumPy's."""
    out = np.empty(table.shape[::-1], table.dtype)
    for start in range(0, max(table.shape), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        if len(table) > len(out):
            out[:, some] = table[some].T
        else:
            out[some] = table[:, some].T
    return out


def _same_within(ordered: Words, is_new: npt.NDArray[np.bool_]) -> bool:
    return bool((is_new[1:] | (ordered[1:] == ordered[:-1])).all())


def sum_by(inverse: npt.NDArray[np.intp], values: npt.NDArray[np.uint64], groups: int) -> npt.NDArray[np.uint64]:
    """Exact sums of 64-bit `values` per group (`bincount` adds in doubles, which is not exact)."""
    total = np.zeros(groups, np.uint64)
    np.add.at(total, inverse, values)
    return total


def key_of(rows: Rows) -> Rows:
    """The key columns of a `FLOW` table as a contiguous `FLOW_KEY` table."""
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(-1, FLOW.itemsize)
    return np.ascontiguousarray(raw[:, : FLOW_KEY.itemsize]).view(FLOW_KEY).reshape(-1)


def combine(tables: list[Rows]) -> Rows:
    """One `FLOW` table in which each key stands once, with the sums of all `tables`."""
    rows = np.concatenate(tables) if tables else np.zeros(0, FLOW)
    if len(rows) < 2:
        return rows
    first, inverse = group(key_of(rows))
    if len(first) == len(rows):
        return rows
    out = rows[first].copy()
    for name in COUNTERS:
        out[name] = sum_by(inverse, rows[name], len(first))
    return out


def by_attachment(rows: Rows) -> dict[int, InterfaceCounters]:
    """What the rows of a `FLOW` table amount to, by attachment."""
    found, inverse = np.unique(rows["attachment"], return_inverse=True)
    names = [one.name for one in fields(InterfaceCounters)]
    sums = [sum_by(inverse.reshape(-1), rows[name], len(found)).tolist() for name in names]
    return {attachment: InterfaceCounters(*line) for attachment, *line in zip(found.tolist(), *sums, strict=True)}


def fold_excess(rows: Rows, limit: int) -> Rows:
    """At most about `limit` rows: the largest stay, the rest become one `FOLDED` row per attachment.

    Sums per attachment stay exact. A table with more attachments than `limit` keeps one each.
    """
    if len(rows) <= limit:
        return rows
    foldable = rows["kind"] < Kind.FOLDED
    size = np.where(foldable, rows["tx_bytes"] + rows["rx_bytes"], np.iinfo(np.uint64).max)
    keep = max(limit - len(np.unique(rows["attachment"])), 0)
    order = np.argsort(size, kind="stable")[::-1]
    rest = rows[order[keep:]].copy()
    attachments = rest["attachment"].copy()
    for name in FLOW_KEY.names or ():
        rest[name] = 0
    rest["attachment"], rest["kind"] = attachments, Kind.FOLDED
    return combine([rows[order[:keep]], rest])
