"""How much of what interfaces counted their source saw: the aggregator's record, and what follows from it.

All counters are from the pod's view, as everywhere: transmit leaves the pod, receive reaches it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt

from services.flows.delta import NOTHING, Coverage, InterfaceCounters

VERSION: Final = 3
_MOST: Final = (1 << 63) - 1
"""Sums stop here: who forges counters is not to break who reads them."""


Lines = npt.NDArray[np.int64]
NAMES: Final = ("interface", "index", "source", "boot", "attachment")
"""What tells the interfaces of a node apart."""
_ONES: Final = (
    *("row", "since_us", "reported_us", "detached_us"),
    *("based", "read", "lost_before", "sees_tx", "sees_rx"),
)
_FOURS: Final = ("counters", "counted", "captured", "compared", "attach", "hidden", "folded", "gap")
LINE: Final = {
    **{name: slice(at, at + 1) for at, name in enumerate(_ONES)},
    **{name: slice(at, at + 4) for at, name in zip(range(len(_ONES), 99, 4), (*_FOURS, "tx", "rx"), strict=False)},
}
"""Where all that changes of an interface stands in its line; `read` says whether its counters were read ever."""
WIDTH: Final = LINE["rx"].stop


class CoverageError(ValueError):
    """Bytes that are no node's coverage of this version."""


class Direction(StrEnum):
    """Which way, seen from the pod."""

    TRANSMIT = "transmit"
    RECEIVE = "receive"


class Sides(StrEnum):
    """Which of an interface's directions its source sees."""

    BOTH = "both"
    EGRESS_ONLY = "egress-only"
    INGRESS_ONLY = "ingress-only"
    NONE = "none"

    @property
    def coverage(self) -> Coverage | None:
        """What that says against the agent's own word; None where it says nothing."""
        return None if self is Sides.BOTH else Coverage(self.value)


class Amount(NamedTuple):
    """Bytes and packets of one direction."""

    bytes: int
    packets: int


@dataclass(frozen=True, slots=True)
class Sums:
    """What one interface or many amount to while they were attached; each field counts both directions.

    `counted` are the interfaces' own counters, `captured` is what the source counted up to the same
    moment, `uncovered` what it missed. Of that `attach` passed before the source was in place, and
    `unseen` in directions that it does not see at all. `folded` was counted, but without its flows;
    `gap` passed while no agent was there, and is in none of the others.
    """

    counted: InterfaceCounters = NOTHING
    captured: InterfaceCounters = NOTHING
    uncovered: InterfaceCounters = NOTHING
    attach: InterfaceCounters = NOTHING
    unseen: InterfaceCounters = NOTHING
    folded: InterfaceCounters = NOTHING
    gap: InterfaceCounters = NOTHING

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(*(plus(getattr(self, one.name), getattr(other, one.name)) for one in fields(Sums)))

    def ratio(self, direction: Direction) -> float | None:
        """Which part of the counted bytes was captured, 0 to 1; None where none were counted.

        It is 1 only where nothing at all was missed.
        """
        counted, missed = amount(self.counted, direction).bytes, amount(self.uncovered, direction).bytes
        if not counted:
            return None
        ratio = (counted - missed) / counted
        return math.nextafter(1.0, 0.0) if missed and ratio == 1.0 else ratio


@dataclass(frozen=True, slots=True)
class Evidence:
    """Packets of one direction since it was last judged, over so many readings of the interface's counters.

    `answered` are TCP packets of the other direction that nobody sends who receives nothing.
    """

    readings: int = 0
    counted: int = 0
    captured: int = 0
    answered: int = 0


