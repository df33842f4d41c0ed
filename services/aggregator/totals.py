"""Books the windows of batches: on rows, peers, history and the cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, Self

import numpy as np

from services.aggregator.attachments import Points
from services.aggregator.awaited import Awaited
from services.aggregator.backing import Backing
from services.aggregator.behind import Behind
from services.aggregator.booking import Booked, Told, book
from services.aggregator.cluster_totals import Accounts, ClusterTotals, Missed
from services.aggregator.coverage import Meters
from services.aggregator.decisions import Decided
from services.aggregator.directory import Directory
from services.aggregator.half_seen import HalfSeen
from services.aggregator.history import History
from services.aggregator.letters import Letters
from services.aggregator.names import Names
from services.aggregator.peers import Peers
from services.aggregator.point import Gap
from services.aggregator.rows import Rows as AllRows
from services.aggregator.sums import table_of
from services.aggregator.verdicts import Label, Verdicts
from services.flows.delta import Batch, Window
from services.flows.scope import SCOPES, Rule, Scope
from services.flows.traffic import ByScope, NodeReport, Tick, counts_of

_MOST_AT_ONCE: Final = 1000
"""Windows that are booked together; more would gain nothing."""


class _Timed(Protocol):
    def shift(self, step_us: int) -> None:
        """Follow Redis's clock where that was set."""


