"""One row per pod: its identity and its totals by scope."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from services.flows.traffic import ByScope, Identity, Row, RowChange, add_scopes


class Moved(NamedTuple):
    """A row that got another uid (`number` is `into`), or was added to the row that had it."""

    uid: str
    number: int
    new_uid: str
    into: int


@dataclass(slots=True)
class RowState:
    """A row as the aggregator holds it; `since_us` is when it got its first bytes, 0 where not known."""

    number: int
    identity: Identity
    totals: ByScope = field(default_factory=dict)
    window_us: int = 0
    since_us: int = 0

    def frozen(self) -> Row:
        """The row as it is stored."""
        return Row(self.number, self.identity, self.totals, self.window_us)


@dataclass(slots=True)
class _Change:
    """What a row got since the last commit, and in which time."""

    start_us: int
    end_us: int
    added: ByScope = field(default_factory=dict)


@dataclass(slots=True)
class Rows:
    """All rows by number and by pod, and what changed since the last commit."""

    by_number: dict[int, RowState] = field(default_factory=dict)
    by_uid: dict[str, int] = field(default_factory=dict)
    identities: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    next_number: int = 1
    _changed: dict[int, _Change] = field(default_factory=dict)
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
        row = RowState(self.next_number, identity)
        self.next_number += 1
        self.restore(row)
        self.identities.add(row.number)
        return row

    def restore(self, row: RowState) -> None:
        """Take a row as it was stored."""
        self.by_number[row.number] = row
        self.by_uid[row.identity.uid] = row.number

    def identify(self, number: int, identity: Identity) -> None:
        """Set a row's identity."""
        row = self.by_number[number]
        if identity == row.identity:
            return
        if identity.uid != row.identity.uid:
            del self.by_uid[row.identity.uid]
            self.by_uid[identity.uid] = number
            self._moved.append(Moved(row.identity.uid, number, identity.uid, number))
        row.identity = identity
        self.identities.add(number)

    def merge(self, number: int, into: int) -> None:
        """Add a row to another one, which turned out to be the same pod, and drop it."""
        row = self.by_number.pop(number)
        del self.by_uid[row.identity.uid]
        change = self._changed.pop(number, None)
        self.identities.discard(number)
        self.removed.add(number)
        if row.totals:
            end = change.end_us if change else row.since_us
            self.add(into, row.totals, row.since_us or end, end)
        self._moved.append(Moved(row.identity.uid, number, self.by_number[into].identity.uid, into))

    def take_moved(self) -> list[Moved]:
        """The rows that changed their uid or their number since the last call."""
        moved, self._moved = self._moved, []
        return moved

    def add(self, number: int, added: ByScope, start_us: int, end_us: int) -> None:
        """Add counters that came between two moments to a row."""
        row = self.by_number[number]
        row.since_us = row.since_us or start_us
        change = self._changed.setdefault(number, _Change(start_us, end_us))
        change.start_us, change.end_us = min(change.start_us, start_us), max(change.end_us, end_us)
        row.window_us = change.end_us - change.start_us
        add_scopes(row.totals, added)
        add_scopes(change.added, added)

    def changes(self) -> tuple[RowChange, ...]:
        """The increments of every row that changed."""
        return tuple(
            RowChange(number, change.end_us - change.start_us, change.added)
            for number, change in sorted(self._changed.items())
        )

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self._changed = {}
        self.identities = set()
        self.removed = set()
