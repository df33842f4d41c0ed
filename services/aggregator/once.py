"""Counts each byte between pods once in the cluster's totals: at one of its ends.

That is the sender's interface, and for Services the end that `backing` names. What the other end
tells counts only for windows in which no agent saw the first one. Agents report at different times,
so such a receipt waits until the first end's agent has reported past it, or has been silent for
`HOLD_US`. Should that agent report the time after all, be it as a gap, then what it tells is booked
as overlap and not a second time. The other way round, what passed a pod whose agent was dead is
counted where it counts at the other ends, and not again when that agent's successor finds the gap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import msgpack
import numpy as np

from services.aggregator.names import Names
from services.aggregator.pairs import Pairs
from services.aggregator.sights import PART, WHOLE, Sights
from services.aggregator.sums import Mask, Numbers
from services.aggregator.unseen import Unseen
from services.flows.scope import Scope
from services.flows.table import group_columns, sum_by
from services.flows.traffic import ROW_COUNTERS, ByScope, add_scopes, unseen_counts

HOLD_US: Final = 5_000_000
"""Five reports of an agent: who is silent for longer is taken for dead."""
_MOST_HELD: Final = 200_000
_MOST_SETTLED: Final = 10_000
_MOST_DELIVERIES: Final = 64
"""Per pod; more are added up."""
_UNHEARD_US: Final = 900_000_000
"""For how long the first report of a pod's agent may be on its way."""
_FORGET_US: Final = 1_000_000
"""How often is looked for what agents have reported meanwhile: they do so once a second."""
_TX: Final = [ROW_COUNTERS.index(f"tx_{name}") for name in ("bytes", "packets")]
_RX: Final = [ROW_COUNTERS.index(f"rx_{name}") for name in ("bytes", "packets")]
"""Bytes and packets of what a pod sent, or received."""


class Reports(Protocol):
    """What agents told of pods' interfaces."""

    def sights(self, uids: Sequence[str]) -> Sights:
        """What was told of these pods."""


class Amount(NamedTuple):
    """Bytes and packets that passed between two moments."""

    start_us: int
    end_us: int
    bytes: int
    packets: int


@dataclass(slots=True)
class Span:
    """A time in which receipts were counted, and how much they were."""

    start_us: int
    end_us: int
    bytes: int
    packets: int


