"""Meters what sources saw of interfaces against what the interfaces themselves counted.

An agent reads the counters of its interfaces just before it drains its source. So what a window
brought is a little more than what the counters say by then, by what passed in between, or less by
what the kernel still had in its hands: milliseconds of traffic, which the next window evens out.
Sums are compared, never single windows, and what was captured beyond the counters is no credit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from services.aggregator.attachments import Points
from services.aggregator.metering import Captured, Reading, captured, metered
from services.aggregator.point import Key, Point, first_alike
from services.flows import coverage
from services.flows.coverage import (
    LINE,
    NAMES,
    WIDTH,
    InterfaceCoverage,
    Lines,
    NodeCoverage,
    Sides,
    Sums,
    beyond,
    interfaces_of,
    lines_of,
    went_on,
)
from services.flows.delta import NOTHING, Attachment, Batch, Coverage, InterfaceCounters, Window

SETTLING_US: Final = 5_000_000
"""For how long after an attachment began what is missing can have passed before the source was in place."""
_MOST_REASONS: Final = 32
_MOST_LOST: Final = 1 << 57
"""Packets per reason: who forges them is not to break the sum of all reasons."""
_MOST_ENDED: Final = 256
"""Interfaces of a node that ended and are still shown one by one, a quarter of an hour at most."""
_REPORTED, _DETACHED, _ROW = (LINE[name].start for name in ("reported_us", "detached_us", "row"))
_SEES: Final = slice(LINE["sees_tx"].start, LINE["sees_rx"].stop)
_UNREAD: Final = (0, 0, 0, 0)


class _Meter(NamedTuple):
    """Where an interface's line stands, and what its line does not tell."""

    place: int
    names: list[Any]
    """Its `NAMES`."""
    key: Key


@dataclass(slots=True)
class _Node:
    """One node's meters, by name and index of the interface."""

    name: str
    since_us: int
    meters: dict[tuple[str, int], _Meter] = field(default_factory=dict)
    past: Sums = field(default_factory=Sums)
    loss: Counter[str] = field(default_factory=Counter)

    def lose(self, loss: Mapping[str, int]) -> None:
        """Count what a window lost; who makes up reasons fills no memory."""
        for reason, packets in loss.items():
            known = reason if reason in self.loss or len(self.loss) < _MOST_REASONS else "other"
            self.loss[known] = min(self.loss[known] + packets, _MOST_LOST)


