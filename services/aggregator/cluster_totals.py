"""The cluster's totals: what pods exchanged, each byte at one of its ends, and what is known to have passed besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from services.aggregator.booking import Told
from services.aggregator.gaps import Gaps
from services.aggregator.names import Names
from services.aggregator.once import Once, Reports
from services.aggregator.pairs import Pairs
from services.aggregator.point import Key
from services.aggregator.sums import Numbers
from services.flows.delta import InterfaceCounters
from services.flows.scope import Scope
from services.flows.traffic import ByScope, Counted, add_scopes, counts_of


class Missed(NamedTuple):
    """What passed a pod's interface between two moments (Redis microseconds) for which it had no agent."""

    uid: str
    start_us: int
    end_us: int
    counters: InterfaceCounters
    at_clients: bool
    """Whether some of it may count at clients, who do not know the pod by name."""


class Accounts(Protocol):
    """Where it is decided what of that which pods' interfaces tell is to be in the cluster's totals."""

    counts: ByScope
    """The cluster's totals, as far as they are here."""
    changed: ByScope
    """What was added to them since the last commit."""
    overlap_bytes: int
    """Bytes that they had from the other end already."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of which it is not known yet at which end they count."""

    @property
    def dirty(self) -> bool:
        """Whether anything must be stored."""

    def sighted(self, told: Sequence[Told]) -> None:
        """What agents told of these windows' interfaces is known; what they exchanged comes next."""

    def forgotten(self, gone: Iterable[Key]) -> None:
        """Nobody can ask about these points any more."""

    def add(self, added: ByScope) -> None:
        """Take what nobody else can tell."""

    def exchange(self, served: Pairs, pairs: Pairs, counted: Numbers) -> None:
        """Take what pods exchanged with Services and count themselves, and with pods, with a `Counted` for each of these."""

    def miss(self, missed: Missed) -> None:
        """Take what passed a pod that had no agent."""

    def hide(self, uid: str, end_us: int, counters: InterfaceCounters) -> None:
        """Take what passed a pod's source unseen until then."""

    def attributed(self, uid: str, bytes_: int, packets: int) -> None:
        """So much of what others sent to a pod is not among what passed it unseen any more."""

    def rename(self, old: str, new: str) -> None:
        """A pod turned out to have another uid."""

    def settle(self, now_us: int) -> None:
        """Decide what need not wait any longer; `now_us` is Redis time."""

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""

    def committed(self) -> None:
        """Forget what changed: it is in the store."""

    def stored(self) -> dict[str, Any]:
        """Everything but the counts and what has fields of its own as plain values, for the store."""

    def stored_fields(self, *, every: bool) -> dict[str, bytes]:
        """What has fields of its own in the store: those that must be written, or all."""

    def gone_fields(self) -> list[str]:
        """Which of these must not be there any more."""

    def restore(self, stored: dict[str, Any], fields: Mapping[bytes, bytes]) -> None:
        """Take what `stored` and `stored_fields` gave."""


@dataclass(slots=True)
class ClusterTotals:
    """Decides at once, by what agents told of all pods."""

    reports: Reports
    names: Names
    once: Once = field(init=False)
    gap_bytes: Gaps = field(default_factory=Gaps)
    gap_packets: Gaps = field(default_factory=Gaps)
    counts: ByScope = field(default_factory=dict)
    changed: ByScope = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.once = Once(self.reports, self.names)

    @property
    def pending_bytes(self) -> int:
        """Bytes of which it is not known yet at which end they count."""
        return self.once.held_bytes

    @property
    def overlap_bytes(self) -> int:
        """Bytes that the totals had from the other end already."""
        return self.once.overlap_bytes

    @overlap_bytes.setter
    def overlap_bytes(self, value: int) -> None:
        self.once.overlap_bytes = value

    @property
    def dirty(self) -> bool:
        """Whether anything must be stored."""
        return bool(self.changed)

    def sighted(self, told: Sequence[Told]) -> None:
        """What is known of interfaces is asked for when it is needed."""

    def forgotten(self, gone: Iterable[Key]) -> None:
        """As for `sighted`."""

    def add(self, added: ByScope) -> None:
        """Take what nobody else can tell."""
        add_scopes(self.counts, added)
        add_scopes(self.changed, added)

    def exchange(self, served: Pairs, pairs: Pairs, counted: Numbers) -> None:
        """Take what pods exchanged."""
        self.add(served.where(self.once.ask(served)).by_scope())
        there = counted == Counted.THERE
        self.once.receive(pairs.where(there).one_way("tx"), at_sender=True)
        sent = pairs.where(~there).one_way("tx")
        self.add(sent.where(self.once.send(sent)).by_scope())
        here = counted == Counted.HERE
        self.once.receive(pairs.where(~here).one_way("rx"))
        received = pairs.where(here).one_way("rx")
        self.add(received.where(self.once.collect(received)).by_scope())

    def miss(self, missed: Missed) -> None:
        """Take what passed a pod that had no agent."""
        seen = missed.counters
        if missed.at_clients:
            self.overlap_bytes += seen.tx_bytes + seen.rx_bytes
            return
        times = missed.start_us, missed.end_us
        sent, got = self.once.counted_elsewhere(missed.uid, *times)
        tx_bytes, rx_bytes = self.gap_bytes.add(
            *times, max(0, seen.tx_bytes - sent.bytes), max(0, seen.rx_bytes - got.bytes)
        )
        tx_packets, rx_packets = self.gap_packets.add(
            *times, max(0, seen.tx_packets - sent.packets), max(0, seen.rx_packets - got.packets)
        )
        self.overlap_bytes += seen.tx_bytes - tx_bytes + seen.rx_bytes - rx_bytes
        left = InterfaceCounters(tx_bytes, tx_packets, rx_bytes, rx_packets)
        self.add({Scope.UNKNOWN: counts_of(left)})

    def hide(self, uid: str, end_us: int, counters: InterfaceCounters) -> None:
        """Take what passed a pod's source unseen until then."""
        self.once.unseen.hide(uid, end_us, counters)

    def attributed(self, uid: str, bytes_: int, packets: int) -> None:
        """So much of what others sent to a pod is not among what passed it unseen any more."""
        self.once.unseen.attributed(uid, bytes_, packets)

    def rename(self, old: str, new: str) -> None:
        """A pod turned out to have another uid."""
        self.once.rename(old, new)

    def settle(self, now_us: int) -> None:
        """Decide what need not wait any longer."""
        self.add(self.once.settle(now_us))

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        for part in (self.once, self.gap_bytes, self.gap_packets):
            part.shift(step_us)

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.changed = {}

    def stored(self) -> dict[str, Any]:
        """Everything but the counts as plain values, for the store."""
        return {
            "once": self.once.stored(),
            "gap_bytes": self.gap_bytes.stored(),
            "gap_packets": self.gap_packets.stored(),
        }

    def stored_fields(self, *, every: bool) -> dict[str, bytes]:  # noqa: ARG002  # there are none
        """None."""
        return {}

    def gone_fields(self) -> list[str]:
        """None."""
        return []

    def restore(self, stored: dict[str, Any], fields: Mapping[bytes, bytes]) -> None:  # noqa: ARG002  # there are none
        """Take what `stored` gave."""
        self.once.restore(stored["once"])
        self.gap_bytes.restore(stored["gap_bytes"])
        self.gap_packets.restore(stored["gap_packets"])