@dataclass(frozen=True, slots=True)
class InterfaceCoverage:
    """One attachment of a source to an interface; times are Redis microseconds."""

    interface: str
    index: int
    source: str
    boot: str
    attachment: int
    row: int
    """The number of the row that its traffic is booked on."""
    since_us: int
    reported_us: int
    detached_us: int | None = None
    based: bool = True
    """Whether `counters` were read at a known point of the captured traffic, so that increments compare."""
    counters: InterfaceCounters | None = None
    """The interface's own, as last read."""
    counted: InterfaceCounters = NOTHING
    captured: InterfaceCounters = NOTHING
    """Up to the end of the last window."""
    compared: InterfaceCounters = NOTHING
    """`captured` as it was when `counters` were read."""
    attach: InterfaceCounters = NOTHING
    hidden: InterfaceCounters = NOTHING
    """What its agent knows to have passed it by."""
    folded: InterfaceCounters = NOTHING
    gap: InterfaceCounters = NOTHING
    lost_before: int = 0
    """Packets that the node's agents had lost when this began."""
    sees_tx: bool | None = None
    sees_rx: bool | None = None
    """Whether the source sees a direction; None until enough has passed to tell."""
    tx: Evidence = Evidence()
    rx: Evidence = Evidence()

    @property
    def uncovered(self) -> InterfaceCounters:
        """What the source missed, in all."""
        return beyond(self.counted, self.compared)

    @property
    def sums(self) -> Sums:
        """What it amounts to."""
        missed = self.uncovered
        hidden = least(self.hidden, missed)
        unseen = InterfaceCounters(
            *((missed if self.sees_tx is False else hidden).four[:2]),
            *((missed if self.sees_rx is False else hidden).four[2:]),
        )
        attach = least(self.attach, beyond(missed, unseen))
        return Sums(self.counted, self.compared, missed, attach, unseen, self.folded, self.gap)

    @property
    def sides(self) -> Sides | None:
        """Which directions the source sees; None until both could be told."""
        match self.sees_tx, self.sees_rx:
            case (True, True):
                return Sides.BOTH
            case (True, False):
                return Sides.EGRESS_ONLY
            case (False, True):
                return Sides.INGRESS_ONLY
            case (False, False):
                return Sides.NONE
        return None

    def sees(self, direction: Direction) -> bool | None:
        """Whether the source sees a direction; None until enough has passed to tell."""
        return self.sees_tx if direction is Direction.TRANSMIT else self.sees_rx


@dataclass(frozen=True, slots=True)
class NodeCoverage:
    """All interfaces of a node, those that ended lately among them; `past` is what the others came to."""

    node: str
    since_us: int
    interfaces: tuple[InterfaceCoverage, ...] = ()
    past: Sums = Sums()
    loss: Mapping[str, int] = field(default_factory=dict)
    """Packets that the node's agents were given and did not count, by reason."""

    @property
    def sums(self) -> Sums:
        """Everything since the session began."""
        total = self.past
        for one in self.interfaces:
            total = total.plus(one.sums)
        return total

    @property
    def unexplained_packets(self) -> int:
        """Packets that were missed and have no reason; too few where losses hit what was never counted."""
        sums = self.sums
        return max(
            0, _packets(sums.uncovered) - _packets(sums.attach) - _packets(sums.unseen) - sum(self.loss.values())
        )


def amount(counters: InterfaceCounters, direction: Direction) -> Amount:
    """One direction of counters."""
    if direction is Direction.TRANSMIT:
        return Amount(counters.tx_bytes, counters.tx_packets)
    return Amount(counters.rx_bytes, counters.rx_packets)


def plus(one: InterfaceCounters, two: InterfaceCounters) -> InterfaceCounters:
    """Both together."""
    return _each(lambda a, b: min(a + b, _MOST), one, two)


def beyond(one: InterfaceCounters, two: InterfaceCounters) -> InterfaceCounters:
    """By how much `one` is more than `two`, 0 where it is not."""
    return _each(lambda a, b: max(0, a - b), one, two)


def least(one: InterfaceCounters, two: InterfaceCounters) -> InterfaceCounters:
    """The lesser of each counter."""
    return _each(min, one, two)


def went_on(before: InterfaceCounters, now: InterfaceCounters) -> bool:
    """Whether `now` can be a later reading of the same counters."""
    return _each(min, before, now) == before


def encode(coverage: NodeCoverage) -> bytes:
    """The bytes of a node's coverage."""
    named = [[getattr(one, name) for name in NAMES] for one in coverage.interfaces]
    return encode_lines(coverage, named, lines_of(coverage.interfaces))


