"""Which side of a conversation was found to be the server, for as long as it goes on."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from services.flows.delta import Side

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
        self._factors = np.array([secrets.randbits(64) | 1 for _ in range(8)], np.uint64)
        self._hashes: Hashes = np.zeros(0, np.uint64)
        self._sides: Sides = np.zeros(0, np.uint8)
        self._last: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._now = 0

    def __len__(self) -> int:
        return len(self._hashes)

    def hashes(self, keys: npt.NDArray[np.void]) -> Hashes:
        """A 64-bit hash of each key (a structured array of whole 64-bit words)."""
        words = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, keys.dtype.itemsize // 8)
        mixed = np.zeros(len(keys), np.uint64)
        for column in range(words.shape[1]):
            mixed ^= words[:, column]
            mixed *= self._factors[column]
            mixed ^= mixed >> np.uint64(32)
        return mixed

    def recall(self, hashes: Hashes) -> Sides:
        """The side of each conversation, NONE where it is not remembered."""
        at = np.minimum(np.searchsorted(self._hashes, hashes), max(len(self._hashes) - 1, 0))
        if not len(self._hashes):
            return np.full(len(hashes), Side.NONE, np.uint8)
        return np.where(self._hashes[at] == hashes, self._sides[at], np.uint8(Side.NONE))

    def remember(self, hashes: Hashes, sides: Sides) -> None:
        """Take one window's decisions; what was longest unseen goes when the table is full."""
        self._now += 1
        # A later duplicate wins: new decisions stand behind old ones, and unique reads from the end.
        every = np.concatenate([self._hashes, hashes])[::-1]
        side = np.concatenate([self._sides, sides])[::-1]
        last = np.concatenate([self._last, np.full(len(hashes), self._now)])[::-1]
        self._hashes, newest = np.unique(every, return_index=True)
        self._sides, self._last = side[newest], last[newest]
        if len(self._hashes) > self._capacity:
            keep = np.sort(np.argsort(self._last, kind="stable")[-self._capacity :])
            self._hashes, self._sides, self._last = self._hashes[keep], self._sides[keep], self._last[keep]
