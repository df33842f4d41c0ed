"""Whose each observation point is, since when, and what its agent missed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from services.aggregator.directory import Directory, interface_names
from services.aggregator.names import Names
from services.aggregator.point import Gap, Key, Point, Site, Subject, counters_before, gap_between, where
from services.aggregator.rows import Rows
from services.aggregator.sights import Sights
from services.aggregator.stand_ins import StandIns
from services.flows.address import Address, to_words
from services.flows.coverage import plus
from services.flows.delta import Attachment, Batch, Coverage, InterfaceCounters, Window
from services.flows.scope import Ambiguous, Place, Pod
from services.flows.traffic import Identity

PCAP: Final = "pcap"
"""The source whose points carry many pods' traffic: there the local address tells whose it is."""
CGROUP: Final = "cgroup"
"""The source that also tells of who is in the node's network."""
_ADDRESS_ROWS: Final = 50_000
"""Rows that addresses in capture files may open; what exceeds them is the file's own row."""
_LATE_US: Final = 900_000_000
"""For how long batches of other agents may still ask about a point that ended."""
_SILENT_US: Final = 7_200_000_000
"""For how long an agent that died may come back to an interface that survived."""
_SWEEP_US: Final = 10_000_000
_GROUP_SILENT_US: Final = 5_000_000
"""How late the agent that counts by control group may be before the one on links is taken at its word again."""