def encode_lines(node: NodeCoverage, named: list[list[Any]], lines: Lines) -> bytes:
    """The same for interfaces that are not in `node`: the `NAMES` of each, and its line."""
    raw = {
        "v": VERSION,
        "node": node.node,
        "since": node.since_us,
        "past": [_four(getattr(node.past, one.name)) for one in fields(Sums)],
        "loss": dict(node.loss),
        "interfaces": named,
        "lines": lines.astype("<i8").tobytes(),
    }
    packed: bytes = msgpack.packb(raw)
    return packed


def decode(data: bytes) -> NodeCoverage:
    """The node's coverage behind `data`; raises CoverageError."""
    try:
        return _node_in(msgpack.unpackb(data))
    except (KeyError, TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise CoverageError(f"not a node's coverage of version {VERSION}: {error!r}") from error


def lines_of(interfaces: Sequence[InterfaceCoverage]) -> Lines:
    """The numbers of interfaces, a line of `WIDTH` each; -1 is what is not known."""
    lines = [
        [
            *(one.row, one.since_us, one.reported_us, -1 if one.detached_us is None else one.detached_us),
            *(int(one.based), int(one.counters is not None), one.lost_before, _told(one.sees_tx), _told(one.sees_rx)),
            *(number for name in _FOURS for number in _four(getattr(one, name) or NOTHING)),
            *(number for side in (one.tx, one.rx) for number in _evidence(side)),
        ]
        for one in interfaces
    ]
    return np.array(lines, np.int64).reshape(-1, WIDTH)


def interfaces_of(named: Iterable[list[Any]], lines: Lines) -> tuple[InterfaceCoverage, ...]:
    """The interfaces with these `NAMES` and lines; raises TypeError and ValueError."""
    return tuple(
        _interface(dict(zip(NAMES, names, strict=True)), line)
        for names, line in zip(named, lines.tolist(), strict=True)
    )


def _interface(given: dict[str, Any], line: list[int]) -> InterfaceCoverage:
    known: dict[str, Any] = {name: InterfaceCounters(*line[LINE[name]]) for name in _FOURS}
    known |= {name: Evidence(*line[LINE[name]]) for name in ("tx", "rx")}
    known |= {name: line[LINE[name].start] for name in _ONES}
    if not known.pop("read"):
        known["counters"] = None
    known["based"] = bool(known["based"])
    known["detached_us"] = None if known["detached_us"] < 0 else known["detached_us"]
    for name in ("sees_tx", "sees_rx"):
        known[name] = None if known[name] < 0 else bool(known[name])
    return InterfaceCoverage(**given, **known)


def _told(sees: bool | None) -> int:
    return -1 if sees is None else int(sees)


def _evidence(side: Evidence) -> list[int]:
    return [side.readings, side.counted, side.captured, side.answered]


def _node_in(raw: dict[str, Any]) -> NodeCoverage:
    if raw["v"] != VERSION:
        raise ValueError("another version")
    return NodeCoverage(
        node=raw["node"],
        since_us=raw["since"],
        interfaces=interfaces_of(raw["interfaces"], np.frombuffer(raw["lines"], "<i8").reshape(-1, WIDTH)),
        past=Sums(*(InterfaceCounters(*four) for four in raw["past"])),
        loss=raw["loss"],
    )


def _packets(counters: InterfaceCounters) -> int:
    return counters.tx_packets + counters.rx_packets


def _each(operation: Callable[[int, int], int], one: InterfaceCounters, two: InterfaceCounters) -> InterfaceCounters:
    return InterfaceCounters(
        operation(one.tx_bytes, two.tx_bytes),
        operation(one.tx_packets, two.tx_packets),
        operation(one.rx_bytes, two.rx_bytes),
        operation(one.rx_packets, two.rx_packets),
    )


def _four(counters: InterfaceCounters) -> list[int]:
    return [counters.tx_bytes, counters.tx_packets, counters.rx_bytes, counters.rx_packets]
