"""Finds the numbers of many keys at once: a hash table in columns."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from services.aggregator.sums import Mask, Numbers
from services.flows.table import Words, group_columns, hashes

_FIRST: Final = 1024
_EMPTY: Final = -1
_GONE: Final = -2
Table = npt.NDArray[np.int64]


class Index:
    """Keys of `words` 64-bit words each, numbered as they come; the number of one that was removed is given again.

    Nobody who chooses keys can choose their places: hashes have factors of this process's own.
    """

    def __init__(self, words: int) -> None:
        self._factors = np.array([secrets.randbits(64) | 1 for _ in range(words)], np.uint64)
        self._words = np.zeros((words, _FIRST), np.uint64)
        self._hashes = np.zeros(_FIRST, np.uint64)
        self._places: Table = np.full(2 * _FIRST, _EMPTY, np.int64)
        self._size = 0
        self._free: list[int] = []
        self._removed = 0

    def __len__(self) -> int:
        return self._size - len(self._free)

    @property
    def capacity(self) -> int:
        """How many numbers there are room for, so that columns beside this one can be as long."""
        return len(self._hashes)

    def find(self, columns: Sequence[Words] | Words) -> Numbers:
        """The number of each key, -1 where there is none; `columns` are the keys' words."""
        wanted = hashes(columns, self._factors)
        return self._probe(wanted, columns)[0]

    def add(self, columns: Sequence[Words] | Words) -> Numbers:
        """The numbers of keys of which some may be new."""
        wanted = hashes(columns, self._factors)
        numbers, _ = self._probe(wanted, columns)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            keys = [column[new] for column in columns]
            first, inverse = group_columns(keys)
            numbers[new] = self._insert([column[first] for column in keys], wanted[new[first]])[inverse]
        return numbers

    def remove(self, numbers: Numbers) -> None:
        """Forget keys by their numbers."""
        _, places = self._probe(self._hashes[numbers], self._words[:, numbers])
        self._places[places] = _GONE
        self._free += numbers.tolist()
        self._removed += len(numbers)

    def words(self, numbers: Numbers) -> Words:
        """The keys of numbers, by column."""
        return self._words[:, numbers]

    def numbers(self, place: int, mask: int, value: int) -> Numbers:
        """The numbers of all keys in whose word at `place` the bits of `mask` are `value`."""
        known = self._places[self._places >= 0]
        words = self._words[place, known] & np.uint64(mask)
        return np.sort(known[words == np.uint64(value)])

    def _probe(self, wanted: Words, columns: Sequence[Words] | Words) -> tuple[Numbers, Numbers]:
        """Numbers of keys, and their places in the table; where there is none, -1 and the first place that is free."""
        mask = len(self._places) - 1
        places = (wanted & np.uint64(mask)).astype(np.int64)
        numbers = self._places[places]
        todo = np.flatnonzero(self._others(numbers, wanted, columns))
        while len(todo):
            places[todo] = (places[todo] + 1) & mask
            numbers[todo] = self._places[places[todo]]
            some = [column[todo] for column in columns]
            todo = todo[self._others(numbers[todo], wanted[todo], some)]
        return np.maximum(numbers, -1), places

    def _others(self, numbers: Numbers, wanted: Words, columns: Sequence[Words] | Words) -> Mask:
        """At which places another key stands, or one that is gone."""
        differ = self._hashes[numbers] != wanted
        for words, column in zip(self._words, columns, strict=True):
            differ |= words[numbers] != column
        return np.asarray((numbers >= 0) & differ | (numbers == _GONE))

    def _insert(self, columns: list[Words], wanted: Words) -> Numbers:
        """Give numbers to keys that are new, each of them once."""
        count = len(wanted)
        self._make_room(count)
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = np.arange(self._size, self._size + count - len(reused))
        numbers = np.concatenate([np.array(reused, np.int64), fresh])
        self._size += len(fresh)
        self._hashes[numbers] = wanted
        for words, column in zip(self._words, columns, strict=True):
            words[numbers] = column
        self._place(numbers)
        return numbers

    def _place(self, numbers: Numbers) -> None:
        """Put keys that do not stand there into the table."""
        mask = len(self._places) - 1
        places = (self._hashes[numbers] & np.uint64(mask)).astype(np.int64)
        todo = np.arange(len(numbers))
        while len(todo):
            free = self._places[places[todo]] < 0
            trying = todo[free]
            self._places[places[trying]] = numbers[trying]
            # Of several that want one place the last one has it.
            missed = self._places[places[todo]] != numbers[todo]
            todo = todo[missed]
            places[todo] = (places[todo] + 1) & mask

    def _make_room(self, more: int) -> None:
        needed = self._size + more
        while needed > len(self._hashes):
            self._words = np.concatenate([self._words, np.zeros_like(self._words)], axis=1)
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        # Half of the table stays free, so that few places are looked at for a key.
        if 2 * (needed + self._removed) > len(self._places):
            known = self._places[self._places >= 0]
            self._places = np.full(2 * len(self._hashes), _EMPTY, np.int64)
            self._removed = 0
            self._place(known)
