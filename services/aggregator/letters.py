"""What a shard has for the ledger: told in letters, by the protocol of agents' batches.

What is booked is written into rounds. A commit seals them into a letter, so the letter is in the store together with
the totals that it follows from; then it may be sent, again and again, until the ledger has it. At most `MOST_SEALED` are under way:
what waits behind them, where the ledger is away, is added up.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack
import numpy as np

from services.aggregator import letter
from services.aggregator.attachments import Points
from services.aggregator.booking import Told
from services.aggregator.cluster_totals import Missed
from services.aggregator.letter import Exchanged, Letter, Round
from services.aggregator.pairs import Pairs
from services.aggregator.point import Key, Point
from services.aggregator.sightings import Sighting
from services.aggregator.sums import Numbers
from services.aggregator.timeline import Offset
from services.flows.delivery import Frozen, Sent
from services.flows.delta import InterfaceCounters
from services.flows.traffic import ByScope, Counted, add_scopes

MOST_SEALED: Final = 8
"""Letters that the ledger may not have yet: two seconds of commits."""
_MOST_ROUNDS: Final = 16
"""Rounds that wait; more are added up."""
_LETTER: Final = "letter:"
_WAITING: Final = f"{_LETTER}waiting"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who writes, and by which clock."""

    shard: int
    machine: str
    offset: Offset
    now_us: int