@dataclass(slots=True)
class Points:
    """All observation points of all agents, and the pods behind them."""

    directory: Directory
    rows: Rows
    names: Names = field(default_factory=Names)
    known: dict[Key, Point] = field(default_factory=dict)
    stand_ins: StandIns = field(default_factory=StandIns)
    of_row: dict[int, dict[Key, Point]] = field(default_factory=dict)
    of_node: dict[str, dict[Key, Point]] = field(default_factory=dict)
    _changed: set[Address] = field(default_factory=set)
    _latest: dict[Site, Key] = field(default_factory=dict)
    _address_rows: int = 0
    _swept_us: int = 0

    def take_changed(self) -> set[Address]:
        """The addresses of which an earlier verdict may be another one now, since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def observe(self, batch: Batch, window: Window) -> list[Gap]:
        """Take the attachments that a window of `batch` reports; what was missed before them."""
        gaps = []
        _, end_us = batch.times(window)
        for attachment in window.attachments:
            key = batch.boot, attachment.id
            point = self.known.get(key)
            if point is None:
                gaps += self._attach(batch, window, attachment)
                point = self.known[key]
            elif (
                attachment.addresses != point.addresses
                or point.asked != self.directory.version(point.addresses)
                or (point.pod is None and self._told(attachment.pod_uid, point.node) is not None)
            ):
                self.stand_ins.drop(point)
                self._changed.update(point.addresses)
                point.addresses, point.pod_uid = attachment.addresses, attachment.pod_uid
                self._identify(key, point)
            point.reported_us = max(point.reported_us, end_us)
            if attachment.detached_us is not None:
                point.detached_us = attachment.detached_us + batch.offset_us
                ended_us = point.detached_us + batch.error_us
                self.directory.released(point.addresses, point.node, ended_us)
                self._changed |= self.stand_ins.end(point, ended_us)
            if attachment.coverage is not point.coverage or not point.open:
                point.coverage = attachment.coverage
                self._show(point)
        return gaps

    def late(self, batch: Batch, window: Window) -> set[int]:
        """Attachments that a window reports, and whose interface another agent has taken over.

        What an agent sent last may arrive after its successor began, whose gap holds it already.
        """
        return {one.id for one in window.attachments if self._is_late(batch, one, window.start_us)}

    def account(self, key: Key, seen: InterfaceCounters) -> None:
        """Note what a window of an observation point brought into the totals."""
        point = self.known[key]
        if point.accounted is not None:
            point.accounted = plus(point.accounted, seen)

    def measure(self, key: Key, measured: Coverage | None) -> None:
        """Take what a point's traffic shows of its coverage; None where it is no less than its agent says."""
        point = self.known[key]
        if measured is not point.measured:
            point.measured = measured
            self._show(point)

    def sights(self, uids: Sequence[str]) -> Sights:
        """What agents told of these pods."""
        return Sights.of([self._of(uid) for uid in uids])

    def watched(self, uid: str) -> bool:
        """Whether an agent sees both directions of a pod's traffic."""
        return any(point.open and point.covered is Coverage.FULL for point in self._of(uid))

    def subject(self, point: Point) -> Subject:
        """Whose the flows of a point are; it stays so until the point's row or pod changes."""
        pod = self.pod_of(point)
        name = self.names.number(self.rows.by_number[point.row].identity.uid)
        own = tuple(map(to_words, self.own_addresses(point.row, pod)))
        as_node = point.source == CGROUP and not own
        point.subject = Subject(point.row, name, pod, own, once=point.source != PCAP, as_node=as_node)
        return point.subject

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self._swept_us += step_us
        self.stand_ins.shift(step_us)
        for point in self.known.values():
            point.shift(step_us)

    def is_due(self, now_us: int) -> bool:
        """Whether it is time to `forget` again."""
        return now_us >= self._swept_us + _SWEEP_US

    def forget(self, now_us: int, kept: Collection[Key] = ()) -> dict[Key, Point]:
        """Drop points that nobody can ask about any more, but none of those `kept`; those that were dropped."""
        self._swept_us, gone = now_us, {}
        for key, point in list(self.known.items()):
            if point.reported_us < now_us - (_SILENT_US if point.open else _LATE_US) and key not in kept:
                gone[key] = self.known.pop(key)
                self.of_row[point.row].pop(key, None)
                self._renew(point.row)
                del self.of_node[point.node][key]
                if self._latest.get(where(point)) == key:
                    del self._latest[where(point)]
                # Another agent's point on the same interface has the same stand-in.
                if not any(where(one) == where(point) for one in self._of_row(point.row)):
                    self._changed |= self.stand_ins.drop(point)
        return gone

    def pod_of(self, point: Point) -> Pod:
        """The pod behind a point: the directory's, else one that is named after the interface."""
        return point.pod or interface_names.pod_behind(self.directory.place(point.node), point.interface)

    def own_addresses(self, row: int, pod: Pod) -> frozenset[Address]:
        """All addresses of a row's pod that anybody knows."""
        seen = (one for point in self._of_row(row) for one in point.addresses)
        return self.directory.addresses(pod) | frozenset(seen)

    def by_group(self, point: Point, start_us: int) -> bool:
        """Whether a control group of the node tells what this point of its pod shows, from then on."""
        return (
            point.source != CGROUP
            and len(self._of_row(point.row)) > 1
            and any(
                one.source == CGROUP
                and one.node == point.node
                and one.open
                and one.from_us <= start_us
                and start_us - one.reported_us < _GROUP_SILENT_US
                for one in self._of_row(point.row)
            )
        )

    def is_ingress(self, row: int) -> bool:
        """Whether a row's pod brings traffic in from outside the cluster."""
        return any(point.pod is not None and point.pod.ingress for point in self._of_row(row))

    def nodes_of(self, row: int) -> set[str]:
        """The nodes on which a row has points."""
        return {point.node for point in self._of_row(row)}

    def by_address(self, point: Point, one: Address | None) -> tuple[int, Pod]:
        """Row and pod of an address behind a point that carries many pods' traffic.

        Without an address (frames that are not IP), and where there are too many, it is the point's own.
        """
        if one is None:
            return point.row, self.pod_of(point)
        try:
            pod = self.directory.pod(one)
        except Ambiguous:
            # Whose of two pods it was nobody knows: it stands for itself.
            pod = None
        pod = pod or Pod(str(one), point.interface, str(one), Place(node=point.node))
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
            coverage=point.covered.value,
            transmit_start_bytes=first.tx_bytes if first else 0,
            received_start_bytes=first.rx_bytes if first else 0,
        )

    def restore(self, stored: Iterable[tuple[int, Point]]) -> None:
        """Take points by attachment as they were stored, after the rows; the directory may know more by now."""
        keys = []
        for number, point in stored:
            key = point.boot, number
            keys.append(key)
            self._add(key, point)
            self.of_row.setdefault(point.row, {})[key] = point
            if not point.replaced:
                self._latest[where(point)] = key
        # Only now, for a row that is merged takes all of its points along.
        for key in keys:
            self._identify(key, self.known[key])

    def _add(self, key: Key, point: Point) -> None:
        self.known[key] = point
        self.of_node.setdefault(point.node, {})[key] = point

    def _of(self, uid: str) -> Collection[Point]:
        return self._of_row(self.rows.by_uid.get(uid, 0))

    def _of_row(self, row: int) -> Collection[Point]:
        points = self.of_row.get(row)
        return points.values() if points else ()

    def _is_late(self, batch: Batch, attachment: Attachment, start_us: int) -> bool:
        point = self.known.get((batch.boot, attachment.id))
        if point is not None:
            return point.replaced
        site = Site(batch.node, batch.machine, attachment.interface, attachment.index)
        latest = self.known.get(self._latest.get(site, ("", 0)))
        if latest is None or latest.boot == batch.boot:
            return False
        # Both times are of one clock that nobody can set. Without counters, as files are, they are not of one interface.
        return latest.first is not None and attachment.first_counters is not None and start_us < latest.began_us

    def _attach(self, batch: Batch, window: Window, attachment: Attachment) -> list[Gap]:
        counters = counters_before(attachment)
        start_us, end_us = batch.times(window)
        point = Point(
            row=0,
            node=batch.node,
            machine=batch.machine,
            boot=batch.boot,
            interface=attachment.interface,
            index=attachment.index,
            source=attachment.source,
            # Agents cut their windows at every attach: what passed earlier in this one nobody could see.
            began_us=window.start_us,
            from_us=start_us,
            reported_us=end_us,
            coverage=attachment.coverage,
            addresses=attachment.addresses,
            pod_uid=attachment.pod_uid,
            first=counters,
            hidden=attachment.hidden,
            accounted=counters,
        )
        key = batch.boot, attachment.id
        before = self.known.get(self._latest.get(where(point), ("", 0)))
        self._latest[where(point)] = key
        self._add(key, point)
        gap = gap_between(key, before, point)
        if before is not None:
            before.replaced = True
        if gap is not None:
            point.from_us = point.gap_from_us = gap.start_us
            point.gap_to_us = gap.end_us
        self._identify(key, point)
        return [gap] if gap is not None and gap.counters.tx_packets + gap.counters.rx_packets else []

    def _identify(self, key: Key, point: Point) -> None:
        """Find out whose a point is, and move or merge its row where that is news."""
        point.asked = self.directory.version(point.addresses)
        before = point.pod
        point.pod = self._known_pod(point) or self._told(point.pod_uid, point.node)
        point.pod = point.pod or self.directory.owner(point.addresses, point.node)
        point.pod = point.pod or before or self._restored(point)
        pod = self.pod_of(point)
        news = bool(point.row)
        if point.pod is None:
            news |= self.stand_ins.claim(point, pod)
        if not point.row:
            point.row = self.rows.open(self.identity(pod, point)).number
        elif pod.uid != self.rows.by_number[point.row].identity.uid:
            self._move(key, point, self.identity(pod, point))
        points = self.of_row.setdefault(point.row, {})
        # The first point of a pod changes no earlier verdict: there is none on its behalf.
        if news or points:
            self._changed.update(point.addresses)
        points[key] = point
        self._renew(point.row)
        self._show(point)

    def _renew(self, row: int) -> None:
        """The points of a row have other addresses, another pod or another row than before."""
        for point in self._of_row(row):
            point.subject = None

    def _known_pod(self, point: Point) -> Pod | None:
        """The point's pod as it is known by now: no other one comes to be behind an interface."""
        return None if point.pod is None else self.directory.known(point.pod)

    def _told(self, uid: str, node: str) -> Pod | None:
        """The pod of a node with the uid that its agent tells, once the directory has it."""
        pod = self.directory.known(Pod(uid, "", "", Place(node))) if uid else None
        return pod if pod is not None and pod.place.node in {"", node} else None

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
            moved = self.of_row.pop(old, {})
            for one in moved.values():
                one.row = target
            self.of_row.setdefault(target, {}).update(moved)
        else:
            # What was booked is the former pod's and stays so.
            self.of_row[old].pop(key, None)
            self._renew(old)
            point.row = self.rows.open(identity).number

    def _show(self, point: Point) -> None:
        """Bring a row's identity up to date; `transmit_start_bytes` stay those of its first point."""
        shown = point
        if not point.open:
            shown = next((one for one in self._of_row(point.row) if one.open), point)
        # All points of a row have one pod, also those that have not found it out yet.
        self.rows.identify(point.row, self._as_before(point.row, self.identity(self.pod_of(point), shown)))

    def _as_before(self, row: int, identity: Identity) -> Identity:
        before = self.rows.by_number[row].identity
        return replace(
            identity,
            transmit_start_bytes=before.transmit_start_bytes,
            received_start_bytes=before.received_start_bytes,
        )
