"""Brings windows into the totals through Redis, whatever happens to Redis or the aggregator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.flows import keys, wire
from services.flows.delivery import NOTHING_READ, Frozen, Outbox, stream_id
from services.flows.delta import Batch, Window
from services.runtime import redis_client
from services.runtime.clock import Clock
from services.runtime.log import get_logger

_log = get_logger(__name__)

_SAMPLES: Final = 30
"""Clock samples kept: half a minute at one a second, in which two good clocks drift 3 ms apart."""
_ROUND_S: Final = 5.0
"""The largest batch takes this at 13 Mbit/s."""
_DRIFT: Final = 1e-4
"""Bound on how fast two clocks drift apart."""


@dataclass(frozen=True, slots=True)
class ClockSample:
    """One reading of Redis's clock against ours; all in microseconds."""

    at_us: int
    offset_us: int
    error_us: int

    def error_at(self, now_us: int) -> int:
        """How wrong the offset can be by now."""
        return self.error_us + int(abs(now_us - self.at_us) * _DRIFT) + 1

    def agrees(self, earlier: ClockSample) -> bool:
        """Whether both can be of clocks that nobody has set meanwhile."""
        return abs(self.offset_us - earlier.offset_us) <= self.error_us + earlier.error_at(self.at_us)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who publishes: the node, a boot id that is new at every start of the agent, and the kernel's own.

    With `own_time` windows carry times that are Redis's already (a file's time), and no offset.
    """

    node: str
    boot: str
    machine: str = ""
    own_time: bool = False


class Publisher:
    """Sends batches in order and again until they are confirmed; owns the outbox."""

    def __init__(self, redis: Redis, names: keys.Keys, origin: Origin, batch_rows: int, clock: Clock) -> None:
        self._redis = redis
        self._names = names
        self._origin = origin
        self._clock = clock
        self._outbox = Outbox(self._encode, batch_rows)
        self._samples: deque[ClockSample] = deque(maxlen=_SAMPLES)
        self._gauges: Mapping[str, float] = {}
        self._reached_us = clock.monotonic_us()
        self._failing = False

    @property
    def unconfirmed(self) -> int:
        """Windows and batches that are not in the totals yet."""
        return len(self._outbox.frozen) + len(self._outbox.waiting)

    @property
    def waiting(self) -> int:
        """Windows that were never sent."""
        return len(self._outbox.waiting)

    @property
    def unreachable_s(self) -> float:
        """For how long Redis has not answered."""
        return (self._clock.monotonic_us() - self._reached_us) / 1e6 if self._failing else 0.0

    def add(self, window: Window) -> None:
        """Take a window, also while a `flush` is under way; it is sent by this or the next one."""
        self._outbox.add(window)

    async def flush(self, gauges: Mapping[str, float]) -> bool:
        """One round of confirming and sending; False where Redis could not be reached.

        `gauges` are the agent's metrics for batches that are frozen in this round.
        """
        self._gauges = gauges
        try:
            async with asyncio.timeout(_ROUND_S):
                await self._round()
        except (RedisError, OSError) as error:
            if not self._failing:
                why = str(error) or f"no answer within {_ROUND_S:.0f} s"
                _log.warning("store-unreachable", error=why, unconfirmed=self.unconfirmed)
            self._failing = True
            return False
        if self._failing:
            _log.info("store-reached-again", after_s=round(self.unreachable_s, 1), unconfirmed=self.unconfirmed)
        self._failing = False
        self._reached_us = self._clock.monotonic_us()
        return True

    async def _round(self) -> None:
        await self._confirm()
        for batch in self._outbox.due():
            await self._send(batch)
        while (frozen := self._outbox.freeze()) is not None:
            await self._send(frozen)

    async def _confirm(self) -> None:
        before = self._clock.monotonic_us()
        redis_us = await redis_client.now_us(self._redis)
        after = self._clock.monotonic_us()
        middle = (before + after) // 2
        self._sampled(ClockSample(middle, redis_us - middle, (after - before) // 2))
        told: Any = self._redis.hmget(self._names.applied, [self._origin.boot, keys.APPLIED_CURSOR])
        applied, cursor = await told
        if applied is not None:
            self._outbox.confirm(int(applied))
        self._outbox.read(stream_id(cursor) if isinstance(cursor, bytes) else NOTHING_READ)

    def _sampled(self, sample: ClockSample) -> None:
        if self._samples and not sample.agrees(self._samples[-1]):
            # Redis's clock was set: what was read before says nothing of it any more.
            self._samples.clear()
        self._samples.append(sample)

    async def _send(self, batch: Frozen) -> None:
        self._outbox.sending(batch)
        fields: dict[Any, Any] = {
            keys.FIELD_BOOT: self._origin.boot,
            keys.FIELD_SEQ: batch.seq,
            keys.FIELD_CONFIRMED: self._outbox.confirmed,
            keys.FIELD_BATCH: batch.payload,
        }
        entry = await self._redis.xadd(self._names.flows, fields)
        assert isinstance(entry, bytes)
        self._outbox.arrived(batch, stream_id(entry))

    def _encode(self, seq: int, windows: tuple[Window, ...]) -> bytes:
        now = self._clock.monotonic_us()
        best = min(self._samples, key=lambda sample: sample.error_at(now))
        own = self._origin.own_time
        return wire.encode(
            Batch(
                node=self._origin.node,
                boot=self._origin.boot,
                seq=seq,
                offset_us=0 if own else best.offset_us,
                error_us=0 if own else best.error_at(now),
                windows=windows,
                gauges=self._gauges,
                machine=self._origin.machine,
            )
        )
