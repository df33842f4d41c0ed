"""What a shard tells the ledger: everything by which it is decided where bytes count for the cluster.

A letter is to the ledger what a batch is to a shard: numbered by its sender, frozen once it was committed, sent again
until it is in the totals. It has rounds as they were booked, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgpack
import numpy as np

from services.aggregator.cluster_totals import Missed
from services.aggregator.names import Names
from services.aggregator.pairs import Pairs
from services.aggregator.point import Key
from services.aggregator.sightings import Sighting
from services.aggregator.sums import Numbers, sums_by
from services.flows.columns import narrow, wide
from services.flows.coverage import plus
from services.flows.delta import NOTHING, InterfaceCounters
from services.flows.table import group_columns
from services.flows.traffic import ROW_COUNTERS, Counted

_VERSION: Final = 1
_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")
SPAN_US: Final = 5_000_000
"""Windows that wait for a ledger that is away are added up to such ones, and to twice that while they are too many."""
MOST_PAIRS: Final = 200_000
_LATEST_US: Final = 1 << 61
_MOST: Final = 1 << 62
"""Sums and times stay within 64 bits, whoever wrote a letter."""


class LetterError(ValueError):
    """Bytes that are no letter of this version."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What pods exchanged with others, or with Services (with nobody at the other end), each with a `Counted`."""

    pairs: Pairs
    counted: Numbers

    @classmethod
    def of(cls, pairs: Pairs, counted: Numbers) -> Exchanged:
        """The same with one entry per window, pair, scope and way of counting."""
        keys = (pairs.mine, pairs.others, pairs.scopes * len(Counted) + counted, pairs.starts, pairs.ends)
        first, inverse = group_columns([column.view(np.uint64) for column in keys])
        if len(first) == len(pairs):
            return cls(pairs, counted)
        _, counts = sums_by(inverse.astype(np.int64), pairs.counts)
        columns = (pairs.starts, pairs.ends, pairs.mine, pairs.others, pairs.scopes)
        starts, ends, mine, others, scopes = (column[first] for column in columns)
        return cls(Pairs(pairs.names, starts, ends, mine, others, scopes, counts), counted[first])

    def plus(self, other: Exchanged) -> Exchanged:
        """These entries, and then those of another one."""
        return Exchanged(self.pairs.plus(other.pairs), np.concatenate([self.counted, other.counted]))

    def coarser(self) -> Exchanged:
        """At most `MOST_PAIRS` entries, or one per pair: those of neighbouring windows as if of one."""
        one, span_us = self, SPAN_US
        while True:
            pairs = one.pairs
            spans, which = np.unique(pairs.starts // span_us, return_inverse=True)
            first, last = np.full(len(spans), np.iinfo(np.int64).max), np.zeros(len(spans), np.int64)
            np.minimum.at(first, which, pairs.starts)
            np.maximum.at(last, which, pairs.ends)
            one = Exchanged.of(replace(pairs, starts=first[which], ends=last[which]), one.counted)
            if len(one.pairs) <= MOST_PAIRS or len(spans) <= 1:
                return one
            span_us *= 2

    @property
    def bytes(self) -> int:
        """What would count at who tells it, were both ends seen."""
        sent = self.pairs.counts[self.counted != Counted.THERE, _TX].sum()
        return int(sent + self.pairs.counts[self.counted == Counted.HERE, _RX].sum())


@dataclass(slots=True)
class Round:
    """What was booked together. Pods that got another uid have the new one everywhere in it."""

    renamed: list[tuple[str, str]] = field(default_factory=list)
    points: dict[Key, Sighting] = field(default_factory=dict)
    gone: set[Key] = field(default_factory=set)
    """Points that nobody can ask about any more."""
    reported: dict[str, tuple[int, frozenset[int]]] = field(default_factory=dict)
    """By an agent's boot id: up to when it told, and of which attachments."""
    missed: list[Missed] = field(default_factory=list)
    hidden: dict[str, tuple[int, InterfaceCounters]] = field(default_factory=dict)
    """What passed pods unseen, and until when."""
    attributed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes and packets that are not among that any more."""
    exchanged: Exchanged | None = None

    def __bool__(self) -> bool:
        """Whether anything is in it."""
        told = self.renamed, self.points, self.gone, self.reported, self.missed, self.hidden, self.attributed
        return self.exchanged is not None or any(map(bool, told))

    def report(self, boot: str, until_us: int, numbers: frozenset[int]) -> None:
        """An agent told of these attachments up to a moment."""
        before = self.reported.get(boot)
        if before is not None:
            until_us, numbers = max(before[0], until_us), before[1] | numbers
        self.reported[boot] = until_us, numbers

    def hide(self, uid: str, end_us: int, counters: InterfaceCounters) -> None:
        """Something passed a pod unseen."""
        before_us, before = self.hidden.get(uid, (end_us, NOTHING))
        self.hidden[uid] = max(before_us, end_us), plus(before, counters)

    def attribute(self, uid: str, bytes_: int, packets: int) -> None:
        """So much of what others sent to a pod is not among what passed it unseen any more."""
        before = self.attributed.get(uid, (0, 0))
        self.attributed[uid] = before[0] + bytes_, before[1] + packets

    def rename(self, old: str, new: str) -> None:
        """A pod turned out to have another uid."""
        self.renamed.append((old, new))
        self.points = {key: replace(one, uid=new) if one.uid == old else one for key, one in self.points.items()}
        self.missed = [one._replace(uid=new) if one.uid == old else one for one in self.missed]
        if (hidden := self.hidden.pop(old, None)) is not None:
            self.hide(new, *hidden)
        if (attributed := self.attributed.pop(old, None)) is not None:
            self.attribute(new, *attributed)
        if self.exchanged is not None:
            self.exchanged = replace(self.exchanged, pairs=self.exchanged.pairs.renamed(old, new))

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self.points = {key: one.shifted(step_us) for key, one in self.points.items()}
        self.reported = {boot: (until + step_us, numbers) for boot, (until, numbers) in self.reported.items()}
        self.missed = [
            one._replace(start_us=one.start_us + step_us, end_us=one.end_us + step_us) for one in self.missed
        ]
        self.hidden = {uid: (end_us + step_us, counters) for uid, (end_us, counters) in self.hidden.items()}
        if self.exchanged is not None:
            self.exchanged = replace(self.exchanged, pairs=self.exchanged.pairs.shifted(step_us))

    def then(self, later: Round) -> None:
        """Take what was booked after it, as if it had been booked together."""
        for old, new in later.renamed:
            self.rename(old, new)
        self.points |= later.points
        self.gone = (self.gone - later.points.keys()) | later.gone
        for key in later.gone:
            self.points.pop(key, None)
        for boot, told in later.reported.items():
            self.report(boot, *told)
        self.missed += later.missed
        for uid, hidden in later.hidden.items():
            self.hide(uid, *hidden)
        for uid, attributed in later.attributed.items():
            self.attribute(uid, *attributed)
        if later.exchanged is not None:
            both = later.exchanged if self.exchanged is None else self.exchanged.plus(later.exchanged)
            self.exchanged = both.coarser()

    @property
    def bytes(self) -> int:
        """What is to be decided, about."""
        missed = sum(one.counters.tx_bytes + one.counters.rx_bytes for one in self.missed)
        hidden = sum(counters.tx_bytes + counters.rx_bytes for _, counters in self.hidden.values())
        return missed + hidden + (0 if self.exchanged is None else self.exchanged.bytes)

    def plain(self) -> list[Any]:
        """Plain values."""
        exchanged = self.exchanged
        return [
            self.renamed,
            [[*key, *one.plain()] for key, one in self.points.items()],
            [list(key) for key in self.gone],
            [[boot, until_us, sorted(numbers)] for boot, (until_us, numbers) in self.reported.items()],
            [[one.uid, one.start_us, one.end_us, *one.counters.four, one.at_clients] for one in self.missed],
            [[uid, end_us, *counters.four] for uid, (end_us, counters) in self.hidden.items()],
            [[uid, *amounts] for uid, amounts in self.attributed.items()],
            None if exchanged is None else [exchanged.pairs.stored(), narrow(exchanged.counted.astype(np.uint64))],
        ]

    @classmethod
    def from_plain(cls, names: Names, plain: Sequence[Any]) -> Round:
        """What `plain` gave; raises TypeError, ValueError and LookupError where it is something else."""
        renamed, points, gone, reported, missed, hidden, attributed, exchanged = plain
        return cls(
            renamed=[(_text(old), _text(new)) for old, new in renamed],
            points={(_text(boot), _count(number)): _plausible(one) for boot, number, *one in points},
            gone={(_text(boot), _count(number)) for boot, number in gone},
            reported={
                _text(boot): (_time(until), frozenset(map(_count, numbers))) for boot, until, numbers in reported
            },
            missed=[
                Missed(_text(uid), _time(start), _time(end), _counters(four), bool(at_clients))
                for uid, start, end, *four, at_clients in missed
            ],
            hidden={_text(uid): (_time(end), _counters(four)) for uid, end, *four in hidden},
            attributed={_text(uid): (_count(bytes_), _count(packets)) for uid, bytes_, packets in attributed},
            exchanged=None if exchanged is None else _exchanged(names, *exchanged),
        )


@dataclass(frozen=True, slots=True)
class Letter:
    """Rounds under a number; times in them are Redis's, to which the sender's machine's clock was `offset_us` behind."""

    boot: str
    """Of the shard's session."""
    seq: int
    shard: int
    whole: bool
    """Whether its first round has all points that the shard knows, and the ledger is to forget all others of it."""
    machine: str
    """The run of the sender's machine, whose monotonic clock this is."""
    offset_us: int
    error_us: int
    last_us: int
    """When it was sealed."""
    rounds: tuple[Round, ...]

    def moved(self, step_us: int) -> Letter:
        """The same by a clock that was set."""
        for one in self.rounds:
            one.shift(step_us)
        return replace(self, offset_us=self.offset_us + step_us, last_us=self.last_us + step_us)


def encode(letter: Letter) -> bytes:
    """The bytes of a letter."""
    head = [letter.boot, letter.seq, letter.shard, letter.whole, letter.machine]
    times = [letter.offset_us, letter.error_us, letter.last_us]
    packed: bytes = msgpack.packb([_VERSION, *head, *times, [one.plain() for one in letter.rounds]])
    return packed


def decode(names: Names, data: bytes) -> Letter:
    """The letter behind `data`, whose pods are numbered by `names`; raises LetterError."""
    try:
        version, boot, seq, shard, whole, machine, offset, error, sent, rounds = msgpack.unpackb(data)
        if version != _VERSION:
            raise LetterError(f"a letter of version {version!r}, not {_VERSION}")  # noqa: TRY301  # as everything else
        plain = tuple(Round.from_plain(names, one) for one in rounds)
        return Letter(
            *(_text(boot), _count(seq), _count(shard), bool(whole), _text(machine)),
            *(_time(offset), _count(error), _time(sent), plain),
        )
    except LetterError:
        raise
    except (TypeError, ValueError, LookupError, OverflowError) as error_:
        raise LetterError(f"no letter of version {_VERSION}: {error_!r}") from error_


def _exchanged(names: Names, stored: list[Any], counted: object) -> Exchanged:
    pairs = Pairs.restored(names, stored)
    if any(
        len(column) and not -_LATEST_US <= int(column.min()) <= int(column.max()) <= _LATEST_US
        for column in (pairs.starts, pairs.ends)
    ):
        raise ValueError("a time is out of bounds")
    if pairs.counts.sum(axis=0, dtype=np.float64).max(initial=0) > _MOST:
        raise ValueError("more than interfaces can count")
    column = wide(counted, len(pairs)).astype(np.int64)
    if column.max(initial=0) >= len(Counted):
        raise ValueError("no way of counting")
    return Exchanged(pairs, column)


def _counters(four: Sequence[Any]) -> InterfaceCounters:
    tx_bytes, tx_packets, rx_bytes, rx_packets = map(_count, four)
    return InterfaceCounters(tx_bytes, tx_packets, rx_bytes, rx_packets)


def _plausible(plain: Sequence[Any]) -> Sighting:
    one = Sighting.from_plain(plain)
    for moment in (one.from_us, one.reported_us, one.gap_from_us, one.gap_to_us):
        _time(moment)
    return one


def _time(one: object) -> int:
    """A time in microseconds, also as far as clocks may be set."""
    if type(one) is not int or not -_LATEST_US <= one <= _LATEST_US:
        raise ValueError("no time")
    return one


def _count(one: object) -> int:
    if type(one) is not int or not 0 <= one <= _MOST:
        raise ValueError("no count")
    return one


def _text(one: object) -> str:
    if not isinstance(one, str):
        raise TypeError("no text")
    return one
