"""Reads batches in order and commits what they say: each exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from services.aggregator.decisions import Decided
from services.aggregator.letter import Letter
from services.aggregator.letters import Sender
from services.aggregator.messages import RefusedError, letters_of, opened, rows_of
from services.aggregator.post import Post
from services.aggregator.store import Commit, Store, StoreLostError
from services.aggregator.totals import Totals
from services.flows import keys
from services.flows.delivery import Inbox, Verdict
from services.flows.delta import Batch
from services.runtime.clock import Clock, kernel_run
from services.runtime.log import get_logger

_log = get_logger(__name__)

_FORGET_BOOT_US: Final = 7_200_000_000
"""An agent silent for two hours is gone; its boot id will not come back."""
_LONGEST_BOOT: Final = 64
_LARGEST_SEQ: Final = 1 << 62
_GATHER_S: Final = 0.05
"""How often is looked for further batches until a commit is due."""
_MOST_ROWS: Final = 200_000
"""Flows and attachments that wait to be booked together, some hundred bytes each; more would gain nothing."""


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The fields of an entry in the stream."""

    boot: str
    seq: int
    confirmed: int
    payload: bytes

    @classmethod
    def of(cls, fields: Mapping[bytes, bytes]) -> _Envelope:
        """Read them; raises RefusedError."""
        try:
            boot = fields[keys.FIELD_BOOT].decode()
            seq, confirmed = int(fields[keys.FIELD_SEQ]), int(fields[keys.FIELD_CONFIRMED])
            envelope = cls(boot, seq, confirmed, fields[keys.FIELD_BATCH])
        except (KeyError, ValueError) as error:
            raise RefusedError(f"its envelope is malformed: {error!r}") from error
        if not 0 < len(boot) <= _LONGEST_BOOT or boot == keys.APPLIED_CURSOR.decode():
            raise RefusedError("its boot id is none")
        if not (0 < seq < _LARGEST_SEQ and 0 <= confirmed < _LARGEST_SEQ):
            raise RefusedError("its number is out of bounds")
        return envelope


@dataclass(slots=True)
class Work:
    """What was done since the process began; times are monotonic microseconds."""

    batches: int = 0
    """That were booked."""
    commits: int = 0
    commit_us: int = 0
    committed_at_us: int = 0
    """When the last commit was made, in Redis's time."""


