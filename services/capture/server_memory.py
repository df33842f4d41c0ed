"""Which side of a conversation was found to be the server, for as long as it goes on."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from services.flows.delta import Side
from services.flows.table import hashes

Hashes = npt.NDArray[np.uint64]
Sides = npt.NDArray[np.uint8]


class ServerMemory:
    """A bounded table from a conversation's hash to its server side.

    Sorted arrays instead of a dict: one window recalls 100,000 conversations in a few
    milliseconds. The hash is seeded, so that nobody outside can choose flows that collide; a
    collision by chance (2^-64 per pair) can only mislabel a side.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.factors: Hashes = np.array([secrets.randbits(64) | 1 for _ in range(8)], np.uint64)
        """Of the hash."""
        self._hashes: Hashes = np.zeros(0, np.uint64)
        self._sides: Sides = np.zeros(0, np.uint8)
        self._last: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._now = 0

    def __len__(self) -> int:
        return len(self._hashes)

    def hashes(self, keys: npt.NDArray[np.uint64]) -> Hashes:
        """A 64-bit hash of each key, from the keys' columns."""
        return hashes(keys, self.factors)

    def recall(self, hashes: Hashes) -> Sides:
        """The side of each conversation, NONE where it is not remembered; fast for ascending hashes."""
        at, known = self._find(hashes)
        sides = np.full(len(hashes), Side.NONE, np.uint8)
        sides[known] = self._sides[at[known]]
        return sides

    def remember(self, hashes: Hashes, sides: Sides) -> None:
        """Take one window's decisions, each hash once; what was longest unseen goes when the table is full."""
        self._now += 1
        at, known = self._find(hashes)
        self._sides[at[known]], self._last[at[known]] = sides[known], self._now
        order = np.argsort(hashes[~known])
        new, where = hashes[~known][order], at[~known][order]
        self._hashes = np.insert(self._hashes, where, new)
        self._sides = np.insert(self._sides, where, sides[~known][order])
        self._last = np.insert(self._last, where, self._now)
        if len(self._hashes) > self._capacity:
            keep = np.sort(np.argpartition(self._last, -self._capacity)[-self._capacity :])
            self._hashes, self._sides, self._last = self._hashes[keep], self._sides[keep], self._last[keep]

    def _find(self, hashes: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Where each hash is or is to be, and whether it is there."""
        at = np.searchsorted(self._hashes, hashes)
        known = np.zeros(len(hashes), np.bool_)
        inside = at < len(self._hashes)
        known[inside] = self._hashes[at[inside]] == hashes[inside]
        return at, known
