"""One row per pod: its identity and its totals by scope."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from services.aggregator.ledger import Ledger
from services.aggregator.sums import Numbers, Table, table_of
from services.flows.scope import SCOPES
from services.flows.traffic import (
    ByScope,
    Identity,
    Row,
    RowChange,
    Tick,
    encode_changes,
    encode_identity,
    join_row,
)


class Moved(NamedTuple):
    """A row that got another uid (`number` is `into`), or was added to the row that had it."""

    uid: str
    number: int
    new_uid: str
    into: int


@dataclass(slots=True)
class RowState:
    """A row as the aggregator holds it; `since_us` is when it got its first bytes, 0 where not known.

    Its counters are in the `ledger` of all rows.
    """

    number: int
    identity: Identity
    ledger: Ledger
    window_us: int = 0
    since_us: int = 0

    encoded: bytes = b""
    """Its identity as it is stored; empty until somebody asks."""

    @property
    def totals(self) -> ByScope:
        """Its counters."""
        return self.ledger.of(self.number)

    def frozen(self) -> Row:
        """The row as it is stored."""
        return Row(self.number, self.identity, self.totals, self.window_us)


@dataclass(slots=True)
class Rows:
    """All rows by number and by pod, and what changed since the last commit."""

    by_number: dict[int, RowState] = field(default_factory=dict)
    by_uid: dict[str, int] = field(default_factory=dict)
    identities: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    next_number: int = 1
    ledger: Ledger = field(default_factory=Ledger)
    _changed: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The rows that got something since the last commit, and in which time."""
    _moved: list[Moved] = field(default_factory=list)

    @property
    def dirty(self) -> bool:
        """Whether anything changed since the last commit."""
        return bool(self._changed or self.identities or self.removed)

    @property
    def changed(self) -> set[int]:
        """The rows that must be stored again."""
        return set(self._changed) | self.identities

    def open(self, identity: Identity) -> RowState:
        """The row of the pod `identity.uid`, new where there is none."""
        number = self.by_uid.get(identity.uid)
        if number is not None:
            return self.by_number[number]
        row = RowState(self.next_number, identity, self.ledger)
        self.next_number += 1
        self._put(row)
        self.identities.add(row.number)
        return row

    def restore(self, stored: Row, since_us: int) -> None:
        """Take a row as it was stored, in a session that goes on since then."""
        self.ledger.put(stored.number, stored.totals)
        self._put(RowState(stored.number, stored.identity, self.ledger, stored.window_us, since_us))

    def identify(self, number: int, identity: Identity) -> None:
        """Set a row's identity."""
        row = self.by_number[number]
        if identity == row.identity:
            return
        if identity.uid != row.identity.uid:
            del self.by_uid[row.identity.uid]
            self.by_uid[identity.uid] = number
            self._moved.append(Moved(row.identity.uid, number, identity.uid, number))
        row.identity, row.encoded = identity, b""
        self.identities.add(number)

    def merge(self, number: int, into: int) -> None:
        """Add a row to another one, which turned out to be the same pod, and drop it."""
        row = self.by_number.pop(number)
        del self.by_uid[row.identity.uid]
        _, changed_us = self._changed.pop(number, (0, 0))
        self.identities.discard(number)
        self.removed.add(number)
        if totals := row.totals:
            end = changed_us or row.since_us
            self.ledger.drop(number)
            self.add(into, totals, row.since_us or end, end)
        self._moved.append(Moved(row.identity.uid, number, self.by_number[into].identity.uid, into))

    def take_moved(self) -> list[Moved]:
        """The rows that changed their uid or their number since the last call."""
        moved, self._moved = self._moved, []
        return moved

    def add(self, number: int, added: ByScope, start_us: int, end_us: int) -> None:
        """Add counters that came between two moments to a row."""
        count = len(added)
        scopes = np.array([SCOPES.index(scope) for scope in added], np.int64)
        rows, starts, ends = (np.full(count, one, np.int64) for one in (number, start_us, end_us))
        self.add_all(rows, scopes, starts, ends, table_of(list(added.values())))

    def add_all(self, rows: Numbers, scopes: Numbers, starts: Numbers, ends: Numbers, counts: Table) -> None:
        """The same for many rows, by column."""
        self.ledger.add(rows, scopes, counts)
        # A row's scopes have one window each time.
        told = dict.fromkeys(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))
        for number, start, end in told:
            row, before = self.by_number[number], self._changed.get(number)
            row.since_us = row.since_us or start
            if before is not None:
                start, end = min(before[0], start), max(before[1], end)  # noqa: PLW2901  # the span is what counts
            self._changed[number] = start, end
            row.window_us = end - start

    def changes(self) -> tuple[RowChange, ...]:
        """The increments of every row that changed."""
        added: dict[int, ByScope] = {number: {} for number in sorted(self._changed)}
        for number, scope, counts in zip(*(column.tolist() for column in self.ledger.added()), strict=True):
            added[number][SCOPES[scope]] = counts
        return tuple(RowChange(number, self.by_number[number].window_us, scopes) for number, scopes in added.items())

    def encoded_tick(self, tick: Tick) -> bytes:
        """A tick, with the increments of every row that changed."""
        added = self.ledger.added()
        rows = added.rows.tolist()
        windows = [self.by_number[number].window_us for number in rows]
        return encode_changes(tick, rows, added.scopes.tolist(), windows, added.counts.T.tolist())

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of the rows that must be stored again."""
        totals: dict[int, ByScope] = {number: {} for number in self.changed}
        for number, scope, counts in zip(*(column.tolist() for column in self.ledger.changed()), strict=True):
            totals[number][SCOPES[scope]] = counts
        for number in self.identities - self._changed.keys():
            totals[number] = self.ledger.of(number)
        for number, scopes in totals.items():
            row = self.by_number[number]
            row.encoded = row.encoded or encode_identity(row.identity)
            yield number, join_row(row.encoded, scopes, row.window_us)

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self._changed = {}
        self.ledger.committed()
        self.identities = set()
        self.removed = set()

    def _put(self, row: RowState) -> None:
        self.by_number[row.number] = row
        self.by_uid[row.identity.uid] = row.number
