"""Keeps the increments of the last ticks, so that they can be added up since any of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from services.api.counters import SIX, Six, six
from services.flows.keys import TICKS_KEPT_S
from services.flows.traffic import Tick

_KEPT_US: Final = TICKS_KEPT_S * 1_000_000
Numbers = npt.NDArray[np.int64]


class CursorError(Exception):
    """Increments since this tick can no longer be added up."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What one tick added: row numbers, and the six counters of each. Columns, since decoded ticks take ten times the memory."""

    n: int
    at_us: int
    rows: Numbers
    added: Numbers


@dataclass(slots=True)
class Increments:
    """The ticks of the last two minutes, one after the other."""

    _ticks: deque[_Kept] = field(default_factory=deque)

    def add(self, tick: Tick) -> None:
        """Keep a tick; forget those that are too old, those before one that is missing, and those of a clock set back."""
        if self._ticks and (tick.n != self._ticks[-1].n + 1 or tick.at_us < self._ticks[-1].at_us - _KEPT_US):
            self._ticks.clear()
        rows = np.array([change.number for change in tick.changes], np.int64)
        added = np.array([six(change.added) for change in tick.changes], np.int64).reshape(-1, len(SIX))
        self._ticks.append(_Kept(tick.n, tick.at_us, rows, added))
        while self._ticks[0].at_us < tick.at_us - _KEPT_US:
            self._ticks.popleft()

    def since(self, n: int, now: int) -> dict[int, Six]:
        """Increments by row after tick `n` up to `now`, the last; raises CursorError where not all of them are here."""
        if n == now:
            return {}
        if not self._ticks or self._ticks[-1].n != now or not self._ticks[0].n - 1 <= n < now:
            raise CursorError
        return _summed(kept for kept in self._ticks if kept.n > n)

    def within(self, start_us: int) -> dict[int, Six]:
        """Increments by row of the ticks after `start_us` (Redis time)."""
        return _summed(kept for kept in self._ticks if kept.at_us > start_us)


def _summed(ticks: Iterable[_Kept]) -> dict[int, Six]:
    kept = list(ticks)
    if not kept:
        return {}
    rows, inverse = np.unique(np.concatenate([one.rows for one in kept]), return_inverse=True)
    sums = np.zeros((len(rows), len(SIX)), np.int64)
    np.add.at(sums, inverse, np.concatenate([one.added for one in kept]))
    return {number: (a, b, c, d, e, f) for number, (a, b, c, d, e, f) in zip(rows.tolist(), sums.tolist(), strict=True)}
