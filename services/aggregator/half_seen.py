"""Books what pods exchanged past the sources that watch them: as far as others on their node sent it, as theirs.

A pod that a node's agent also sees by its control groups is seen whole by that: what its link shows is not booked again.

An agent tells what a pod's own interface counted beyond the node's end of its link (`Kind.HIDDEN`), read after the
window was drained. So a window's part of that holds all that the node's other pods were seen to send to the pod within
the window, and perhaps a little that they sent later: what is left of it waits for the next window. Who may not read
pods' own interfaces tells nothing; then what others sent is taken as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from services.aggregator.attachments import PCAP, Points
from services.aggregator.backing import Backing
from services.aggregator.booking import Booked, Told
from services.aggregator.cluster_totals import Accounts
from services.aggregator.point import Key, Point
from services.aggregator.sums import Mask, Numbers, Table
from services.aggregator.verdicts import Label, Labels
from services.flows.coverage import beyond, least, plus
from services.flows.delta import BESIDE, FLOW_KEY, NOTHING, Attachment, InterfaceCounters, Kind, Side
from services.flows.scope import SCOPES, Rule, Scope
from services.flows.table import by_attachment
from services.flows.traffic import ROW_COUNTERS, VIA_INGRESS, Counted, unseen_counts

_AT: Final = {name: at for at, name in enumerate(ROW_COUNTERS)}
_TX, _RX = ([_AT[name] for name in ROW_COUNTERS if name.startswith(way)] for way in ("tx", "rx"))
_BYTES, _PACKETS = _AT["tx_bytes"], _AT["tx_packets"]
_RULES: Final = {Kind.HIDDEN: Rule.HIDDEN_DATAPATH, Kind.NO_SOCKET: Rule.NO_SOCKET}
_OTHER_SIDE: Final = np.array([Side.NONE, Side.PEER, Side.LOCAL], np.uint8)


class _Pod(NamedTuple):
    """A pod of a window, of which something passes unseen."""

    at: int
    """The place of its window."""
    key: Key
    point: Point
    name: int
    """The number of its uid."""
    hidden: InterfaceCounters
    """What passed unseen in its window."""
    ends: bool


class _Entries(NamedTuple):
    """What is to be booked, by column."""

    keys: list[np.void]
    counts: list[list[int]]
    windows: list[int]
    scopes: list[int]


@dataclass(frozen=True, slots=True)
class HalfSeen:
    """Knows whose traffic passes unseen, by what agents tell and by the points' coverage."""

    points: Points
    labels: Labels
    backing: Backing
    accounts: Accounts

    def apart(self, told: Sequence[Told]) -> tuple[list[Told], list[_Pod], list[_Pod]]:
        """Windows without what no source saw, the pods that are half seen, and what no socket had."""
        seen, half, without = [], [], []
        for at, one in enumerate(told):
            one = self._once(one)  # noqa: PLW2901  # the rest was booked already
            unseen = one.flows["kind"] >= BESIDE
            amounts: dict[Kind, dict[int, InterfaceCounters]] = {}
            if unseen.any():
                rows = one.flows[unseen]
                amounts = {kind: by_attachment(rows[rows["kind"] == kind]) for kind in _RULES}
            seen.append(one._replace(flows=one.flows[~unseen]) if amounts else one)
            hidden, socketless = amounts.get(Kind.HIDDEN, {}), amounts.get(Kind.NO_SOCKET, {})
            for attachment in one.window.attachments:
                key = one.batch.boot, attachment.id
                point = self.points.known.get(key)
                if point is None:
                    continue
                if attachment.id in socketless:
                    without.append(self._pod(at, key, attachment, socketless[attachment.id]))
                if self.points.by_group(point, one.batch.times(one.window)[0]):
                    continue
                if attachment.id in hidden or point.left != NOTHING or not point.covered.sees_ingress:
                    half.append(self._pod(at, key, attachment, hidden.get(attachment.id, NOTHING)))
        return seen, half, without

    def book(self, booked: Booked, half: Sequence[_Pod], without: Sequence[_Pod]) -> Booked | None:
        """What pods received of others on their node, and what of the rest is not to wait any longer."""
        found = _Entries([], [], [], [])
        for pod, sent in zip(half, _sent_to(booked, half), strict=True):
            self._half(found, booked, pod, sent)
        for pod in without:
            self._rest(found, booked, pod, pod.hidden, Kind.NO_SOCKET)
        return _booked(booked, found) if found.keys else None

    def _once(self, told: Told) -> Told:
        """A window without what its pods' control groups tell as well."""
        known = self.points.known
        start, _ = told.batch.times(told.window)
        twice = [
            entry.id
            for entry in told.window.attachments
            if (point := known.get((told.batch.boot, entry.id))) is not None and self.points.by_group(point, start)
        ]
        if not twice:
            return told
        dropped = np.isin(told.flows["attachment"], twice)
        hidden = by_attachment(told.flows[dropped & (told.flows["kind"] >= BESIDE)])
        for number, counters in hidden.items():
            self.points.account((told.batch.boot, number), counters)
        rows = told.flows[dropped]
        self.accounts.overlap_bytes += int(rows["tx_bytes"].sum() + rows["rx_bytes"].sum())
        return told._replace(flows=told.flows[~dropped])

    def _pod(self, at: int, key: Key, attachment: Attachment, counters: InterfaceCounters) -> _Pod:
        point = self.points.known[key]
        subject = point.subject or self.points.subject(point)
        return _Pod(at, key, point, subject.name, counters, attachment.detached_us is not None)

    def _half(self, found: _Entries, booked: Booked, pod: _Pod, sent: Numbers) -> None:
        """Book one pod's window."""
        point = pod.point
        point.hides |= pod.hidden.rx_packets > 0
        before, all_ = point.left, plus(point.left, pod.hidden)
        taken = self._from_senders(found, booked, pod, sent, all_ if point.hides else None)
        if not point.hides:
            taken = NOTHING
        rest = beyond(all_ if pod.ends else least(before, all_), taken)
        point.left = beyond(beyond(all_, taken), rest)
        self.points.account(pod.key, plus(taken, rest))
        if rest != NOTHING:
            self._rest(found, booked, pod, rest, Kind.HIDDEN)

    def _from_senders(
        self, found: _Entries, booked: Booked, pod: _Pod, sent: Numbers, limit: InterfaceCounters | None
    ) -> InterfaceCounters:
        """Book what others were seen to send to a pod, no more than it got; how much that is."""
        left = None if limit is None else [limit.rx_bytes, limit.rx_packets]
        bytes_ = packets = 0
        for at in sent[np.argsort(booked.counts[sent, _BYTES])[::-1]].tolist():
            counts = booked.counts[at].tolist()
            if left is not None:
                counts = _within(counts, *left)
                left = [left[0] - counts[_BYTES], left[1] - counts[_PACKETS]]
            if not counts[_PACKETS]:
                continue
            key = self._mirrored(booked, at, pod)
            received = _received(counts, ingress=bool(key[1]))
            _add(found, key[0], received, pod.at, Scope.SAME_NODE)
            bytes_, packets = bytes_ + counts[_BYTES], packets + counts[_PACKETS]
        if packets:
            self.accounts.attributed(self.points.names.known[pod.name], bytes_, packets)
        return InterfaceCounters(0, 0, bytes_, packets)

    def _mirrored(self, booked: Booked, at: int, pod: _Pod) -> tuple[np.void, bool]:
        """The key of what another pod sent, as the pod that received it has it; whether that was an ingress."""
        key = booked.keys[at].copy()
        sender = self.points.rows.by_number[int(key["attachment"])].identity
        server = _OTHER_SIDE[int(key["server"])]
        ingress = server != Side.PEER and self.points.is_ingress(int(key["attachment"]))
        key["attachment"], key["server"] = pod.point.row, server
        key["peer_hi"], key["peer_lo"] = booked.local_hi[at], booked.local_lo[at]
        key["local_hi"] = key["local_lo"] = 0
        label = Label(
            Scope.SAME_NODE,
            Rule.SEEN_AT_SENDER.value,
            sender.pod,
            sender.namespace,
            "pod",
            VIA_INGRESS if ingress else "",
            Counted.THERE,
        )
        key["reserved3"] = self.labels.number(label)
        return key, ingress

    def _rest(self, found: _Entries, booked: Booked, pod: _Pod, rest: InterfaceCounters, kind: Kind) -> None:
        """Book what nobody saw."""
        key = np.zeros(1, FLOW_KEY)[0]
        key["attachment"], key["kind"] = pod.point.row, Kind.FOLDED
        key["reserved3"] = self.labels.number(Label(Scope.UNKNOWN, _RULES[kind].value))
        _add(found, key, unseen_counts(rest), pod.at, Scope.UNKNOWN)
        start, end = booked.times[pod.at]
        sent = rest if kind is Kind.HIDDEN else InterfaceCounters(rest.tx_bytes, rest.tx_packets, 0, 0)
        if self.backing.may_be_at_clients(pod.point.addresses, start, end) and kind is Kind.HIDDEN:
            self.accounts.overlap_bytes += rest.tx_bytes + rest.rx_bytes
        else:
            self.accounts.hide(self.points.names.known[pod.name], end, sent)


