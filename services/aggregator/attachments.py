"""Whose each observation point is, since when, and what its agent missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from services.aggregator.directory import Directory, interface_names
from services.aggregator.rows import Rows
from services.flows.address import Address
from services.flows.delta import Attachment, Batch, Coverage, InterfaceCounters
from services.flows.scope import Place, Pod
from services.flows.traffic import Identity

PCAP: Final = "pcap"
"""The source whose points carry many pods' traffic: there the local address tells whose it is."""
_ADDRESS_ROWS: Final = 50_000
"""Rows that addresses in capture files may open; what exceeds them is the file's own row."""
_LATE_US: Final = 900_000_000
"""For how long batches of other agents may still ask about a point that ended."""
_SILENT_US: Final = 7_200_000_000
"""For how long an agent that died may come back to an interface that survived."""

Key = tuple[str, int]
"""Boot id and attachment."""


class Sight(Enum):
    """How much of a pod's sending its own agent told us for a window."""

    WHOLE = "whole"
    PART = "part"
    NOTHING = "nothing"


@dataclass(slots=True)
class Point:
    """An observation point as the aggregator holds it; times are Redis microseconds."""

    row: int
    node: str
    boot: str
    interface: str
    index: int
    source: str
    from_us: int
    """Since when all that passed is in the totals."""
    reported_us: int
    """Up to when it is."""
    coverage: Coverage
    detached_us: int | None = None
    """When its interface ended, as far as its agent said so."""
    replaced: bool = False
    """Whether another agent took its interface over."""
    addresses: tuple[Address, ...] = ()
    first: InterfaceCounters | None = None
    """The interface's counters when it was attached."""
    accounted: InterfaceCounters | None = None
    """What they would be if nothing had passed but what is in the totals."""
    gap_from_us: int = 0
    gap_to_us: int = 0
    """The time before it was attached that is booked as `agent-gap`, if there is one."""
    pod: Pod | None = None
    asked: int = -1
    """The directory's generation when it was last asked for the pod."""

    @property
    def open(self) -> bool:
        """Whether its agent may report more of it."""
        return self.detached_us is None and not self.replaced


@dataclass(frozen=True, slots=True)
class Gap:
    """What an interface counted between two moments for which it had no agent."""

    key: Key
    counters: InterfaceCounters
    start_us: int
    end_us: int


