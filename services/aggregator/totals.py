"""Books the windows of batches: on rows, peers, history and the cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from services.aggregator.attachments import Gap, Points
from services.aggregator.booking import Between, Booked, book
from services.aggregator.directory import Directory
from services.aggregator.gaps import Gaps
from services.aggregator.history import History
from services.aggregator.once import Once, Receipt
from services.aggregator.peers import Peers
from services.aggregator.rows import Rows
from services.aggregator.verdicts import Label, Verdicts
from services.flows.delta import Batch, InterfaceCounters, Window
from services.flows.scope import Rule, Scope
from services.flows.table import sum_by
from services.flows.traffic import ROW_COUNTERS, ByScope, Counts, NodeReport, Tick, add_scopes, no_counts

_AT: Final = {name: at for at, name in enumerate(ROW_COUNTERS)}
_TX: Final = tuple(name.startswith("tx_") for name in ROW_COUNTERS)
_SEEN: Final = ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")
"""What `InterfaceCounters` counts, in its order."""


@dataclass(slots=True)
class Totals:
    """The session's totals; everything in it is the result of `apply` and `settle` alone."""

    directory: Directory
    peers_per_pod: int
    rows: Rows = field(default_factory=Rows)
    points: Points = field(init=False)
    verdicts: Verdicts = field(init=False)
    peers: Peers = field(init=False)
    once: Once = field(init=False)
    gap_bytes: Gaps = field(default_factory=Gaps)
    gap_packets: Gaps = field(default_factory=Gaps)
    history: History = field(default_factory=History)
    cluster: ByScope = field(default_factory=dict)
    nodes: dict[str, NodeReport] = field(default_factory=dict)
    loss: Counter[str] = field(default_factory=Counter)
    cluster_changed: ByScope = field(default_factory=dict)
    nodes_changed: set[str] = field(default_factory=set)
    points_changed: set[str] = field(default_factory=set)
    """Nodes whose observation points must be stored again."""
    loss_changed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.points = Points(self.directory, self.rows)
        self.verdicts = Verdicts(self.directory, self.points)
        self.peers = Peers(self.verdicts.labels, self.peers_per_pod)
        self.once = Once(self.points)

    @property
    def dirty(self) -> bool:
        """Whether anything changed since the last commit."""
        return bool(self.rows.dirty or self.cluster_changed or self.nodes_changed or self.loss_changed)

    @property
    def pending_bytes(self) -> int:
        """Bytes of which it is not known yet at which end they count for the cluster."""
        return sum(receipt.counts[_AT["rx_bytes"]] for receipt in self.once.held)

    @property
    def overlap_bytes(self) -> int:
        """Bytes that the cluster's totals had from the other end already."""
        return self.once.overlap_bytes

    def apply(self, batch: Batch) -> None:
        """Book a batch; it must be the next one of its agent."""
        for window in batch.windows:
            self._window(batch, window)
        last = batch.windows[-1]
        known = self.nodes.get(batch.node)
        loss = Counter(known.loss if known is not None and known.boot == batch.boot else {})
        for window in batch.windows:
            loss.update(window.loss)
        self.nodes[batch.node] = NodeReport(
            node=batch.node,
            boot=batch.boot,
            source=next((entry.source for entry in last.attachments), ""),
            window_start_us=batch.windows[0].start_us + batch.offset_us,
            window_end_us=last.end_us + batch.offset_us,
            attachments=sum(entry.detached_us is None for entry in last.attachments),
            loss=dict(loss),
            gauges=dict(batch.gauges),
        )
        self.nodes_changed.add(batch.node)
        self.points_changed.add(batch.node)
        self.points.forget(last.end_us + batch.offset_us)

    def lose(self, reason: str, count: int = 1) -> None:
        """Count what could not be booked."""
        self.loss[reason] += count
        self.loss_changed[reason] += count

    def settle(self, now_us: int) -> None:
        """Count receipts that turned out to be nobody else's; `now_us` is Redis time."""
        self._add_cluster(self.once.settle(now_us))

    def follow_moves(self) -> None:
        """Bring everything that names rows up to date with rows that were renamed or merged."""
        for moved in self.rows.take_moved():
            self.once.rename(moved.uid, moved.new_uid)
            if moved.number != moved.into:
                self.peers.merge(moved.number, moved.into)
                self.history.merge(moved.number, moved.into)
                self.points_changed |= self.points.nodes_of(moved.into)

    def tick(self, epoch: int, n: int, at_us: int) -> Tick:
        """What changed since the last commit, as the tick that follows; valid until something changes again."""
        return Tick(
            epoch=epoch,
            n=n,
            at_us=at_us,
            changes=self.rows.changes(),
            identities={number: self.rows.by_number[number].identity for number in self.rows.identities},
            removed=tuple(sorted(self.rows.removed)),
            nodes=tuple(self.nodes[name] for name in sorted(self.nodes_changed)),
            cluster=self.cluster_changed,
            pending_bytes=self.pending_bytes,
            overlap_bytes=self.overlap_bytes,
            loss=dict(self.loss_changed),
        )

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.rows.committed()
        self.peers.committed()
        self.history.committed()
        self.cluster_changed = {}
        self.nodes_changed = set()
        self.points_changed = set()
        self.loss_changed = Counter()

    def _window(self, batch: Batch, window: Window) -> None:
        start, end = window.start_us + batch.offset_us, window.end_us + batch.offset_us
        gaps = self.points.observe(batch, window.attachments, start, end)
        self.follow_moves()
        for gap in gaps:
            self._book_gap(gap)
        self.verdicts.refresh()
        for reason, packets in window.loss.items():
            self.lose(reason, packets)
        booked = book(window.flows, batch, self.points, self.verdicts)
        self.peers.add(booked, start, end)
        for row, added in booked.by_row().items():
            self.rows.add(row, added, start, end)
            self.history.add(row, end, added)
        self._count_once(booked, start, end)
        self._account(batch, window)

    def _count_once(self, booked: Booked, start_us: int, end_us: int) -> None:
        """Add what a window booked to the cluster's totals, each byte at one of its ends."""
        self._add_cluster(booked.alone())
        for one in booked.between():
            mine = self.rows.by_number[one.row].identity.uid
            self._send(one, mine, start_us, end_us)
            received = [0 if tx else count for tx, count in zip(_TX, one.counts, strict=True)]
            if any(received):
                self.once.receive(Receipt(one.other, mine, start_us, end_us, one.scope, received))

    def _send(self, one: Between, mine: str, start_us: int, end_us: int) -> None:
        sent = [count if tx else 0 for tx, count in zip(_TX, one.counts, strict=True)]
        size = sent[_AT["tx_bytes"]], sent[_AT["tx_packets"]]
        if any(sent) and self.once.send(mine, one.other, (start_us, end_us), size):
            self._add_cluster({one.scope: sent})

    def _book_gap(self, gap: Gap) -> None:
        row = self.points.known[gap.key].row
        counts = _counts(gap.counters)
        self.rows.add(row, {Scope.UNKNOWN: counts}, gap.start_us, gap.end_us)
        self.peers.add_gap(row, Label(Scope.UNKNOWN, Rule.AGENT_GAP.value), counts, gap.start_us, gap.end_us)
        self.history.add(row, gap.end_us, {Scope.UNKNOWN: counts})
        seen = gap.counters
        self.lose("agent-gap", seen.tx_packets + seen.rx_packets)
        uid = self.rows.by_number[row].identity.uid
        sent, got = self.once.counted_elsewhere(uid, gap.start_us)
        times = gap.start_us, gap.end_us
        tx_bytes, rx_bytes = self.gap_bytes.add(
            *times, max(0, seen.tx_bytes - sent.bytes), max(0, seen.rx_bytes - got.bytes)
        )
        tx_packets, rx_packets = self.gap_packets.add(
            *times, max(0, seen.tx_packets - sent.packets), max(0, seen.rx_packets - got.packets)
        )
        self.once.overlap_bytes += seen.tx_bytes - tx_bytes + seen.rx_bytes - rx_bytes
        left = InterfaceCounters(tx_bytes, tx_packets, rx_bytes, rx_packets)
        self._add_cluster({Scope.UNKNOWN: _counts(left)})

    def _account(self, batch: Batch, window: Window) -> None:
        found, inverse = np.unique(window.flows["attachment"], return_inverse=True)
        sums = [sum_by(inverse, window.flows[name], len(found)).tolist() for name in _SEEN]
        for attachment, *seen in zip(found.tolist(), *sums, strict=True):
            self.points.account((batch.boot, attachment), InterfaceCounters(*seen))

    def _add_cluster(self, added: ByScope) -> None:
        add_scopes(self.cluster, added)
        add_scopes(self.cluster_changed, added)


def _counts(seen: InterfaceCounters) -> Counts:
    counts = no_counts()
    for name in _SEEN:
        counts[_AT[name]] = getattr(seen, name)
    return counts