@dataclass(slots=True)
class Consumer:
    """The one task that owns the totals of a shard.

    Commits are at least `tick_interval_s` apart while batches keep coming, and a batch waits no
    longer than that for its commit.
    """

    store: Store
    totals: Totals
    clock: Clock
    tick_interval_s: float
    post: Post | None = None
    """Between a shard and the ledger, where nodes are divided over several."""
    machine: str = field(default_factory=kernel_run)
    """The run of the machine whose clock `clock` is."""
    inbox: Inbox = field(default_factory=Inbox)
    cursor: bytes = b"0-0"
    work: Work = field(default_factory=Work)
    _applied: set[str] = field(default_factory=set)
    _heard_us: dict[str, int] = field(default_factory=dict)
    """When each boot id was heard last, by our own clock: Redis's may be set."""
    _due_us: int = 0
    _refused: bool = False
    _waiting: list[Batch | Letter] = field(default_factory=list)
    """Batches that are to be booked together."""
    _rows: int = 0
    """Their flows and attachments."""

    async def load(self) -> None:
        """Go on where the previous aggregator of this shard stopped, or begin a session."""
        # What an attempt that failed half-way read is of no use.
        self._waiting, self._rows = [], 0
        totals = self.totals.anew()
        stored = await self.store.load(totals)
        self.totals = totals
        now = await self.store.now_us()
        if stored is None:
            self.store.fresh(now)
            await self._commit(now)
            _log.info("session-begins", epoch=self.store.epoch)
        else:
            self.inbox.applied, self.cursor = stored
            totals.history.drop_later(now)
            # Who is new is asked before anything is settled.
            totals.backing.refresh(now)
            _log.info("session-continues", epoch=self.store.epoch, n=self.store.n, rows=len(totals.rows.by_number))
        self._heard_us = dict.fromkeys(self.inbox.applied, self.clock.monotonic_us())

    async def step(self, block_ms: int) -> None:
        """Read what is there, or wait for it up to `block_ms`, and commit it."""
        try:
            # A commit whose reply was lost comes first: what is read now belongs to the next one.
            await self.store.settle(self.totals)
            before = await self.store.now_us()
            settled_us = self.store.timeline.about_now_us()
            entries = await self._read(block_ms)
            if not entries:
                await self._idle(before, settled_us)
                return
            while self._take(entries) and (left_us := self._due_us - self.clock.monotonic_us()) > 0:
                # A thousand agents report at any moment: together their batches cost a tenth.
                await asyncio.sleep(min(left_us / 1e6, _GATHER_S))
                entries = await self._read(1)
            await self._commit(await self.store.now_us())
        except StoreLostError:
            await self._rewrite()

    async def _read(self, block_ms: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        entries = await self.store.read(self.cursor, block_ms)
        if entries:
            # Their agents read Redis's clock before: what they may know of it we know as well.
            await self.store.now_us()
            await self._hear()
        return entries

    async def _hear(self) -> None:
        """Take what the ledger has decided."""
        letters = letters_of(self.totals)
        if self.post is not None and letters is not None and isinstance(self.totals.backing, Decided):
            await self.post.read(letters, self.totals.backing)

    async def _tell(self) -> None:
        """Send what the ledger may not have."""
        letters = letters_of(self.totals)
        if self.post is not None and letters is not None:
            await self.post.send(letters)

    async def _rewrite(self) -> None:
        """Write everything under a new epoch: the store lost it, this memory has it."""
        now = await self.store.now_us()
        self.store.fresh(now)
        # Stream ids of an emptied store begin anew.
        self.cursor = b"0-0"
        self._applied = set(self.inbox.applied)
        await self._commit(now)
        _log.warning("store-was-lost", epoch=self.store.epoch, rows=len(self.totals.rows.by_number))

    async def _idle(self, before_us: int, settled_us: int) -> None:
        # Everything that was there when the read began was read: agents may know.
        await self._hear()
        self._book()
        self.totals.settle(settled_us)
        cursor = f"{before_us // 1000 - 1}-0".encode()
        if _id(cursor) > _id(self.cursor):
            self.cursor = cursor
        if self.totals.dirty:
            await self._commit(before_us)
        else:
            await self.store.renew(self.cursor)
            await self._tell()

    async def _commit(self, now_us: int) -> None:
        self._book()
        self.totals.settle(self.store.timeline.about_now_us())
        began_us = self.clock.monotonic_us()
        for boot in self._applied:
            self._heard_us[boot] = began_us
        forgotten = tuple(boot for boot, heard in self._heard_us.items() if heard < began_us - _FORGET_BOOT_US)
        for boot in forgotten:
            del self._heard_us[boot]
            self.inbox.applied.pop(boot, None)
        applied = {boot: self.inbox.applied[boot] for boot in self._applied if boot in self.inbox.applied}
        if (letters := letters_of(self.totals)) is not None:
            timeline = self.store.timeline
            letters.seal(Sender(self.totals.shard, self.machine, timeline.offset, timeline.about_now_us()))
        await self.store.commit(self.totals, Commit(applied, forgotten, self.cursor, now_us))
        self.work.commits += 1
        self.work.commit_us += self.clock.monotonic_us() - began_us
        self.work.committed_at_us = now_us
        self._applied.clear()
        self._refused = False
        self._due_us = self.clock.monotonic_us() + int(self.tick_interval_s * 1_000_000)
        await self._tell()

    def _take(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> bool:
        """Take entries in order; False where there was no time for all of them."""
        # Large batches take a while: the first ones must not wait for the last.
        end_us = self.clock.monotonic_us() + int(self.tick_interval_s * 1_000_000)
        for entry, fields in entries:
            if self.clock.monotonic_us() > end_us:
                return False
            try:
                if (batch := self._batch(_Envelope.of(fields))) is not None:
                    self._waiting.append(batch)
                    self._rows += rows_of(batch)
            except RefusedError as error:
                self._refuse(str(error))
            self.cursor = entry
            if self._rows > _MOST_ROWS:
                self._book()
        return True

    def _batch(self, envelope: _Envelope) -> Batch | Letter | None:
        """The batch, or letter, of an entry that is to be booked; raises RefusedError."""
        boot, seq = envelope.boot, envelope.seq
        if gone := self.inbox.skip(boot, envelope.confirmed):
            self.totals.lose("batch-gone", gone)
            _log.warning("batches-gone", boot=boot, batches=gone, why="confirmed by totals that were lost")
        verdict = self.inbox.judge(boot, seq, envelope.confirmed)
        # Also of an agent that is told nothing but "ahead" it is known when it was heard last.
        self._applied.add(boot)
        if verdict is not Verdict.APPLY:
            self.totals.lose(f"batch-{verdict.value}")
            return None
        # A frozen batch that cannot be read will never be: waiting for it would stop its agent.
        self.inbox.apply(boot, seq)
        batch = opened(self.totals, envelope.payload)
        if (batch.boot, batch.seq) != (boot, seq):
            raise RefusedError("its envelope names another batch")
        return self.store.timeline.place(batch, self._shift)

    def _shift(self, step_us: int) -> None:
        """Redis's clock was set: nothing else is to follow from it."""
        _log.warning("clock-set", by_s=round(step_us / 1e6, 1))
        self._book()
        self.totals.shift(step_us)
        self.store.started_us += step_us

    def _book(self) -> None:
        """Book what was taken."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        self.totals.apply(*cast("list[Batch]", waiting))
        self.work.batches += len(waiting)

    def _refuse(self, why: str) -> None:
        self.totals.lose("batch-malformed")
        if not self._refused:
            _log.warning("batch-malformed", why=why, note="further ones are only counted until the next commit")
        self._refused = True


def _id(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number or 0)
