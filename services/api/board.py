"""What clients see of the mirror, and since when each row looks as it does."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from services.api.counters import RX, TX, column_bytes, syns, total_bytes
from services.api.mirror import Mirror, RowView
from services.flows import live_message
from services.flows.keys import HISTORY_BUCKET_S
from services.flows.live_message import COLUMNS, Numbers, Pod, State
from services.flows.scope import Column, Scope
from services.flows.traffic import no_counts

_REMEMBERED: Final = 1000
"""Sequence numbers that a client may resume from: more than ticks are kept."""
_GONE_KEPT: Final = 10_000
"""Rows that went, for clients that have not heard of it; older clients get a snapshot."""
_TEXTS_KEPT: Final = 16
"""Encoded messages: clients that keep up share one, those that lag have bases of their own."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a client has: a revision of the board, which was sent under `seq`."""

    revision: int
    seq: int


@dataclass(slots=True)
class Board:
    """The rows of one epoch as clients know them; a message is encoded once for all that have the same base."""

    epoch: int
    revision: int = 0
    """Changes whenever there is news."""
    _state: State | None = None
    _mirror: Mirror | None = None
    _seen: int = -1
    _live: frozenset[str] = frozenset()
    _shown: dict[str, RowView] | None = None
    _first: int = 1
    _pods: dict[int, Pod] = field(default_factory=dict)
    _numbers: dict[int, Numbers] = field(default_factory=dict)
    _pod_since: dict[int, int] = field(default_factory=dict)
    _since: dict[int, int] = field(default_factory=dict)
    _gone: deque[tuple[int, int]] = field(default_factory=deque)
    _revision_of: OrderedDict[int, int] = field(default_factory=OrderedDict)
    _texts: OrderedDict[int, str] = field(default_factory=OrderedDict)

    def base_of(self, epoch: int, seq: int) -> Base | None:
        """What a client has that got no further than `seq`; None where it must begin anew."""
        revision = self._revision_of.get(seq, 0) if epoch == self.epoch else 0
        return Base(revision, seq) if revision >= self._first else None

    def update(self, mirror: Mirror, problem: str) -> None:
        """Take the mirror as it is now."""
        live, shown = mirror.live_nodes(), mirror.shown()
        # A mirror that was read anew counts its revisions anew; liveness and namesakes change rows that no tick names.
        everything = mirror is not self._mirror or live != self._live or shown is not self._shown
        changed = self._take_rows(mirror, -1 if everything else self._seen)
        if everything:
            changed |= self._drop({row.number for row in shown.values()}, mirror)
        self._mirror, self._live, self._shown, self._seen = mirror, live, shown, mirror.revision
        state = State(
            epoch=self.epoch,
            seq=mirror.n,
            # The time of the last tick, not of now: it alone would be news to nobody.
            ts=mirror.at_us / 1e6,
            started=mirror.session.started_us / 1e6,
            reporting=(len(live), len(mirror.nodes)),
            totals=_summed(self._numbers.values(), known=bool(live)),
            problem=problem,
        )
        if not changed and state == self._state:
            return
        self._state = state
        self.revision += 1
        self._texts.clear()
        self._revision_of.setdefault(state.seq, self.revision)
        while len(self._revision_of) > _REMEMBERED:
            self._revision_of.popitem(last=False)

    def news(self, base: Base | None) -> tuple[Base, str] | None:
        """What a client with `base` is to be sent, and what it has then; None where it has everything."""
        if self._state is None or (base is not None and base.revision == self.revision):
            return None
        if base is not None and base.revision < self._first:
            base = None
        key = base.revision if base else 0
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._encode(base)
            if len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        return Base(self.revision, self._state.seq), text

    def _take_rows(self, mirror: Mirror, seen: int) -> bool:
        """Take rows that changed after the mirror's revision `seen`; whether anything is new."""
        revision, shown, news = self.revision + 1, mirror.shown(), False
        for row in mirror.rows.values():
            if row.revision <= seen:
                continue
            taken = numbers(row, live=mirror.live_row(row))
            if self._numbers.get(row.number) != taken:
                self._numbers[row.number], self._since[row.number], news = taken, revision, True
            pod = _pod(row)
            if shown[row.identity.key] is row and self._pods.get(row.number) != pod:
                self._pods[row.number], self._pod_since[row.number], news = pod, revision, True
        return news

    def _drop(self, shown: set[int], mirror: Mirror) -> bool:
        """Forget rows that are there no more, or shown no more; whether there are any."""
        for number in self._numbers.keys() - mirror.rows.keys():
            del self._numbers[number], self._since[number]
        gone = self._pods.keys() - shown
        for number in gone:
            del self._pods[number], self._pod_since[number]
            self._gone.append((self.revision + 1, number))
        while len(self._gone) > _GONE_KEPT:
            self._first = max(self._first, self._gone.popleft()[0])
        return bool(gone)

    def _encode(self, base: Base | None) -> str:
        assert self._state is not None
        since = base.revision if base else -1
        ids = [number for number in self._pods if self._since[number] > since or self._pod_since[number] > since]
        rows = [self._numbers[number] for number in ids]
        add = [pod for number, pod in self._pods.items() if self._pod_since[number] > since]
        if base is None:
            return orjson.dumps(live_message.snapshot(self._state, add, ids, rows, self._timeline())).decode()
        gone = [number for revision, number in self._gone if revision > since]
        return orjson.dumps(live_message.delta(self._state, base.seq, ids, rows, add, gone)).decode()

    def _timeline(self) -> list[list[int]]:
        assert self._mirror is not None
        return [[number * HISTORY_BUCKET_S, *columns] for number, columns in sorted(self._mirror.timeline.items())]


def numbers(row: RowView, *, live: bool) -> Numbers:
    """A row's numbers in the order of `live_message.COLUMNS`."""
    total = total_bytes(row.totals)
    if not live:
        return (*([None] * (len(COLUMNS) - 1)), total)
    rates, column = row.rates, column_bytes(row.rates)
    internet = rates.get(Scope.INTERNET) or no_counts()
    return (
        sum(counts[TX] for counts in rates.values()),
        sum(counts[RX] for counts in rates.values()),
        column[Column.LOCAL],
        column[Column.CROSS],
        column[Column.PRIVATE],
        internet[TX],
        internet[RX],
        column[Column.OTHER],
        syns(rates),
        total,
    )


def _summed(rows: Iterable[Numbers], *, known: bool) -> Numbers:
    """All rows together; rates are null where no agent reports at all."""
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    sums = [sum(value for value in column if value is not None) for column in columns]
    return tuple(value if known or name == "total" else None for name, value in zip(COLUMNS, sums, strict=True))


def _pod(row: RowView) -> Pod:
    who = row.identity
    return Pod(
        id=row.number,
        namespace=who.namespace,
        name=who.pod,
        node=who.node,
        zone=who.zone,
        ip=who.ip,
        interface=who.interface,
        coverage=who.coverage,
        ended_s=who.gone_us / 1e6,
    )