class Meters:
    """All interfaces' meters; everything in it is the result of applied batches alone."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._nodes: dict[str, _Node] = {}
        self._lines: Lines = np.zeros((64, WIDTH), np.int64)
        self._free = list(range(64))

    def take(self, told: Sequence[tuple[Batch, Window]]) -> None:
        """Take windows, each of another node, whose attachments `points` has observed."""
        seen = captured([window for _, window in told])
        places: list[int] = []
        readings: list[Reading] = []
        keys: list[Key] = []
        for at, (batch, window) in enumerate(told):
            node = self._nodes.setdefault(batch.node, _Node(batch.node, window.start_us + batch.offset_us))
            lost_before = node.loss.total()
            node.lose(window.loss)
            lost, lossy = node.loss.total(), any(window.loss.values())
            for attachment in window.attachments:
                key = batch.boot, attachment.id
                brought = seen.get((at, attachment.id))
                if brought is not None:
                    self._points.account(key, brought.all)
                point = self._points.known[key]
                meter = node.meters.get((attachment.interface, attachment.index))
                # By its start: in an outage windows are merged, and what is missing shows only at their end.
                settling = window.start_us - attachment.attached_us <= SETTLING_US
                if meter is None or meter.key != key:
                    # One that ends in a window in which the next one begins comes first.
                    self._meter(places, readings, keys)
                    meter, settling = self._begin(node, batch, window, attachment, lost_before), True
                detached = attachment.detached_us
                places.append(meter.place)
                keys.append(key)
                readings.append(
                    Reading(
                        counters=_UNREAD if attachment.counters is None else attachment.counters.four,
                        was_read=attachment.counters is not None,
                        brought=brought or Captured(),
                        settling=settling and self._lines[meter.place, LINE["lost_before"].start] == lost,
                        lossy=lossy,
                        row=point.row,
                        reported_us=window.end_us + batch.offset_us,
                        detached_us=-1 if detached is None else detached + batch.offset_us,
                    )
                )
        self._meter(places, readings, keys)
        for batch, _ in told:
            self._drop_ended(self._nodes[batch.node])

    def forget(self, gone: Mapping[Key, Point]) -> set[str]:
        """Drop interfaces that nobody can ask about any more; the nodes that had them."""
        changed = set()
        for key, point in gone.items():
            node = self._nodes.get(point.node)
            meter = node.meters.get((point.interface, point.index)) if node else None
            if node and meter and meter.key == key:
                self._drop(node, meter)
                changed.add(point.node)
        return changed

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        for node in self._nodes.values():
            node.since_us += step_us
        for name in ("since_us", "reported_us", "detached_us"):
            column = self._lines[:, LINE[name].start]
            # What is not, yet, is 0 or -1.
            column[column > 0] += step_us

    def of(self, node: str) -> NodeCoverage | None:
        """What is known of a node; None where none of its batches was applied."""
        encoded = self.encoded(node)
        return None if encoded is None else coverage.decode(encoded)

    def encoded(self, node: str) -> bytes | None:
        """The same as it is stored."""
        known = self._nodes.get(node)
        if known is None:
            return None
        meters = known.meters.values()
        lines = self._lines[[meter.place for meter in meters]]
        # Rows may have been merged since.
        points = (self._points.known.get(meter.key) for meter in meters)
        lines[:, _ROW] = [row if one is None else one.row for one, row in zip(points, lines[:, _ROW], strict=True)]
        whole = NodeCoverage(node, known.since_us, (), known.past, known.loss)
        return coverage.encode_lines(whole, [meter.names for meter in meters], lines)

    def restore(self, stored: NodeCoverage) -> None:
        """Take what `of` gave."""
        node = self._nodes[stored.node] = _Node(stored.node, stored.since_us, {}, stored.past, Counter(stored.loss))
        for one in stored.interfaces:
            self._put(node, one)

    def _put(self, node: _Node, one: InterfaceCoverage) -> _Meter:
        if not self._free:
            self._free = list(range(len(self._lines), 2 * len(self._lines)))
            self._lines = np.concatenate([self._lines, np.zeros_like(self._lines)])
        meter = _Meter(self._free.pop(), [getattr(one, name) for name in NAMES], (one.boot, one.attachment))
        self._lines[meter.place] = lines_of([one])[0]
        node.meters[one.interface, one.index] = meter
        return meter

    def _drop(self, node: _Node, meter: _Meter) -> None:
        """Show an interface no more one by one."""
        one = self._shown(meter)
        del node.meters[one.interface, one.index]
        self._free.append(meter.place)
        node.past = node.past.plus(one.sums)

    def _drop_ended(self, node: _Node) -> None:
        """Drop those that ended first beyond the bound."""
        if len(node.meters) > _MOST_ENDED:
            meters = list(node.meters.values())
            ended = [one for one in meters if self._lines[one.place, _DETACHED] >= 0]
            ended.sort(key=lambda one: int(self._lines[one.place, _REPORTED]))
            for meter in ended[: max(0, len(ended) - _MOST_ENDED)]:
                self._drop(node, meter)

    def _shown(self, meter: _Meter) -> InterfaceCoverage:
        [one] = interfaces_of([meter.names], self._lines[[meter.place]])
        return one

    def _begin(self, node: _Node, batch: Batch, window: Window, attachment: Attachment, lost_before: int) -> _Meter:
        """Meter an attachment from now on, and no more the one that was there before."""
        before = node.meters.get((attachment.interface, attachment.index))
        shown, first = self._shown(before) if before else None, attachment.first_counters
        old = self._points.known.get(before.key) if before else None
        if old is not None and first is not None:
            first = first_alike(old, first, attachment.hidden)
        begun = _begun(batch, window, attachment, shown, first, lost_before)
        if before is not None:
            self._drop(node, before)
        return self._put(node, begun)

    def _meter(self, places: list[int], readings: list[Reading], keys: list[Key]) -> None:
        """Bring lines up to date with readings, and points with what those show."""
        if not places:
            return
        before = self._lines[places]
        after = self._lines[places] = metered(before, readings)
        for at in np.flatnonzero((before[:, _SEES] != after[:, _SEES]).any(axis=1)).tolist():
            tx, rx = after[at, _SEES].tolist()
            self._points.measure(keys[at], _MEASURED.get((tx, rx)))
        places.clear()
        readings.clear()
        keys.clear()


_MEASURED: Final[Mapping[tuple[int, int], Coverage | None]] = {
    (1, 1): Sides.BOTH.coverage,
    (1, 0): Sides.EGRESS_ONLY.coverage,
    (0, 1): Sides.INGRESS_ONLY.coverage,
    (0, 0): Sides.NONE.coverage,
}
"""What sources that see a direction (1) or do not (0) show of their coverage; nothing before both are known."""


def _begun(
    batch: Batch,
    window: Window,
    attachment: Attachment,
    before: InterfaceCoverage | None,
    alike: InterfaceCounters | None,
    lost_before: int,
) -> InterfaceCoverage:
    """The meter of an attachment that was not metered yet.

    `before` is the last one of its interface; its agent would have read `alike` where this one began.
    """
    # Where its first windows are gone, what passed in them is in no session's totals.
    first = attachment.attached_us >= window.start_us and attachment.first_counters is not None
    counters = attachment.first_counters if first else attachment.counters
    gap = NOTHING
    if first and before is not None and before.boot != batch.boot:
        gap = _missed_between(before, alike)
    return InterfaceCoverage(
        interface=attachment.interface,
        index=attachment.index,
        source=attachment.source,
        boot=batch.boot,
        attachment=attachment.id,
        row=0,
        since_us=(attachment.attached_us if first else window.start_us) + batch.offset_us,
        reported_us=window.start_us + batch.offset_us,
        based=first,
        counters=counters,
        gap=gap,
        lost_before=lost_before,
    )


def _missed_between(before: InterfaceCoverage, first: InterfaceCounters | None) -> InterfaceCounters:
    """What an interface counted between two agents; nothing where the counters are not the same ones."""
    if before.detached_us is not None or before.counters is None or not before.based or first is None:
        return NOTHING
    if not went_on(before.counters, first):
        return NOTHING
    tail = beyond(before.captured, before.compared)
    return beyond(beyond(first, before.counters), tail)
