"""Books the windows of batches: on rows, peers, history and the cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from services.aggregator.attachments import Gap, Points
from services.aggregator.booking import Entry, entries
from services.aggregator.directory import Directory
from services.aggregator.history import History
from services.aggregator.once import Once, Receipt
from services.aggregator.rows import Rows
from services.aggregator.verdicts import Verdicts, described
from services.flows.delta import Batch, InterfaceCounters, Kind, Window
from services.flows.scope import Pod, Rule, Scope
from services.flows.traffic import ROW_COUNTERS, ByScope, NodeReport, Peer, Tick, add_scopes, no_counts

_FORGET_US: Final = 900_000_000
"""Observation points that ended are needed while late batches may still name them."""
_TX: Final = tuple(at for at, name in enumerate(ROW_COUNTERS) if name.startswith("tx_"))
_TX_BYTES: Final = ROW_COUNTERS.index("tx_bytes")
_RX_BYTES: Final = ROW_COUNTERS.index("rx_bytes")


@dataclass(slots=True)
class Totals:
    """The session's totals; everything in it is the result of `apply` and `settle` alone."""

    directory: Directory
    peers_per_pod: int
    rows: Rows = field(init=False)
    points: Points = field(init=False)
    verdicts: Verdicts = field(init=False)
    once: Once = field(init=False)
    history: History = field(default_factory=History)
    cluster: ByScope = field(default_factory=dict)
    nodes: dict[str, NodeReport] = field(default_factory=dict)
    loss: Counter[str] = field(default_factory=Counter)
    overlap_bytes: int = 0
    cluster_changed: ByScope = field(default_factory=dict)
    nodes_changed: set[str] = field(default_factory=set)
    loss_changed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rows = Rows(self.peers_per_pod)
        self.points = Points(self.directory, self.rows)
        self.verdicts = Verdicts(self.directory, self.points)
        self.once = Once(self.points)

    @property
    def dirty(self) -> bool:
        """Whether anything changed since the last commit."""
        return bool(
            self.rows.changed
            or self.rows.identities
            or self.rows.removed
            or self.cluster_changed
            or self.nodes_changed
            or self.loss_changed
        )

    @property
    def pending_bytes(self) -> int:
        """Bytes of which it is not known yet at which end they count for the cluster."""
        return sum(receipt.counts[_RX_BYTES] for receipt in self.once.held)

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
        self.points.forget(last.end_us + batch.offset_us - _FORGET_US)

    def lose(self, reason: str, count: int = 1) -> None:
        """Count what could not be booked."""
        self.loss[reason] += count
        self.loss_changed[reason] += count

    def settle(self, now_us: int) -> None:
        """Count receipts that turned out to be nobody else's; `now_us` is Redis time."""
        self._add_cluster(self.once.settle(now_us))

    def tick(self, epoch: int, n: int, at_us: int) -> Tick:
        """What changed since the last commit, as the tick that follows."""
        # Rows are read while they change further: a tick holds copies of nothing that changes.
        return Tick(
            epoch=epoch,
            n=n,
            at_us=at_us,
            changes=self.rows.changes(),
            identities={
                number: self.rows.by_number[number].identity
                for number in self.rows.identities
                if number in self.rows.by_number
            },
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
        self.history.committed()
        self.cluster_changed = {}
        self.nodes_changed = set()
        self.loss_changed = Counter()

    def _window(self, batch: Batch, window: Window) -> None:
        start, end = window.start_us + batch.offset_us, window.end_us + batch.offset_us
        for attachment in window.attachments:
            gap = self.points.observe(batch, attachment, end)
            if gap is not None:
                self._book_gap(gap, end)
        for gone, into in self.rows.take_merged():
            self.once.forget(gone, into)
            self.history.merge(gone, into)
        self.verdicts.refresh()
        for reason, packets in window.loss.items():
            self.lose(reason, packets)
        changed: dict[int, ByScope] = {}
        for entry in entries(window.flows, batch, self.points, self.verdicts):
            self._book(entry, start, end)
            add_scopes(changed.setdefault(entry.row, {}), {entry.verdict.scope: entry.counts})
        for row, added in changed.items():
            self.rows.add(row, added, end - start)
            self.history.add(row, end, added)
        self._account(batch, window)

    def _book(self, entry: Entry, start_us: int, end_us: int) -> None:
        name, namespace, what = described(entry.verdict)
        scope = entry.verdict.scope
        self.rows.add_peer(
            entry.row,
            Peer(
                address=entry.address,
                protocol=entry.protocol,
                port=entry.port,
                server=entry.server,
                kind=entry.kind,
                scope=scope,
                rule=entry.verdict.rule.value,
                counts=entry.counts,
                first_us=start_us,
                last_us=end_us,
                name=name,
                namespace=namespace,
                what=what,
                local=entry.local,
            ),
        )
        peer = entry.verdict.peer
        other = self.rows.by_uid.get(peer.uid) if isinstance(peer, Pod) else None
        if scope is Scope.SAME_POD and other is None:
            other = entry.row
        if other is None:
            self._add_cluster({scope: entry.counts})
            return
        sent = [count if at in _TX else 0 for at, count in enumerate(entry.counts)]
        received = [0 if at in _TX else count for at, count in enumerate(entry.counts)]
        if self.once.counted_at_receiver(entry.row, other, start_us, end_us):
            self.overlap_bytes += sent[_TX_BYTES]
        else:
            self._add_cluster({scope: sent})
        if any(received):
            self.once.receive(Receipt(other, entry.row, start_us, end_us, scope, received))

    def _book_gap(self, gap: Gap, end_us: int) -> None:
        counts = no_counts()
        seen = gap.counters
        for name, value in (
            ("tx_bytes", seen.tx_bytes),
            ("rx_bytes", seen.rx_bytes),
            ("tx_packets", seen.tx_packets),
            ("rx_packets", seen.rx_packets),
        ):
            counts[ROW_COUNTERS.index(name)] = value
        added = {Scope.UNKNOWN: counts}
        self.rows.add(gap.row, added, 0)
        self.rows.add_peer(
            gap.row,
            Peer("", 0, 0, 0, Kind.FOLDED, Scope.UNKNOWN, Rule.AGENT_GAP, list(counts), end_us, end_us),
        )
        self._add_cluster(added)
        self.lose("agent-gap-bytes", seen.tx_bytes + seen.rx_bytes)

    def _account(self, batch: Batch, window: Window) -> None:
        flows = window.flows
        for attachment in window.attachments:
            mine = flows[flows["attachment"] == attachment.id]
            seen = InterfaceCounters(
                *(int(mine[name].sum()) for name in ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets"))
            )
            self.points.account(batch.boot, attachment.id, seen)

    def _add_cluster(self, added: ByScope) -> None:
        add_scopes(self.cluster, added)
        add_scopes(self.cluster_changed, added)
