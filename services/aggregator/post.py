"""Carries a shard's letters to the ledger, and the ledger's decisions to the shard."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis

from services.aggregator import decisions
from services.aggregator.decisions import Decided
from services.aggregator.letters import Letters
from services.flows import keys
from services.flows.delivery import stream_id
from services.flows.keys import APPLIED_CURSOR, DECISIONS, FIELD_BATCH, FIELD_BOOT, FIELD_CONFIRMED, FIELD_SEQ, Keys
from services.runtime.errors import PodloxxError

_NAMES: Final = Keys(keys.LEDGER)


class Post:
    """Raises RedisError where Redis fails."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def read(self, letters: Letters, decided: Decided) -> None:
        """Take what the ledger decided, and which letters it has.

        After batches were read and before they are booked: they are not to follow an older decision.
        """
        found = await self._redis.hget(_NAMES.totals, DECISIONS)
        if found is None:
            # It has not begun: letters wait, and Services count at their backends.
            return
        try:
            session, decided.changes = decisions.decode(found)
        except (TypeError, ValueError) as error:
            raise PodloxxError(
                f"what the ledger decided cannot be read ({error!r}): it is of another version of podloxx, or damaged. "
                "Use one version for all aggregators, or empty that Redis to begin a new session."
            ) from error
        letters.told_by(session)
        applied, cursor = await self._redis.hmget(_NAMES.applied, [letters.boot, APPLIED_CURSOR])
        if applied is not None:
            letters.confirm(int(applied))
        if cursor is not None:
            letters.sent.read(stream_id(cursor))

    async def send(self, letters: Letters) -> None:
        """Send the letters that are in the store and of which it is not sure that the ledger can read them."""
        for one in letters.due():
            letters.sent.sending(one)
            fields = {
                FIELD_BOOT: letters.boot,
                FIELD_SEQ: one.seq,
                FIELD_CONFIRMED: letters.sent.confirmed,
                FIELD_BATCH: one.payload,
            }
            entry = await self._redis.xadd(_NAMES.flows, fields)
            letters.sent.arrived(one, stream_id(entry))
