"""One observation point: an interface that an agent watched, since when, and what was missed before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from services.flows.address import Address
from services.flows.coverage import beyond, plus, went_on
from services.flows.delta import NOTHING, Attachment, Coverage, InterfaceCounters
from services.flows.scope import Pod

Key = tuple[str, int]
"""Boot id and attachment."""


class Subject(NamedTuple):
    """Whose flows are: the number of a row, that of its pod's uid, the pod, and the words of all its addresses."""

    row: int
    name: int
    pod: Pod
    own: tuple[tuple[int, int], ...]
    once: bool
    """Whether the other end's agent may report the same bytes."""
    as_node: bool = False
    """Whether others see its node at their other end, since it has no address of its own."""


@dataclass(slots=True)
class Point:
    """An observation point as the aggregator holds it; times are Redis microseconds but where it says so."""

    row: int
    node: str
    machine: str
    boot: str
    interface: str
    index: int
    source: str
    began_us: int
    """When its agent began to watch it, by the monotonic clock of its machine's run."""
    from_us: int
    """Since when all that passed is in the totals."""
    reported_us: int
    """Up to when it is."""
    coverage: Coverage
    detached_us: int | None = None
    """When its interface ended, as far as its agent said so."""
    replaced: bool = False
    """Whether another agent took its interface over: what comes of it later is in that one's gap."""
    addresses: tuple[Address, ...] = ()
    first: InterfaceCounters | None = None
    """The interface's counters when these totals began to have what passed: as a rule when it was attached."""
    accounted: InterfaceCounters | None = None
    """What they would be if nothing had passed but what is in the totals."""
    gap_from_us: int = 0
    gap_to_us: int = 0
    """The time before it was attached that is booked as `agent-gap`, if there is one."""
    measured: Coverage | None = None
    """What its traffic shows of its coverage, where that is less than `coverage` says."""
    pod: Pod | None = None
    pod_uid: str = field(default="", compare=False)
    """Its pod's, where its agent tells that."""
    hides: bool = False
    """Whether its agent told that what the pod received did not pass the node's end of its link."""
    hidden: InterfaceCounters | None = None
    """What of `first` did not pass the node's end of its link; None where `first` is that end's own."""
    left: InterfaceCounters = NOTHING
    """What passed unseen and is to be booked with the next window."""
    asked: int = -1
    """The directory's version of its addresses when it was last asked for the pod."""
    subject: Subject | None = field(default=None, compare=False)
    """Whose its flows are, once that was asked for."""

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self.from_us += step_us
        self.reported_us += step_us
        if self.detached_us is not None:
            self.detached_us += step_us
        if self.gap_to_us:
            self.gap_from_us += step_us
            self.gap_to_us += step_us

    @property
    def open(self) -> bool:
        """Whether its agent may report more of it."""
        return self.detached_us is None and not self.replaced

    @property
    def covered(self) -> Coverage:
        """How much of its pod's traffic it sees, as far as anybody knows."""
        return self.measured or self.coverage


@dataclass(frozen=True, slots=True)
class Gap:
    """What an interface counted between two moments for which it had no agent."""

    key: Key
    counters: InterfaceCounters
    start_us: int
    end_us: int


class Site(NamedTuple):
    """What a point has in common with those before and after it on the same interface."""

    node: str
    machine: str
    interface: str
    ifindex: int


def where(point: Point) -> Site:
    """The interface of a point."""
    return Site(point.node, point.machine, point.interface, point.index)


def counters_before(attachment: Attachment) -> InterfaceCounters | None:
    """An interface's counters before a window, as if nothing had passed since it was attached but what was captured.

    An agent that lives through a new session, or through a commit that it saw and this session has not, reports an
    interface in the middle: what it had told before is another session's.
    """
    return None if attachment.first_counters is None else plus(attachment.first_counters, attachment.passed)


def first_alike(before: Point, first: InterfaceCounters, hidden: InterfaceCounters | None) -> InterfaceCounters:
    """An agent's first counters of an interface as the agent of the point before would have read them.

    An agent that may not read the pod's own end of a link counts from the node's: what its successor, which may, finds
    to have passed unseen (`hidden`) had passed since the link was made, and is in no gap.
    """
    of_node = before.hidden is None and not before.hides
    return beyond(first, hidden) if of_node and hidden is not None else first


def gap_between(key: Key, before: Point | None, point: Point) -> Gap | None:
    """What passed between two agents' points on one interface; None where its counters do not go on."""
    if before is None or before.accounted is None or point.first is None:
        return None
    if before.detached_us is not None:
        # That interface ended: one of the same name and index is another one.
        return None
    first = first_alike(before, point.first, point.hidden)
    if not went_on(before.accounted, first):
        return None
    return Gap(key, beyond(first, before.accounted), before.reported_us, max(point.from_us, before.reported_us))