def _sent_to(booked: Booked, half: Sequence[_Pod]) -> list[Numbers]:
    """For each pod the entries in which others on its node were seen to send it something."""
    none = np.zeros(0, np.int64)
    if not half:
        return []
    wanted = np.array([pod.at << 32 | pod.name for pod in half], np.int64)
    from_other: Mask = (booked.others != 0) & (booked.others != booked.mine) & (booked.counts[:, _PACKETS] > 0)
    entries = np.flatnonzero(from_other)
    keys = booked.windows[entries] << 32 | booked.others[entries]
    entries, keys = entries[np.isin(keys, wanted)], keys[np.isin(keys, wanted)]
    taken: set[int] = set()
    found = []
    for pod, key in zip(half, wanted.tolist(), strict=True):
        # Of two interfaces of a pod one has it.
        mine = key not in taken and pod.point.source != PCAP
        taken.add(key)
        found.append(entries[keys == key] if mine else none)
    return found


def _within(counts: list[int], bytes_: int, packets: int) -> list[int]:
    """As much of the counters as there is room for."""
    if counts[_BYTES] <= bytes_ and counts[_PACKETS] <= packets:
        return counts
    part, whole = bytes_, counts[_BYTES]
    if packets * whole < bytes_ * counts[_PACKETS]:
        part, whole = packets, counts[_PACKETS]
    return [value * part // whole for value in counts] if whole else [0] * len(counts)


def _received(counts: list[int], *, ingress: bool) -> list[int]:
    """What was sent, from the receiver's view."""
    received = [0] * len(counts)
    for rx, tx in zip(_RX, _TX, strict=True):
        received[rx] = counts[tx]
    part = _AT["rx_bytes"], _AT["rx_other_bytes"]
    received[_AT["rx_ingress_bytes"]] = received[part[0]] - received[part[1]] if ingress else 0
    return received


def _add(found: _Entries, key: np.void, counts: list[int], window: int, scope: Scope) -> None:
    found.keys.append(key)
    found.counts.append(counts)
    found.windows.append(window)
    found.scopes.append(SCOPES.index(scope))


def _booked(booked: Booked, found: _Entries) -> Booked:
    """The entries by column."""
    windows = np.array(found.windows, np.int64)
    times = np.array(booked.times, np.int64).reshape(-1, 2)
    counts: Table = np.array(found.counts, np.uint64, order="F")
    nobody = np.zeros(len(windows), np.int64)
    words = np.zeros(len(windows), np.uint64)
    return Booked(
        names=booked.names,
        keys=np.array(found.keys, FLOW_KEY),
        counts=counts,
        windows=windows,
        starts=times[windows, 0],
        ends=times[windows, 1],
        scopes=np.array(found.scopes, np.int64),
        counted=nobody,
        mine=nobody,
        others=nobody,
        local_hi=words,
        local_lo=words,
        times=booked.times,
    )