@dataclass(slots=True)
class Points:
    """All observation points of all agents, and the pods behind them."""

    directory: Directory
    rows: Rows
    known: dict[Key, Point] = field(default_factory=dict)
    owners: dict[Address, Pod] = field(default_factory=dict)
    """Pods that only their own frames or routes made known."""
    of_row: dict[int, set[Key]] = field(default_factory=dict)
    generation: int = 0
    """Changes whenever an earlier verdict may be another one now."""
    _latest: dict[tuple[str, str, int], Key] = field(default_factory=dict)
    """By node, interface name and index."""
    _address_rows: int = 0

    def pod_at(self, one: Address) -> Pod | None:
        """The pod that an agent saw behind one of its interfaces with this address."""
        return self.owners.get(one)

    def observe(self, batch: Batch, attachments: tuple[Attachment, ...], start_us: int, end_us: int) -> list[Gap]:
        """Take the attachments that a window of `batch` reports; what was missed before them."""
        gaps = []
        for attachment in attachments:
            key = batch.boot, attachment.id
            point = self.known.get(key)
            if point is None:
                gaps += self._attach(batch, attachment, start_us, end_us)
                point = self.known[key]
            elif attachment.addresses != point.addresses or point.asked != self.directory.generation:
                self._disown(point)
                point.addresses = attachment.addresses
                self._identify(key, point)
            point.reported_us = max(point.reported_us, end_us)
            if attachment.detached_us is not None:
                point.detached_us = attachment.detached_us + batch.offset_us
            if attachment.coverage is not point.coverage or not point.open:
                point.coverage = attachment.coverage
                self._show(point)
        return gaps

    def account(self, key: Key, seen: InterfaceCounters) -> None:
        """Note what a window of an observation point brought into the totals."""
        point = self.known[key]
        if point.accounted is not None:
            point.accounted = _sum(point.accounted, seen)

    def sight(self, uid: str, start_us: int, end_us: int) -> Sight:
        """How much of what a pod sent between two moments is in the totals as its own.

        A point that sees only what leaves its pod counts as well: that is all that is asked.
        """
        seen = Sight.NOTHING
        for point in self._of(uid):
            if point.coverage is Coverage.NONE:
                continue
            if point.from_us <= start_us and end_us <= point.reported_us:
                return Sight.WHOLE
            if point.from_us < end_us and start_us < point.reported_us:
                seen = Sight.PART
        return seen

    def expected(self, uid: str, end_us: int) -> bool:
        """Whether an agent may still report what a pod did up to `end_us`."""
        return any(
            point.open and point.coverage is not Coverage.NONE and point.from_us < end_us and point.reported_us < end_us
            for point in self._of(uid)
        )

    def in_gap(self, uid: str, start_us: int, end_us: int) -> bool:
        """Whether what reached a pod in this window is booked as a gap of its agent, in part at least."""
        return any(point.gap_from_us < end_us and start_us < point.gap_to_us for point in self._of(uid))

    def forget(self, now_us: int) -> None:
        """Drop points that nobody can ask about any more."""
        for key, point in list(self.known.items()):
            if point.reported_us < now_us - (_SILENT_US if point.open else _LATE_US):
                del self.known[key]
                self.of_row[point.row].discard(key)
                where = _where(point)
                if self._latest.get(where) == key:
                    del self._latest[where]
                self._disown(point)

    def pod_of(self, point: Point) -> Pod:
        """The pod behind a point: the directory's, else one that is named after the interface."""
        return point.pod or interface_names.pod_behind(point.node, point.interface)

    def own_addresses(self, row: int, pod: Pod) -> frozenset[Address]:
        """All addresses of a row's pod that anybody knows."""
        seen = (one for key in self.of_row.get(row, ()) for one in self.known[key].addresses)
        return self.directory.addresses(pod) | frozenset(seen)

    def nodes_of(self, row: int) -> set[str]:
        """The nodes on which a row has points."""
        return {self.known[key].node for key in self.of_row.get(row, ())}

    def by_address(self, point: Point, one: Address | None) -> tuple[int, Pod]:
        """Row and pod of an address behind a point that carries many pods' traffic.

        Without an address (frames that are not IP), and where there are too many, it is the point's own.
        """
        if one is None:
            return point.row, self.pod_of(point)
        pod = self.directory.pod(one) or Pod(str(one), point.interface, str(one), Place(node=point.node))
        row = self.rows.by_uid.get(pod.uid)
        if row is None:
            if self._address_rows >= _ADDRESS_ROWS:
                return point.row, self.pod_of(point)
            self._address_rows += 1
            row = self.rows.open(self.identity(pod, replace(point, addresses=(one,)))).number
        return row, pod

    def identity(self, pod: Pod, point: Point) -> Identity:
        """What is shown of a pod behind an observation point."""
        details = self.directory.details(pod)
        addresses = self.directory.addresses(pod) or frozenset(point.addresses)
        listed = tuple(sorted(map(str, addresses), key=lambda text: (":" in text, text)))
        first = point.first
        return Identity(
            uid=pod.uid,
            namespace=pod.namespace,
            pod=pod.name,
            node=pod.place.node or point.node,
            zone=pod.place.zone,
            region=pod.place.region,
            ip=listed[0] if listed else "",
            ips=listed,
            interface=point.interface,
            owner_kind=details.owner_kind,
            owner_name=details.owner_name,
            labels=pod.labels,
            container_id=details.container_id,
            started_us=details.started_us,
            gone_us=point.detached_us or 0,
            coverage=point.coverage.value,
            transmit_start_bytes=first.tx_bytes if first else 0,
            received_start_bytes=first.rx_bytes if first else 0,
        )

    def restore(self, stored: Iterable[tuple[int, Point]]) -> None:
        """Take points by attachment as they were stored, after the rows; the directory may know more by now."""
        keys = []
        for number, point in stored:
            key = point.boot, number
            keys.append(key)
            self.known[key] = point
            self.of_row.setdefault(point.row, set()).add(key)
            latest = self.known.get(self._latest.get(_where(point), ("", 0)))
            if latest is None or latest.reported_us <= point.reported_us:
                self._latest[_where(point)] = key
        # Only now, for a row that is merged takes all of its points along.
        for key in keys:
            self._identify(key, self.known[key])

    def _of(self, uid: str) -> list[Point]:
        row = self.rows.by_uid.get(uid, 0)
        return [self.known[key] for key in self.of_row.get(row, ())]

    def _attach(self, batch: Batch, attachment: Attachment, start_us: int, end_us: int) -> list[Gap]:
        point = Point(
            row=0,
            node=batch.node,
            boot=batch.boot,
            interface=attachment.interface,
            index=attachment.index,
            source=attachment.source,
            # Agents cut their windows at every attach: what passed earlier in this one nobody could see.
            from_us=start_us,
            reported_us=end_us,
            coverage=attachment.coverage,
            addresses=attachment.addresses,
            first=attachment.first_counters,
            accounted=attachment.first_counters,
        )
        key = batch.boot, attachment.id
        before = self.known.get(self._latest.get(_where(point), ("", 0)))
        self._latest[_where(point)] = key
        self.known[key] = point
        gap = _gap(key, before, point)
        if before is not None:
            before.replaced = True
        if gap is not None:
            point.from_us = point.gap_from_us = gap.start_us
            point.gap_to_us = gap.end_us
        self._identify(key, point)
        return [gap] if gap is not None and gap.counters.tx_packets + gap.counters.rx_packets else []

    def _identify(self, key: Key, point: Point) -> None:
        """Find out whose a point is, and move or merge its row where that is news."""
        point.asked = self.directory.generation
        point.pod = self.directory.owner(point.addresses, point.node) or point.pod or self._restored(point)
        pod = self.pod_of(point)
        news = bool(point.row)
        if point.pod is None:
            for one in point.addresses:
                news |= self.owners.setdefault(one, pod) is pod
        if not point.row:
            point.row = self.rows.open(self.identity(pod, point)).number
        elif pod.uid != self.rows.by_number[point.row].identity.uid:
            self._move(key, point, self.identity(pod, point))
        points = self.of_row.setdefault(point.row, set())
        # The first point of a pod changes no earlier verdict: there is none on its behalf.
        if news or points:
            self.generation += 1
        points.add(key)
        self._show(point)

    def _restored(self, point: Point) -> Pod | None:
        """The pod that a stored row names, where addresses no longer tell it."""
        if not point.row:
            return None
        who = self.rows.by_number[point.row].identity
        if interface_names.is_behind(who.uid, point.node, point.interface):
            return None
        return Pod(who.uid, who.namespace, who.pod, Place(who.node, who.zone, who.region), who.labels)

    def _move(self, key: Key, point: Point, identity: Identity) -> None:
        """A point's row turns out to be another one."""
        old, target = point.row, self.rows.by_uid.get(identity.uid)
        stand_in = interface_names.is_behind(self.rows.by_number[old].identity.uid, point.node, point.interface)
        if stand_in and target is None:
            self.rows.identify(old, self._as_before(old, identity))
        elif stand_in and target is not None:
            self.rows.merge(old, target)
            for moved in self.of_row.pop(old, ()):
                self.known[moved].row = target
                self.of_row.setdefault(target, set()).add(moved)
        else:
            # What was booked is the former pod's and stays so.
            self.of_row[old].discard(key)
            point.row = self.rows.open(identity).number

    def _show(self, point: Point) -> None:
        """Bring a row's identity up to date; `transmit_start_bytes` stay those of its first point."""
        shown = point
        if not point.open:
            others = [self.known[key] for key in self.of_row.get(point.row, ())]
            shown = next((one for one in others if one.open), point)
        # All points of a row have one pod, also those that have not found it out yet.
        self.rows.identify(point.row, self._as_before(point.row, self.identity(self.pod_of(point), shown)))

    def _as_before(self, row: int, identity: Identity) -> Identity:
        before = self.rows.by_number[row].identity
        return replace(
            identity,
            transmit_start_bytes=before.transmit_start_bytes,
            received_start_bytes=before.received_start_bytes,
        )

    def _disown(self, point: Point) -> None:
        for one in point.addresses:
            owner = self.owners.get(one)
            if owner is not None and interface_names.is_behind(owner.uid, point.node, point.interface):
                del self.owners[one]
                self.generation += 1


