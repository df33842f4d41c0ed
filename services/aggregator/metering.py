"""What readings of interfaces' counters add to their meters, many at once.

A meter is a line as `flows.coverage` lays it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.aggregator.sums import Mask
from services.flows.coverage import LINE, Lines
from services.flows.delta import BESIDE, FOUR, NOTHING, InterfaceCounters, Kind, Window
from services.flows.protocols import TCP
from services.flows.table import sum_by

LEAST_PACKETS: Final = 64
"""Packets of a direction before anything is said about whether its source sees it."""
_LEAST_READINGS: Final = 3
"""One reading may fall into a burst of which nothing is drained yet."""
_TRICKLE: Final = 64
"""Hidden datapaths let single packets through; a source of which so small a part is seen does not see a direction.
Who receives a TCP stream answers at least every few packets, never as rarely as that."""
_MOST: Final = np.uint64((1 << 63) - 1)
"""Sums stop here: who forges counters is not to break who reads them."""
_BASED, _READ = LINE["based"].start, LINE["read"].start
_TX_PACKETS, _RX_PACKETS = 1, 3
Four = npt.NDArray[np.int64]
"""Lines of four counters, as `InterfaceCounters` has them."""


class Captured(NamedTuple):
    """What a window brought of one attachment; `replies` are TCP packets that nobody sends who receives nothing."""

    all: InterfaceCounters = NOTHING
    hidden: InterfaceCounters = NOTHING
    folded: InterfaceCounters = NOTHING
    tx_replies: int = 0
    rx_replies: int = 0


class Reading(NamedTuple):
    """What a window says of an interface; times are Redis microseconds."""

    counters: tuple[int, int, int, int]
    was_read: bool
    """Whether anybody could read the counters."""
    brought: Captured
    settling: bool
    """Whether what is missing by now must have passed before the source was in place."""
    lossy: bool
    """Whether packets were lost in it, on whatever interface."""
    row: int
    reported_us: int
    detached_us: int
    """-1 where it goes on."""


def captured(windows: Sequence[Window]) -> dict[tuple[int, int], Captured]:
    """What flows amount to, by the place of the window and the attachment."""
    flows = np.concatenate([window.flows for window in windows])
    which = np.repeat(np.arange(len(windows)), [len(window.flows) for window in windows])
    found, inverse = np.unique(which << 32 | flows["attachment"], return_inverse=True)
    tcp = (flows["kind"] == Kind.IP) & (flows["protocol"] == TCP)
    columns = [flows[name] for name in FOUR]
    sums = []
    for some in (flows["kind"] < BESIDE, flows["kind"] == Kind.HIDDEN, flows["kind"] == Kind.FOLDED):
        rows = np.flatnonzero(some)
        sums += [sum_by(inverse[rows], column[rows], len(found)) for column in columns]
    for name in ("tx", "rx"):
        packets = flows[f"{name}_packets"]
        replies = np.where(tcp, packets - np.minimum(packets, flows[f"{name}_syns"]), np.uint64(0))
        sums.append(sum_by(inverse, replies, len(found)))
    lines = zip(*(column.tolist() for column in (found, *sums)), strict=True)
    return {
        (key >> 32, key & 0xFFFFFFFF): Captured(
            InterfaceCounters(*line[:4]), _some(line[4:8]), _some(line[8:12]), *line[12:]
        )
        for key, *line in lines
    }


def _some(four: list[int]) -> InterfaceCounters:
    return InterfaceCounters(*four) if any(four) else NOTHING


def metered(before: Lines, readings: Sequence[Reading]) -> Lines:
    """Meters after readings, one of each."""
    after = before.copy()
    counters = np.array([one.counters for one in readings], np.int64)
    was_read, settling, lossy = (
        np.array(column, np.bool_)
        for column in zip(*((one.was_read, one.settling, one.lossy) for one in readings), strict=True)
    )
    brought, hidden, folded = (
        np.array([getattr(one.brought, name).four for one in readings], np.uint64).astype(np.int64)
        for name in ("all", "hidden", "folded")
    )
    for name in ("row", "reported_us", "detached_us"):
        after[:, LINE[name].start] = [getattr(one, name) for one in readings]
    whole = after[:, LINE["captured"]] = _plus(before[:, LINE["captured"]], brought)
    after[:, LINE["hidden"]] = _plus(before[:, LINE["hidden"]], hidden)
    after[:, LINE["folded"]] = _plus(before[:, LINE["folded"]], folded)
    after[~was_read, LINE["compared"]] = whole[~was_read]
    same = (counters == before[:, LINE["counters"]]).all(axis=1) & (before[:, _READ] == 1)
    based = before[:, _BASED] == 1
    _base(after, was_read & ~based, counters, fresh=~same & (before[:, _READ] == 1))
    # Of an interface that is gone nobody could read what it counted last.
    told = was_read & based & ~(same & (after[:, LINE["detached_us"].start] >= 0))
    counted = _counted(before, counters)
    after[told, LINE["counters"]], after[told, _READ] = counters[told], 1
    after[told, LINE["counted"]] = _plus(before[:, LINE["counted"]], counted)[told]
    after[told, LINE["compared"]] = whole[told]
    missed = _beyond(after[:, LINE["counted"]], after[:, LINE["compared"]])
    attach = np.where(settling[:, None], missed, np.minimum(before[:, LINE["attach"]], missed))
    after[told, LINE["attach"]] = attach[told]
    seen = _beyond(whole, before[:, LINE["compared"]])
    replies = np.array([(one.brought.tx_replies, one.brought.rx_replies) for one in readings], np.int64)
    for way, packets, answered in (("tx", _TX_PACKETS, replies[:, 1]), ("rx", _RX_PACKETS, replies[:, 0])):
        new = np.stack([np.ones(len(after), np.int64), counted[:, packets], seen[:, packets], answered], axis=1)
        _judge(after, told, way, new, lossy)
    return after


def _base(after: Lines, some: Mask, counters: Four, *, fresh: Mask) -> None:
    """Let meters begin at these counters; an unchanged reading may be an old one, not made at the end of its window."""
    after[some, LINE["counters"]], after[some, _READ] = counters[some], 1
    after[some, _BASED] = fresh[some]
    after[some, LINE["captured"]] = after[some, LINE["compared"]] = 0


def _counted(before: Lines, counters: Four) -> Four:
    """What interfaces counted between two readings; counters that were set back began at 0."""
    last = before[:, LINE["counters"]]
    went_on = (before[:, _READ] == 1) & (counters >= last).all(axis=1)
    return counters - np.where(went_on[:, None], last, 0)


def _judge(after: Lines, told: Mask, way: str, new: Four, lossy: Mask) -> None:
    """Say whether a direction is seen, once there is enough to tell; a window that lost packets proves little."""
    sees, evidence = LINE[f"sees_{way}"].start, LINE[way]
    known = after[:, sees]
    sums = _plus(after[:, evidence], new)
    passed = sums[:, 1:].max(axis=1)
    enough = told & ~lossy & (sums[:, 0] >= _LEAST_READINGS) & (passed >= LEAST_PACKETS)
    shown = told & lossy & (known < 0) & (new[:, 2] >= LEAST_PACKETS)
    verdict = sums[:, 2] >= passed // _TRICKLE + (passed % _TRICKLE > 0)
    after[:, sees] = np.where(enough, verdict, np.where(shown, 1, known))
    after[told, evidence] = np.where((enough | lossy)[:, None], 0, sums)[told]


def _plus(one: Four, two: Four) -> Four:
    return np.minimum(one.astype(np.uint64) + two.astype(np.uint64), _MOST).astype(np.int64)


def _beyond(one: Four, two: Four) -> Four:
    return np.asarray(np.maximum(one - two, 0))
