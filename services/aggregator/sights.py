"""What agents told of many pods, asked at once: how much of a window was seen, and whether more is expected."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from services.aggregator.point import Point
from services.aggregator.sums import Mask, Numbers
from services.flows.delta import Coverage

NOTHING: Final = 0
PART: Final = 1
"""Some of a window is in the totals as the pod's own."""
WHOLE: Final = 2


class Sights:
    """The points of some pods. All questions are about entries: `which` is each one's place among the pods."""

    def __init__(self, pods: Sequence[Collection[Point]]) -> None:
        # Nearly all pods have one point, so those are columns; the rest are asked one by one.
        first = [next(iter(points), None) for points in pods]
        told = np.array([_FRESH if one is None else _told(one) for one in first], np.int64).reshape(-1, len(_FRESH))
        self._from, self._reported, self._gap_from, self._gap_to, seen = told.T
        self._egress, self._ingress, self._open = ((seen & bit).astype(np.bool_) for bit in (1, 2, 4))
        self._heard = np.array([one is not None for one in first], np.bool_)
        self._more = {at: list(points)[1:] for at, points in enumerate(pods) if len(points) > 1}

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


_FRESH: Final = (0, 0, 0, 0, 0)
_SEES: Final = {covered: covered.sees_egress + 2 * covered.sees_ingress for covered in Coverage}


def _told(point: Point) -> tuple[int, int, int, int, int]:
    bits = _SEES[point.measured or point.coverage]
    if point.detached_us is None and not point.replaced:
        bits += 4
    return point.from_us, point.reported_us, point.gap_from_us, point.gap_to_us, bits


def _sight(
    covered: Mask, from_us: Numbers | int, reported_us: Numbers | int, starts: Numbers, ends: Numbers
) -> Numbers:
    whole = covered & (from_us <= starts) & (ends <= reported_us)
    part = covered & (from_us < ends) & (starts < reported_us)
    return np.where(whole, WHOLE, np.where(part, PART, NOTHING))