def _where(point: Point) -> tuple[str, str, int]:
    return point.node, point.interface, point.index


def _gap(key: Key, before: Point | None, point: Point) -> Gap | None:
    """What passed between two agents' points on one interface; None where its counters do not go on."""
    if before is None or before.accounted is None or point.first is None:
        return None
    if before.detached_us is not None:
        # That interface ended: one of the same name and index is another one.
        return None
    missed = _difference(point.first, before.accounted)
    if missed is None:
        return None
    return Gap(key, missed, before.reported_us, max(point.from_us, before.reported_us))


def _sum(one: InterfaceCounters, two: InterfaceCounters) -> InterfaceCounters:
    return InterfaceCounters(
        one.tx_bytes + two.tx_bytes,
        one.tx_packets + two.tx_packets,
        one.rx_bytes + two.rx_bytes,
        one.rx_packets + two.rx_packets,
    )


def _difference(now: InterfaceCounters, before: InterfaceCounters) -> InterfaceCounters | None:
    """What was counted in between; None where the counters began anew."""
    missed = InterfaceCounters(
        now.tx_bytes - before.tx_bytes,
        now.tx_packets - before.tx_packets,
        now.rx_bytes - before.rx_bytes,
        now.rx_packets - before.rx_packets,
    )
    lowest = min(missed.tx_bytes, missed.tx_packets, missed.rx_bytes, missed.rx_packets)
    return missed if lowest >= 0 else None