@dataclass(slots=True)
class Once:
    """Receipts that wait, those that were counted after all, and what passed pods whose agents were dead."""

    reports: Reports
    names: Names
    held: Pairs = field(init=False)
    """What pods sent to others, told by the ends that are not to count it: it waits for the other ends, its witnesses."""
    held_at_sender: Mask = field(init=False)
    """Per entry whether the sender told it."""
    settled: dict[tuple[str, str, bool], list[Span]] = field(default_factory=dict)
    """By sender, receiver, and whether it was counted at the sender."""
    deliveries: dict[str, list[Amount]] = field(default_factory=dict)
    """By receiver: what its senders counted beyond the last report of its own agent."""
    collections: dict[str, list[Amount]] = field(default_factory=dict)
    """By sender: what its receivers counted beyond the last report of its own agent."""
    unseen: Unseen = field(init=False)
    overlap_bytes: int = 0
    _forgot_us: int = -_FORGET_US
    _settled_to_us: int = 0
    """When the last of them ended: what passed later was not counted so."""
    _settled_packed: bytes = b""
    """All of them as they are stored, until they change: as a rule they are of a session's first second."""
    _at_others: dict[str, list[Span]] | None = None
    """All of `settled` by the pod that would have counted it, once it is asked for."""

    def __post_init__(self) -> None:
        self.unseen = Unseen(self.names)
        self._hold(Pairs.none(self.names), np.zeros(0, np.bool_))

    @property
    def held_bytes(self) -> int:
        """What waits."""
        return int(self._held_bytes().sum()) + self.unseen.waiting_bytes

    def receive(self, told: Pairs, *, at_sender: bool = False) -> None:
        """Take what one end of pairs tells that is to be counted at the other one: received, or sent by it."""
        if len(told):
            which = np.full(len(told), at_sender)
            self._hold(self.held.plus(told), np.concatenate([self.held_at_sender, which]))

    def send(self, told: Pairs) -> Mask:
        """Which of what pods sent to others is to be counted at them.

        That is all which the other ends' totals do not have already.
        """
        mine = self._count(told, self.deliveries, sent=True)
        self.unseen.told(told.where(mine), by_sender=True)
        return mine

    def collect(self, told: Pairs) -> Mask:
        """The same for what pods received from others."""
        return self._count(told, self.collections, sent=False)

    def ask(self, told: Pairs) -> Mask:
        """Which of what pods exchanged with Services is to be counted at them.

        It is not where some of it may be in the totals of a backend, which was thought to be nobody else's.
        """
        found = np.ones(len(told), np.bool_)
        if not self._may_be_settled(told):
            return found
        at_others = self._counted_at_others()
        clients = np.array([self.names.number(uid) for uid in at_others], np.int64)
        asked = np.flatnonzero(np.isin(told.mine, clients))
        columns = [column[asked].tolist() for column in (told.mine, told.starts, told.ends)]
        for at, mine, start, end in zip(asked.tolist(), *columns, strict=True):
            spans = at_others[self.names.known[mine]]
            found[at] = not any(span.start_us < end and start < span.end_us for span in spans)
        self.overlap_bytes += int(told.counts[~found][:, [_TX[0], _RX[0]]].sum())
        return found

    def _count(self, told: Pairs, beyond: dict[str, list[Amount]], *, sent: bool) -> Mask:
        if not len(told):
            return np.zeros(0, np.bool_)
        others, which = np.unique(told.others, return_inverse=True)
        uids = [self.names.known[at] for at in others.tolist()]
        sights = self.reports.sights(uids)
        # What was counted elsewhere is not counted here.
        elsewhere = sights.in_gap(which, told.starts, told.ends) | self._spanned(told, sent=sent)
        at_bytes, at_packets = _TX if sent else _RX
        self.overlap_bytes += int(told.counts[elsewhere, at_bytes].sum())
        unheard = sights.unheard(which)
        # Who has not reported it yet may find it to be part of a gap.
        noted = np.flatnonzero(~elsewhere & (told.mine != told.others) & (unheard | sights.expected(which, told.ends)))
        times = told.starts[noted], told.ends[noted]
        first, inverse = group_columns([column.view(np.uint64) for column in (which[noted], *times)])
        sums = [sum_by(inverse, told.counts[noted, at], len(first)) for at in (at_bytes, at_packets)]
        columns = (which[noted][first], unheard[noted][first], times[0][first], times[1][first], *sums)
        order = np.argsort(times[1][first], kind="stable")
        for at, never, *amount in zip(*(column[order].tolist() for column in columns), strict=True):
            # Many pods are never heard of: one sum is enough for each.
            _note(beyond, uids[at], Amount(*amount), most=1 if never else _MOST_DELIVERIES)
        return ~elsewhere

    def _spanned(self, told: Pairs, *, sent: bool) -> Mask:
        """Which entries the other ends' totals have already, as nobody was thought to see the ends that tell them now."""
        found = np.zeros(len(told), np.bool_)
        if not self._may_be_settled(told):
            return found
        at_others = self._counted_at_others()
        tellers = np.array([self.names.number(uid) for uid in at_others], np.int64)
        asked = np.flatnonzero(np.isin(told.mine, tellers))
        columns = [column[asked].tolist() for column in (told.mine, told.others, told.starts, told.ends)]
        for at, mine, other, start, end in zip(asked.tolist(), *columns, strict=True):
            teller, witness = self.names.known[mine], self.names.known[other]
            spans = self.settled.get((teller, witness, False) if sent else (witness, teller, True), ())
            found[at] = any(span.start_us < end and start < span.end_us for span in spans)
        return found

    def _may_be_settled(self, told: Pairs) -> bool:
        """Whether some of it may be in `settled`."""
        return bool(self.settled) and bool((told.starts < self._settled_to_us).any())

    def _hold(self, held: Pairs, at_sender: Mask) -> None:
        self.held, self.held_at_sender = held, at_sender

    def _held_bytes(self) -> Numbers:
        counts = self.held.counts
        return np.where(self.held_at_sender, counts[:, _TX[0]], counts[:, _RX[0]])

    def _counted_at_others(self) -> dict[str, list[Span]]:
        """All of `settled` by the pod that would have counted it."""
        if self._at_others is None:
            self._at_others = {}
            for (sender, receiver, at_sender), spans in self.settled.items():
                self._at_others.setdefault(receiver if at_sender else sender, []).extend(spans)
        return self._at_others

    def settle(self, now_us: int) -> ByScope:
        """The counters of receipts that are found to be nobody else's; the rest waits or is dropped."""
        told, at_sender = self.held, self.held_at_sender
        added: ByScope = {}
        if len(told):
            others, which = np.unique(told.others, return_inverse=True)
            sights = self.reports.sights([self.names.known[at] for at in others.tolist()])
            seen = sights.seen(which, told.starts, told.ends, ~at_sender)
            late = sights.expected(which, told.ends) & (now_us - told.ends < HOLD_US)
            late[: max(0, len(told) - _MOST_HELD)] = False
            self.overlap_bytes += int(self._held_bytes()[(seen == PART) & ~late].sum())
            mine = (seen != WHOLE) & (seen != PART) & ~late
            waiting = late & (seen != WHOLE)
            counted = told.where(mine)
            added = counted.by_scope()
            for way in (False, True):
                settled = counted.where(at_sender[mine] == way)
                self._settled(settled, at_sender=way)
                self.unseen.told(settled, by_sender=way)
            self._hold(told.where(waiting), at_sender[waiting])
        added = self._with_unseen(added, now_us - HOLD_US)
        # A clock that was set back is no reason to keep everything until it has caught up, where nobody tells us of it.
        if abs(now_us - self._forgot_us) >= _FORGET_US:
            self._forgot_us = now_us
            self._forget(now_us)
        return added

    def _with_unseen(self, added: ByScope, until_us: int) -> ByScope:
        """The counters with those of what passed unseen, and who told it is known by now."""
        new, known = self.unseen.settle(until_us)
        self.overlap_bytes += known
        if any(new.four):
            add_scopes(added, {Scope.UNKNOWN: unseen_counts(new)})
        return added

    def counted_elsewhere(self, uid: str, since_us: int, until_us: int) -> tuple[Amount, Amount]:
        """What other pods' totals hold of the time of a gap: of what the pod sent, and of what it received."""
        sent, got = (
            [amount for amount in amounts if amount.end_us > since_us and amount.start_us < until_us]
            for amounts in (
                [*self._spans(uid, at_sender=False), *_taken(self.collections, uid, until_us)],
                [*self._spans(uid, at_sender=True), *_taken(self.deliveries, uid, until_us)],
            )
        )
        return _added(sent), _added(got)

    def rename(self, old: str, new: str) -> None:
        """Follow a pod that turned out to have another uid."""

        def now(uid: str) -> str:
            return new if uid == old else uid

        self._hold(self.held.renamed(old, new), self.held_at_sender)
        self.unseen.rename(old, new)
        self._at_others, self._settled_packed = None, b""
        settled, self.settled = self.settled, {}
        for (sender, receiver, at_sender), spans in settled.items():
            self.settled.setdefault((now(sender), now(receiver), at_sender), []).extend(spans)
        for beyond in (self.deliveries, self.collections):
            for amount in beyond.pop(old, ()):
                _note(beyond, new, amount, most=_MOST_DELIVERIES)

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self._hold(self.held.shifted(step_us), self.held_at_sender)
        self.unseen.shift(step_us)
        self._forgot_us += step_us
        self._settled_to_us += step_us
        self._settled_packed = b""
        for span in (span for spans in self.settled.values() for span in spans):
            span.start_us += step_us
            span.end_us += step_us
        for beyond in (self.deliveries, self.collections):
            for uid, amounts in beyond.items():
                beyond[uid] = [
                    one._replace(start_us=one.start_us + step_us, end_us=one.end_us + step_us) for one in amounts
                ]

    def stored(self) -> dict[str, Any]:
        """Everything as plain values, for the store."""
        self._settled_packed = self._settled_packed or self._packed()
        return {
            "held": self.held.stored(),
            "held_at_sender": np.packbits(self.held_at_sender).tobytes(),
            "settled": self._settled_packed,
            "deliveries": [[uid, *amount] for uid, amounts in self.deliveries.items() for amount in amounts],
            "collections": [[uid, *amount] for uid, amounts in self.collections.items() for amount in amounts],
            "unseen": self.unseen.stored(),
        }

    def restore(self, stored: dict[str, Any]) -> None:
        """Take what `stored` gave."""
        held = Pairs.restored(self.names, stored["held"])
        bits = np.frombuffer(stored["held_at_sender"], np.uint8)
        self._hold(held, np.unpackbits(bits, count=len(held)).astype(np.bool_))
        self.unseen.restore(stored["unseen"])
        for sender, receiver, at_sender, *span in msgpack.unpackb(stored["settled"]):
            self.settled.setdefault((sender, receiver, at_sender), []).append(Span(*span))
        self._settled_to_us = max((span.end_us for spans in self.settled.values() for span in spans), default=0)
        for name, beyond in (("deliveries", self.deliveries), ("collections", self.collections)):
            for uid, *amount in stored[name]:
                beyond.setdefault(uid, []).append(Amount(*amount))

    def _packed(self) -> bytes:
        packed: bytes = msgpack.packb(
            [
                [*pair, span.start_us, span.end_us, span.bytes, span.packets]
                for pair, spans in self.settled.items()
                for span in spans
            ]
        )
        return packed

    def _spans(self, uid: str, *, at_sender: bool) -> Iterator[Amount]:
        """What was counted at the other ends of a pod, of what it received (`at_sender`) or sent."""
        for (sender, receiver, told), spans in self.settled.items():
            if told is at_sender and (receiver if at_sender else sender) == uid:
                for span in spans:
                    yield Amount(span.start_us, span.end_us, span.bytes, span.packets)

    def _settled(self, told: Pairs, *, at_sender: bool) -> None:
        """Note what was counted at ends where it does not count."""
        if not len(told):
            return
        at_others = self._counted_at_others()
        self._settled_packed = b""
        self._settled_to_us = max(self._settled_to_us, int(told.ends.max()))
        bytes_at, packets_at = _TX if at_sender else _RX
        times = told.starts.tolist(), told.ends.tolist()
        for (mine, other, _, counts), start, end in zip(told.entries(), *times, strict=True):
            sender, receiver = (mine, other) if at_sender else (other, mine)
            spans = self.settled.setdefault((sender, receiver, at_sender), [])
            if spans and spans[-1].start_us <= start <= spans[-1].end_us:
                last = spans[-1]
                last.end_us = max(last.end_us, end)
                last.bytes, last.packets = last.bytes + counts[bytes_at], last.packets + counts[packets_at]
            else:
                spans.append(Span(start, end, counts[bytes_at], counts[packets_at]))
                at_others.setdefault(other, []).append(spans[-1])

    def _forget(self, now_us: int) -> None:
        """Drop amounts that their pod's agent has reported, and the oldest spans beyond the bound."""
        for beyond in (self.deliveries, self.collections):
            uids = list(beyond)
            sights = self.reports.sights(uids)
            lengths = [len(beyond[uid]) for uid in uids]
            which = np.repeat(np.arange(len(uids)), lengths)
            ends = np.array([amount.end_us for uid in uids for amount in beyond[uid]], np.int64)
            stays = np.where(sights.unheard(which), now_us - ends < _UNHEARD_US, sights.expected(which, ends))
            if stays.all():
                continue
            staying: Iterator[bool] = iter(stays.tolist())
            for uid, length in zip(uids, lengths, strict=True):
                left = [
                    amount for amount, stay in zip(beyond[uid], itertools.islice(staying, length), strict=True) if stay
                ]
                if left:
                    beyond[uid] = left
                else:
                    del beyond[uid]
        count = sum(map(len, self.settled.values()))
        if count > _MOST_SETTLED:
            every = [(pair, span) for pair, spans in self.settled.items() for span in spans]
            every.sort(key=lambda one: one[1].end_us)
            self.settled = {}
            # By number, not by time: all of a session's first second may have one end.
            for pair, span in every[count - _MOST_SETTLED // 2 :]:
                self.settled.setdefault(pair, []).append(span)
            self._at_others, self._settled_packed = None, b""


def _note(beyond: dict[str, list[Amount]], uid: str, amount: Amount, *, most: int) -> None:
    amounts = beyond.setdefault(uid, [])
    if amounts and (amounts[-1].end_us == amount.end_us or len(amounts) >= most):
        amounts[-1] = _added([amounts[-1], amount])
    else:
        amounts.append(amount)


def _taken(beyond: dict[str, list[Amount]], uid: str, until_us: int) -> list[Amount]:
    """All amounts of a pod; those that go beyond the moment are left for the next gap, which they may be part of."""
    amounts = beyond.pop(uid, [])
    if later := [amount for amount in amounts if amount.end_us > until_us]:
        beyond[uid] = later
    return amounts


def _added(amounts: Iterable[Amount]) -> Amount:
    listed = list(amounts)
    first = min((one.start_us for one in listed), default=0)
    last = max((one.end_us for one in listed), default=0)
    return Amount(first, last, sum(one.bytes for one in listed), sum(one.packets for one in listed))
