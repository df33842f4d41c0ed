"""Reads batches in order and commits what they say: each exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from services.aggregator.store import Commit, Store, StoreLostError
from services.aggregator.totals import Totals
from services.flows import keys, wire
from services.flows.delivery import Inbox, Verdict
from services.runtime.log import get_logger

_log = get_logger(__name__)

_FORGET_BOOT_US: Final = 7_200_000_000
"""An agent silent for two hours is gone; its boot id will not come back."""


@dataclass(slots=True)
class Consumer:
    """The one task that owns the totals of a shard."""

    store: Store
    totals: Totals
    inbox: Inbox = field(default_factory=Inbox)
    cursor: bytes = b"0-0"
    _applied: set[str] = field(default_factory=set)
    _heard_us: dict[str, int] = field(default_factory=dict)
    _refused: bool = False

    async def load(self) -> None:
        """Go on where the previous aggregator of this shard stopped, or begin a session."""
        stored = await self.store.load(self.totals)
        now = await self.store.now_us()
        if stored is None:
            self.store.fresh(now)
            await self._commit(now)
            _log.info("session-begins", epoch=self.store.epoch)
        else:
            self.inbox.applied, self.cursor = stored
            _log.info("session-continues", epoch=self.store.epoch, n=self.store.n, rows=len(self.totals.rows.by_number))
        self._heard_us = dict.fromkeys(self.inbox.applied, now)

    async def step(self, block_ms: int) -> None:
        """Read what is there, or wait for it up to `block_ms`, and commit it."""
        try:
            # A commit whose reply was lost comes first: what is read now belongs to the next one.
            await self.store.settle(self.totals)
            before = await self.store.now_us()
            entries = await self.store.read(self.cursor, block_ms)
            for entry, fields in entries:
                self._take(fields)
                self.cursor = entry
            if entries:
                await self._commit(await self.store.now_us())
            else:
                await self._idle(before)
        except StoreLostError:
            await self.rewrite()

    async def rewrite(self) -> None:
        """Write everything under a new epoch: the store lost it, this memory has it."""
        now = await self.store.now_us()
        self.store.fresh(now)
        # Stream ids of an emptied store begin anew.
        self.cursor = b"0-0"
        self._applied = set(self.inbox.applied)
        await self._commit(now)
        _log.warning("store-was-lost", epoch=self.store.epoch, rows=len(self.totals.rows.by_number))

    async def _idle(self, before_us: int) -> None:
        # Everything that was there when the read began was read: agents may know.
        self.totals.settle(before_us)
        cursor = f"{before_us // 1000 - 1}-0".encode()
        if _id(cursor) > _id(self.cursor):
            self.cursor = cursor
        if self.totals.dirty:
            await self._commit(before_us)
        else:
            await self.store.renew(self.cursor)

    async def _commit(self, now_us: int) -> None:
        self.totals.settle(now_us)
        forgotten = tuple(boot for boot, heard in self._heard_us.items() if heard < now_us - _FORGET_BOOT_US)
        for boot in forgotten:
            del self._heard_us[boot]
            self.inbox.applied.pop(boot, None)
        applied = {boot: self.inbox.applied[boot] for boot in self._applied if boot in self.inbox.applied}
        for boot in self._applied:
            self._heard_us[boot] = now_us
        await self.store.commit(self.totals, Commit(applied, forgotten, self.cursor, now_us))
        self._applied.clear()
        self._refused = False

    def _take(self, fields: Mapping[bytes, bytes]) -> None:
        try:
            boot = fields[keys.FIELD_BOOT].decode()
            seq, confirmed = int(fields[keys.FIELD_SEQ]), int(fields[keys.FIELD_CONFIRMED])
            payload = fields[keys.FIELD_BATCH]
        except (KeyError, ValueError) as error:
            self._refuse(f"its envelope is malformed: {error!r}")
            return
        verdict = self.inbox.judge(boot, seq, confirmed)
        if verdict is not Verdict.APPLY:
            self.totals.lose(f"batch-{verdict.value}")
            return
        try:
            batch = wire.decode(payload)
            if (batch.boot, batch.seq) == (boot, seq):
                self.totals.apply(batch)
            else:
                self._refuse("its envelope names another batch")
        except wire.WireError as error:
            self._refuse(str(error))
        # A frozen batch that cannot be read will never be: waiting for it would stop its agent.
        self.inbox.apply(boot, seq)
        self._applied.add(boot)

    def _refuse(self, why: str) -> None:
        self.totals.lose("batch-malformed")
        if not self._refused:
            _log.warning("batch-malformed", why=why, note="further ones are only counted until the next commit")
        self._refused = True


def _id(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number or 0)
