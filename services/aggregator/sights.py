"""What agents told of many pods, asked at once: how much of a window was seen, and whether more is expected."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from services.aggregator.sums import Mask, Numbers
from services.flows.delta import Coverage

NOTHING: Final = 0
PART: Final = 1
"""Some of a window is in the totals as the pod's own."""
WHOLE: Final = 2


class Seen(Protocol):
    """An observation point, as `Point` describes it."""

    @property
    def from_us(self) -> int:
        """Since when all that passed is told."""

    @property
    def reported_us(self) -> int:
        """Up to when."""

    @property
    def gap_from_us(self) -> int:
        """When the time began that is booked as a gap; 0 where none is."""

    @property
    def gap_to_us(self) -> int:
        """When that ended."""

    @property
    def covered(self) -> Coverage:
        """How much of its pod's traffic it sees."""

    @property
    def open(self) -> bool:
        """Whether its agent may report more of it."""


class Sights:
    """The points of some pods. All questions are about entries: `which` is each one's place among the pods."""

    def __init__(self, first: Numbers, more: Mapping[int, Sequence[Seen]]) -> None:
        """`first` has a line of columns, as `columns_of` one point, and `more` the further points of pods with several."""
        self._from, self._reported, self._gap_from, self._gap_to, seen = first.T
        self._egress, self._ingress, self._open, self._heard = ((seen & bit).astype(np.bool_) for bit in (1, 2, 4, 8))
        self._more = more

    @classmethod
    def of(cls, pods: Sequence[Collection[Seen]]) -> Sights:
        """Of points that are given one by one."""
        # Nearly all pods have one point, so those are columns; the rest are asked one by one.
        first = [columns_of(next(iter(points), None)) for points in pods]
        more = {at: list(points)[1:] for at, points in enumerate(pods) if len(points) > 1}
        return cls(np.array(first, np.int64).reshape(-1, len(NOBODY)), more)

    def seen(self, which: Numbers, starts: Numbers, ends: Numbers, sent: Mask) -> Numbers:
        """How much of what pods sent (else: received) in windows is in the totals as their own.

        A point that sees only that direction counts as well: that is all that is asked.
        """
        covered = np.where(sent, self._egress[which], self._ingress[which])
        found = _sight(covered, self._from[which], self._reported[which], starts, ends)
        for at, points in self._more.items():
            mine = np.flatnonzero(which == at)
            for point in points:
                covered = np.where(sent[mine], point.covered.sees_egress, point.covered.sees_ingress)
                more = _sight(covered, point.from_us, point.reported_us, starts[mine], ends[mine])
                found[mine] = np.maximum(found[mine], more)
        return found

    def expected(self, which: Numbers, ends: Numbers) -> Mask:
        """Whether an agent may still report what a pod did up to an end."""
        known = self._open & self._egress
        found = known[which] & (self._from[which] < ends) & (self._reported[which] < ends)
        for at, points in self._more.items():
            mine = np.flatnonzero(which == at)
            for point in points:
                if point.open and point.covered.sees_egress:
                    found[mine] |= (point.from_us < ends[mine]) & (point.reported_us < ends[mine])
        return np.asarray(found)

    def in_gap(self, which: Numbers, starts: Numbers, ends: Numbers) -> Mask:
        """Whether what reached a pod in a window is booked as a gap of its agent, in part at least."""
        found = (self._gap_from[which] < ends) & (starts < self._gap_to[which])
        for at, points in self._more.items():
            mine = np.flatnonzero(which == at)
            for point in points:
                found[mine] |= (point.gap_from_us < ends[mine]) & (starts[mine] < point.gap_to_us)
        return np.asarray(found)

    def unheard(self, which: Numbers) -> Mask:
        """Whether no agent has told anything of a pod so far."""
        return np.asarray(~self._heard[which])


NOBODY: Final = (0, 0, 0, 0, 0)
"""The columns of no point."""
_SEES: Final = {covered: covered.sees_egress + 2 * covered.sees_ingress for covered in Coverage}


def columns_of(point: Seen | None) -> tuple[int, int, int, int, int]:
    """What of a point is in columns."""
    if point is None:
        return NOBODY
    bits = _SEES[point.covered] + 4 * point.open + 8
    return point.from_us, point.reported_us, point.gap_from_us, point.gap_to_us, bits


def _sight(
    covered: Mask, from_us: Numbers | int, reported_us: Numbers | int, starts: Numbers, ends: Numbers
) -> Numbers:
    whole = covered & (from_us <= starts) & (ends <= reported_us)
    part = covered & (from_us < ends) & (starts < reported_us)
    return np.where(whole, WHOLE, np.where(part, PART, NOTHING))
