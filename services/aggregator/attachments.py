"""Whose each observation point is, since when, and what its agent missed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from services.aggregator.directory import Directory
from services.aggregator.rows import Rows
from services.flows import address
from services.flows.address import Address
from services.flows.delta import Attachment, Batch, Coverage, InterfaceCounters
from services.flows.scope import Place, Pod
from services.flows.traffic import Identity

LOCAL_NAMESPACE = "local"
"""Namespace of rows that are named after their interface, because nobody knows a pod."""


@dataclass(slots=True)
class Point:
    """An observation point as the aggregator holds it; times are Redis microseconds."""

    row: int
    node: str
    boot: str
    interface: str
    index: int
    source: str
    attached_us: int
    detached_us: int | None
    reported_us: int
    """Up to when its agent reported."""
    coverage: Coverage
    addresses: tuple[Address, ...] = ()
    first: InterfaceCounters | None = None
    """The interface's counters when it was attached."""
    accounted: InterfaceCounters | None = None
    """What they would be if nothing had passed but what is in the totals."""
    pod: Pod | None = None
    asked: int = -1
    """The directory's generation when it was last asked for the pod."""


@dataclass(slots=True)
class Gap:
    """Bytes that an interface counted while its agent was dead."""

    row: int
    counters: InterfaceCounters