@dataclass(slots=True)
class Totals:
    """The session's totals; everything in it is the result of `apply` and `settle` alone."""

    directory: Directory
    peers_per_pod: int
    shards: int = 1
    """Over how many shards the nodes are divided."""
    shard: int = 0
    """Whose nodes these are."""
    rows: AllRows = field(default_factory=AllRows)
    names: Names = field(default_factory=Names)
    points: Points = field(init=False)
    meters: Meters = field(init=False)
    verdicts: Verdicts = field(init=False)
    backing: Backing = field(init=False)
    behind: Behind = field(init=False)
    peers: Peers = field(init=False)
    accounts: Accounts = field(init=False)
    awaited: Awaited = field(init=False)
    half_seen: HalfSeen = field(init=False)
    history: History = field(default_factory=History)
    nodes: dict[str, NodeReport] = field(default_factory=dict)
    loss: Counter[str] = field(default_factory=Counter)
    nodes_changed: set[str] = field(default_factory=set)
    points_changed: set[str] = field(default_factory=set)
    """Nodes whose observation points and coverage must be stored again."""
    loss_changed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.points = Points(self.directory, self.rows, self.names)
        self.meters = Meters(self.points)
        self.verdicts = Verdicts(self.directory, self.points, self.names)
        if self.shards == 1:
            self.backing = Backing(self.directory, self.points)
            self.accounts = ClusterTotals(self.points, self.names)
        else:
            self.backing = Decided(self.directory)
            self.accounts = Letters(self.points)
        self.peers = Peers(self.verdicts.labels, self.peers_per_pod)
        self.behind = Behind(self.directory, self.verdicts.labels)
        self.awaited = Awaited(self.directory, self.verdicts)
        self.half_seen = HalfSeen(self.points, self.verdicts.labels, self.backing, self.accounts)

    def anew(self) -> Self:
        """Empty ones of the same nodes."""
        return type(self)(self.directory, self.peers_per_pod, self.shards, self.shard)

    @property
    def cluster(self) -> ByScope:
        """The cluster's totals, as far as they are here."""
        return self.accounts.counts

    @property
    def dirty(self) -> bool:
        """Whether anything changed since the last commit."""
        return bool(self.rows.dirty or self.accounts.dirty or self.nodes_changed or self.loss_changed)

    @property
    def pending_bytes(self) -> int:
        """Bytes of which it is not known yet at which end they count for the cluster, or who is at the other end."""
        return self.awaited.held_bytes + self.accounts.pending_bytes

    @property
    def overlap_bytes(self) -> int:
        """Bytes that the cluster's totals had from the other end already."""
        return self.accounts.overlap_bytes

    def apply(self, *batches: Batch) -> None:
        """Book batches; each must be the next one of its agent."""
        round_: dict[str, Told] = {}
        for batch in batches:
            late = False
            for window in batch.windows:
                # What a node's next window tells of its interfaces is not to be known for the one before.
                if batch.node in round_ or len(round_) >= _MOST_AT_ONCE:
                    self._book(round_)
                told = round_[batch.node] = self._window(batch, window)
                late |= told.window is not window
            if self.points.is_due(end := batch.times(batch.windows[-1])[1]):
                self._book(round_)
                # An aggregator that was away reads a quarter of an hour at once.
                forgotten = self.points.forget(end, self.awaited.points())
                self.accounts.forgotten(forgotten)
                self.points_changed |= self.meters.forget(forgotten) | {point.node for point in forgotten.values()}
            self.points_changed.add(batch.node)
            if late:
                self.lose("batch-late")
            else:
                self._report(batch)
        self._book(round_)

    def _report(self, batch: Batch) -> None:
        """Note what an agent says of itself."""
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

    def lose(self, reason: str, count: int = 1) -> None:
        """Count what could not be booked."""
        self.loss[reason] += count
        self.loss_changed[reason] += count

    def settle(self, now_us: int) -> None:
        """Book what need not wait any longer; `now_us` is Redis time."""
        self.backing.refresh(now_us)
        self.behind.refresh(now_us)
        released = [Told(batch, batch.windows[0], batch.windows[0].flows) for batch in self.awaited.release(now_us)]
        for at in range(0, len(released), _MOST_AT_ONCE):
            self._book_all(released[at : at + _MOST_AT_ONCE])
        self.accounts.settle(now_us)

    def shift(self, step_us: int) -> None:
        """Redis's clock was set: all that is known of moments moves with it.

        What is only shown of them (since when there is a row, or traffic with a peer) stays as it was told.
        """
        self.directory.shift(step_us)
        parts: Sequence[_Timed] = (self.points, self.meters, self.accounts, self.awaited, self.backing, self.behind)
        for part in (*parts, self.history):
            part.shift(step_us)
        self.verdicts.forget()
        for name, one in self.nodes.items():
            start_us, end_us = one.window_start_us + step_us, one.window_end_us + step_us
            self.nodes[name] = replace(one, window_start_us=start_us, window_end_us=end_us)
        self.nodes_changed |= self.nodes.keys()
        self.points_changed |= self.points.of_node.keys() | self.nodes.keys()

    def follow_moves(self) -> None:
        """Bring everything that names rows up to date with rows that were renamed or merged."""
        for moved in self.rows.take_moved():
            self.accounts.rename(moved.uid, moved.new_uid)
            if moved.number != moved.into:
                self.peers.merge(moved.number, moved.into)
                self.history.merge(moved.number, moved.into)
                self.points_changed |= self.points.nodes_of(moved.into)

    def tick(self, epoch: int, n: int, at_us: int) -> Tick:
        """What changed since the last commit, as the tick that follows; valid until something changes again."""
        return replace(self.bare_tick(epoch, n, at_us), changes=self.rows.changes())

    def bare_tick(self, epoch: int, n: int, at_us: int) -> Tick:
        """The same without the rows' increments, which `Rows.encoded_tick` writes by column."""
        return Tick(
            epoch=epoch,
            n=n,
            at_us=at_us,
            changes=(),
            identities={number: self.rows.by_number[number].identity for number in self.rows.identities},
            removed=tuple(sorted(self.rows.removed)),
            nodes=tuple(self.nodes[name] for name in sorted(self.nodes_changed)),
            cluster=self.accounts.changed,
            pending_bytes=self.pending_bytes,
            overlap_bytes=self.overlap_bytes,
            loss=dict(self.loss_changed),
        )

    def books(self) -> dict[str, Any]:
        """What must be known besides to go on, as plain values, for the store."""
        return {"next_row": self.rows.next_number, "awaited": self.awaited.stored(), **self.accounts.stored()}

    def restore(self, books: dict[str, Any], fields: Mapping[bytes, bytes]) -> None:
        """Take what `books` and `stored_fields` gave."""
        self.rows.next_number = books["next_row"]
        self.accounts.restore(books, fields)
        self.awaited.restore(books.get("awaited", ()))

    def stored_fields(self, *, every: bool) -> dict[str, bytes]:
        """What has fields of its own in the store: those that must be written, or all."""
        return self.accounts.stored_fields(every=every)

    def gone_fields(self) -> list[str]:
        """Which of these must not be there any more."""
        return self.accounts.gone_fields()

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.rows.committed()
        self.peers.committed()
        self.history.committed()
        self.behind.committed()
        self.accounts.committed()
        self.nodes_changed = set()
        self.points_changed = set()
        self.loss_changed = Counter()

    def _window(self, batch: Batch, window: Window) -> Told:
        """Take everything of a window but its flows; what came too late, and is in a gap already, is left out."""
        start, end = batch.times(window)
        if late := self.points.late(batch, window):
            window = _without(window, late)
        self.directory.at(start - batch.error_us, end + batch.error_us)
        gaps = self.points.observe(batch, window)
        self.follow_moves()
        for gap in gaps:
            self._book_gap(gap, start, end)
        for reason, packets in window.loss.items():
            self.lose(reason, packets)
        return Told(batch, window, window.flows)

    def _book(self, round_: dict[str, Told]) -> None:
        """Book the flows of a round of windows, each of another node."""
        told = list(round_.values())
        round_.clear()
        if told:
            self.meters.take([(one.batch, one.window) for one in told])
            self.accounts.sighted(told)
            self.verdicts.refresh()
            self._book_all(self.awaited.hold(told))

    def _book_all(self, told: Sequence[Told]) -> None:
        self.verdicts.refresh()
        seen, half, without = self.half_seen.apart(told)
        booked = book(seen, self.points, self.verdicts, self.backing)
        self._add(booked)
        beside = self.half_seen.book(booked, half, without)
        if beside is not None:
            self._add(beside)
        self._count_once(booked)

    def _add(self, booked: Booked) -> None:
        """Add to rows, their peers and their history."""
        self.peers.add(booked)
        sums = booked.by_row()
        self.rows.add_all(*sums)
        self.history.add(sums.rows, sums.scopes, sums.ends, sums.counts)

    def _count_once(self, booked: Booked) -> None:
        """Add what was booked to the cluster's totals, each byte at one of its ends."""
        self.accounts.add(booked.alone())
        self.accounts.exchange(booked.with_services(), *booked.between())

    def _book_gap(self, gap: Gap, start_us: int, end_us: int) -> None:
        """Book what was missed before a window."""
        row = self.points.known[gap.key].row
        counts = counts_of(gap.counters)
        self.rows.add(row, {Scope.UNKNOWN: counts}, gap.start_us, gap.end_us)
        self.peers.add_gap(row, Label(Scope.UNKNOWN, Rule.AGENT_GAP.value), counts, gap.start_us, gap.end_us)
        unknown = np.array([SCOPES.index(Scope.UNKNOWN)])
        self.history.add(np.array([row]), unknown, np.array([gap.end_us]), table_of([counts]))
        seen = gap.counters
        self.lose("agent-gap", seen.tx_packets + seen.rx_packets)
        at_clients = self.backing.may_be_at_clients(self.points.known[gap.key].addresses, start_us, end_us)
        uid = self.rows.by_number[row].identity.uid
        self.accounts.miss(Missed(uid, gap.start_us, gap.end_us, seen, at_clients))


def _without(window: Window, attachments: set[int]) -> Window:
    """A window as if its agent had not watched these."""
    return replace(
        window,
        attachments=tuple(one for one in window.attachments if one.id not in attachments),
        flows=window.flows[~np.isin(window.flows["attachment"], [*attachments])],
    )
