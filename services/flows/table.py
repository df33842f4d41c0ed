"""Grouping and summing of table rows by equal keys, vectorised and exact."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.flows.delta import COUNTERS, FLOW, FLOW_KEY, Kind, Rows

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


def group(keys: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Group equal rows of a padding-free structured array whose size is a multiple of 8 bytes.

    Returns `first`, the index of one row of each group, and `inverse`, each row's group.
    """
    words = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, keys.dtype.itemsize // 8)
    mixed = _mix(words)
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    if len(first) < len(keys) and not np.array_equal(words[first[inverse]], words):
        # Two keys share a 64-bit hash: rare, yet whoever chooses addresses can look for it.
        _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = np.zeros(len(words), np.uint64)
    for column in range(words.shape[1]):
        mixed ^= words[:, column] * _ODD[column]
        mixed ^= mixed >> np.uint64(29)
        mixed *= _ODD[column]
        mixed ^= mixed >> np.uint64(32)
    return mixed


def sum_by(inverse: npt.NDArray[np.intp], values: npt.NDArray[np.uint64], groups: int) -> npt.NDArray[np.uint64]:
    """Exact sums of 64-bit `values` per group (`bincount` adds in doubles, which is not exact)."""
    total = np.zeros(groups, np.uint64)
    np.add.at(total, inverse, values)
    return total


def key_of(rows: Rows) -> npt.NDArray[np.void]:
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


def fold_excess(rows: Rows, limit: int) -> Rows:
    """At most about `limit` rows: the largest stay, the rest become one `FOLDED` row per attachment.

    Sums per attachment stay exact. A table with more attachments than `limit` keeps one each.
    """
    if len(rows) <= limit:
        return rows
    foldable = rows["kind"] != Kind.FOLDED
    size = np.where(foldable, rows["tx_bytes"] + rows["rx_bytes"], np.iinfo(np.uint64).max)
    keep = max(limit - len(np.unique(rows["attachment"])), 0)
    order = np.argsort(size, kind="stable")[::-1]
    rest = rows[order[keep:]].copy()
    attachments = rest["attachment"].copy()
    for name in FLOW_KEY.names or ():
        rest[name] = 0
    rest["attachment"], rest["kind"] = attachments, Kind.FOLDED
    return combine([rows[order[:keep]], rest])