@dataclass(slots=True)
class Points:
    """All observation points of all agents, and the pods behind them."""

    directory: Directory
    rows: Rows
    known: dict[tuple[str, int], Point] = field(default_factory=dict)
    """By boot id and attachment."""
    owners: dict[Address, Pod] = field(default_factory=dict)
    """Pods that only their own frames or routes made known."""
    of_row: dict[int, set[tuple[str, int]]] = field(default_factory=dict)
    generation: int = 0
    """Changes whenever an earlier verdict may be another one now."""

    def pod_at(self, one: Address) -> Pod | None:
        """The pod that an agent saw behind one of its interfaces with this address."""
        return self.owners.get(one)

    def observe(self, batch: Batch, attachment: Attachment, end_us: int) -> Gap | None:
        """Take an attachment as a window of `batch` that ended at `end_us` reports it."""
        key = batch.boot, attachment.id
        point = self.known.get(key)
        gap = None
        if point is None:
            gap = self._attach(batch, attachment, end_us)
            point = self.known[key]
        elif attachment.addresses != point.addresses or point.asked != self.directory.generation:
            point.addresses = attachment.addresses
            self._identify(key, point)
        point.reported_us = end_us
        point.coverage = attachment.coverage
        if attachment.detached_us is not None:
            point.detached_us = attachment.detached_us + batch.offset_us
        return gap

    def account(self, boot: str, attachment: int, seen: InterfaceCounters) -> None:
        """Note what a window of an observation point brought into the totals."""
        point = self.known[boot, attachment]
        if point.accounted is not None:
            point.accounted = _sum(point.accounted, seen)

    def covers(self, row: int, start_us: int, end_us: int) -> bool:
        """Whether an agent saw all of the row's traffic between two moments."""
        return any(
            point.coverage is Coverage.FULL
            and point.attached_us <= start_us
            and (point.detached_us is None or end_us <= point.detached_us)
            and end_us <= point.reported_us
            for point in (self.known[key] for key in self.of_row.get(row, ()))
        )

    def expected(self, row: int, start_us: int) -> bool:
        """Whether an agent may still report that it saw the row's traffic after `start_us`."""
        return any(
            point.coverage is Coverage.FULL and point.detached_us is None and point.attached_us <= start_us
            for point in (self.known[key] for key in self.of_row.get(row, ()))
        )

    def forget(self, before_us: int) -> None:
        """Drop points that ended before a moment, and those of agents silent since then."""
        for key, point in list(self.known.items()):
            if max(point.reported_us, point.detached_us or 0) < before_us:
                del self.known[key]
                self.of_row[point.row].discard(key)
                self._disown(point)

    def pod_of(self, point: Point) -> Pod:
        """The pod behind a point: the directory's, else one that is named after the interface."""
        return point.pod or Pod(
            f"{point.node}/{point.interface}", LOCAL_NAMESPACE, point.interface, Place(node=point.node)
        )

    def by_address(self, point: Point, one: Address | None) -> tuple[int, Pod]:
        """Row and pod of an address behind a point that carries many pods' traffic.

        Without an address (frames that are not IP) the row is the point's own.
        """
        if one is None:
            return point.row, self.pod_of(point)
        pod = self.directory.pod(one) or Pod(str(one), point.interface, str(one), Place(node=point.node))
        row = self.rows.by_uid.get(pod.uid)
        if row is None:
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
            coverage=point.coverage.value,
            transmit_start_bytes=first.tx_bytes if first else 0,
            received_start_bytes=first.rx_bytes if first else 0,
        )

    def _attach(self, batch: Batch, attachment: Attachment, end_us: int) -> Gap | None:
        before = self._previous(batch, attachment)
        point = Point(
            row=0,
            node=batch.node,
            boot=batch.boot,
            interface=attachment.interface,
            index=attachment.index,
            source=attachment.source,
            attached_us=attachment.attached_us + batch.offset_us,
            detached_us=None,
            reported_us=end_us,
            coverage=attachment.coverage,
            addresses=attachment.addresses,
            first=attachment.first_counters,
            accounted=attachment.first_counters,
        )
        key = batch.boot, attachment.id
        self.known[key] = point
        self._identify(key, point)
        if before is None or before.accounted is None or attachment.first_counters is None:
            return None
        missed = _difference(attachment.first_counters, before.accounted)
        return Gap(point.row, missed) if missed and missed.tx_packets + missed.rx_packets else None

    def _previous(self, batch: Batch, attachment: Attachment) -> Point | None:
        """The point on the same interface of an agent that died; it ends here."""
        for point in self.known.values():
            same = point.node, point.interface, point.index
            if same == (batch.node, attachment.interface, attachment.index) and point.detached_us is None:
                point.detached_us = point.reported_us
                return point
        return None

    def _identify(self, key: tuple[str, int], point: Point) -> None:
        """Find out whose a point is, and move or merge its row where that is news."""
        found = self.directory.owner(point.addresses, point.node)
        self._disown(point)
        point.pod, point.asked = found, self.directory.generation
        pod = self.pod_of(point)
        if found is None:
            for one in point.addresses:
                self.owners.setdefault(one, pod)
        identity = self.identity(pod, point)
        if not point.row:
            point.row = self.rows.open(identity).number
        elif identity.uid != self.rows.by_number[point.row].identity.uid:
            self._move(point, identity)
        self.of_row.setdefault(point.row, set()).add(key)
        before = self.rows.by_number[point.row].identity
        self.rows.identify(
            point.row,
            replace(
                identity,
                transmit_start_bytes=before.transmit_start_bytes,
                received_start_bytes=before.received_start_bytes,
            ),
        )
        self.generation += 1

    def _move(self, point: Point, identity: Identity) -> None:
        """A row that was named after an interface belongs to a pod."""
        old, target = point.row, self.rows.by_uid.get(identity.uid)
        if target is None:
            self.rows.identify(old, identity)
            return
        self.rows.merge(old, target)
        for moved in self.of_row.pop(old, ()):
            self.known[moved].row = target
            self.of_row.setdefault(target, set()).add(moved)

    def _disown(self, point: Point) -> None:
        for one in point.addresses:
            owner = self.owners.get(one)
            if owner is not None and owner.uid == f"{point.node}/{point.interface}":
                del self.owners[one]
                self.generation += 1

    def stored(self, node: str) -> list[dict[str, Any]]:
        """A node's points as plain values, for the store."""
        out = []
        for (_, number), point in self.known.items():
            if point.node != node:
                continue
            raw = asdict(point)
            del raw["pod"], raw["asked"]
            out.append(
                raw
                | {
                    "id": number,
                    "addresses": [address.to_bytes(one) for one in point.addresses],
                    "coverage": point.coverage.value,
                }
            )
        return out

    def restore(self, stored: list[dict[str, Any]]) -> None:
        """Take what `stored` gave, after the rows were restored."""
        for raw in stored:
            number = raw.pop("id")
            point = Point(
                **{
                    **raw,
                    "addresses": tuple(map(address.from_bytes, raw["addresses"])),
                    "coverage": Coverage(raw["coverage"]),
                    "first": _counters(raw["first"]),
                    "accounted": _counters(raw["accounted"]),
                }
            )
            key = point.boot, number
            self.known[key] = point
            self._identify(key, point)


def _counters(raw: dict[str, int] | None) -> InterfaceCounters | None:
    return None if raw is None else InterfaceCounters(**raw)


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