@dataclass(slots=True)
class Letters:
    """A shard's `Accounts`: nothing is decided here but what nobody else can tell."""

    points: Points
    counts: ByScope = field(default_factory=dict)
    changed: ByScope = field(default_factory=dict)
    overlap_bytes: int = 0
    boot: str = field(default_factory=lambda: secrets.token_hex(8))
    """Of this session: the ledger counts its letters."""
    sent: Sent = field(default_factory=Sent)
    """Letters that are sealed, and that the ledger may not have."""
    _next: int = 1
    _waiting: list[Round] = field(default_factory=list)
    _round: Round = field(default_factory=Round)
    _told: dict[Key, Sighting] = field(default_factory=dict)
    """What the ledger was told last of each point, up to when it was reported."""
    _ledger: str = ""
    _whole: bool = True
    """Whether the next letter must have all points: the ledger has not heard of this session, or begins anew."""
    _ready: int = 0
    """Up to which number letters are in the store, so that they may be sent."""
    _pending_bytes: dict[int, int] = field(default_factory=dict)
    """In each sealed letter; in those of a former owner they are not known."""
    _fields: dict[str, bytes] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    """What of the letters must be stored, and removed, with the next commit."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of which the ledger has not been told, about."""
        return sum(one.bytes for one in (*self._waiting, self._round)) + sum(self._pending_bytes.values())

    @property
    def dirty(self) -> bool:
        """Whether a commit has something to do: where nothing can be sealed, what waits is in the store already."""
        return bool(
            self.changed or self._gone or ((self._waiting or self._round) and len(self.sent.frozen) < MOST_SEALED)
        )

    def add(self, added: ByScope) -> None:
        """Take what nobody else can tell."""
        add_scopes(self.counts, added)
        add_scopes(self.changed, added)

    def sighted(self, told: Sequence[Told]) -> None:
        """Agents told of these windows, and all that follows for their nodes' points is known."""
        for one in told:
            for key, point in self.points.of_node.get(one.batch.node, {}).items():
                self._sight(key, point)
            if numbers := frozenset(entry.id for entry in one.window.attachments):
                self._round.report(one.batch.boot, one.batch.times(one.window)[1], numbers)

    def forgotten(self, gone: Iterable[Key]) -> None:
        """Nobody can ask about these points any more."""
        for key in gone:
            self._told.pop(key, None)
            self._round.points.pop(key, None)
            self._round.gone.add(key)

    def exchange(self, served: Pairs, pairs: Pairs, counted: Numbers) -> None:
        """Take what pods exchanged: it is the last of a round."""
        both = np.concatenate([np.full(len(served), Counted.HERE, np.int64), counted])
        if len(both):
            self._round.exchanged = Exchanged.of(served.plus(pairs), both)
        self._close()

    def miss(self, missed: Missed) -> None:
        """Take what passed a pod that had no agent."""
        self._round.missed.append(missed)

    def hide(self, uid: str, end_us: int, counters: InterfaceCounters) -> None:
        """Take what passed a pod's source unseen until then."""
        self._round.hide(uid, end_us, counters)

    def attributed(self, uid: str, bytes_: int, packets: int) -> None:
        """So much of what others sent to a pod is not among what passed it unseen any more."""
        self._round.attribute(uid, bytes_, packets)

    def rename(self, old: str, new: str) -> None:
        """A pod turned out to have another uid."""
        self._round.rename(old, new)

    def settle(self, now_us: int) -> None:
        """The ledger does that."""

    def shift(self, step_us: int) -> None:
        """Redis's clock was set; letters that are sealed say by which clock they were written."""
        for one in (*self._waiting, self._round):
            one.shift(step_us)
        self._told = {key: one.shifted(step_us) for key, one in self._told.items()}

    def told_by(self, session: str) -> None:
        """Take which session of the ledger reads the letters: another one knows nothing of this shard."""
        self._whole |= session != self._ledger
        self._ledger = session

    def seal(self, sender: Sender) -> None:
        """Make what waits a letter, or bring it into the store as it is; a commit must follow."""
        self._close()
        if not self._waiting:
            return
        if len(self.sent.frozen) >= MOST_SEALED:
            self._fields[_WAITING] = msgpack.packb([one.plain() for one in self._waiting])
            return
        rounds = [self._everything(), *self._waiting] if self._whole else self._waiting
        at = sender.machine, sender.offset.us, sender.offset.error_us, sender.now_us
        sealed = letter.encode(Letter(self.boot, self._next, sender.shard, self._whole, *at, tuple(rounds)))
        self.sent.frozen.append(Frozen(self._next, sealed))
        self._fields[f"{_LETTER}{self._next}"] = sealed
        self._pending_bytes[self._next] = sum(one.bytes for one in self._waiting)
        self._fields.pop(_WAITING, None)
        self._gone.add(_WAITING)
        self._next += 1
        self._waiting, self._whole = [], False

    def due(self) -> list[Frozen]:
        """Letters to send, in order."""
        return [one for one in self.sent.due() if one.seq <= self._ready]

    def confirm(self, applied: int) -> None:
        """Forget letters that the ledger has in its totals."""
        sealed = {one.seq for one in self.sent.frozen}
        self.sent.confirm(applied)
        for number in sealed - {one.seq for one in self.sent.frozen}:
            self._pending_bytes.pop(number, None)
            self._fields.pop(f"{_LETTER}{number}", None)
            self._gone.add(f"{_LETTER}{number}")

    def stored_fields(self, *, every: bool) -> dict[str, bytes]:
        """The letters that must be stored by name, or all of them."""
        if not every:
            return self._fields
        return {f"{_LETTER}{one.seq}": one.payload for one in self.sent.frozen} | self._fields

    def gone_fields(self) -> list[str]:
        """What must not be stored any more."""
        return sorted(self._gone - self._fields.keys())

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.changed, self._fields, self._gone = {}, {}, set()
        self._ready = self._next - 1

    def stored(self) -> dict[str, Any]:
        """What else must be known to go on."""
        return {"letters": [self.boot, self._next, self.sent.confirmed, self._whole, self._ledger]}

    def restore(self, stored: Mapping[str, Any], fields: Mapping[bytes, bytes]) -> None:
        """Take what `stored` and `stored_fields` gave."""
        self.boot, self._next, self.sent.confirmed, self._whole, self._ledger = stored["letters"]
        self._ready = self._next - 1
        head = _LETTER.encode()
        letters = {name[len(head) :]: value for name, value in fields.items() if name.startswith(head)}
        waiting = letters.pop(_WAITING.encode()[len(head) :], None)
        if waiting is not None:
            self._waiting = [Round.from_plain(self.points.names, one) for one in msgpack.unpackb(waiting)]
        self.sent.frozen.extend(Frozen(number, letters[str(number).encode()]) for number in sorted(map(int, letters)))

    def _sight(self, key: Key, point: Point) -> None:
        uid, before = self._uid(point), self._told.get(key)
        if before is None or not before.tells(point, uid):
            self._told[key] = self._round.points[key] = Sighting.of(point, uid)

    def _everything(self) -> Round:
        """A round with all points as they are by now."""
        now = {key: Sighting.of(point, self._uid(point)) for key, point in self.points.known.items()}
        self._told |= now
        return Round(points=now)

    def _uid(self, point: Point) -> str:
        return self.points.rows.by_number[point.row].identity.uid

    def _close(self) -> None:
        if not self._round:
            return
        self._waiting.append(self._round)
        self._round = Round()
        if len(self._waiting) > _MOST_ROUNDS:
            first, *others = self._waiting
            for one in others:
                first.then(one)
            self._waiting = [first]
