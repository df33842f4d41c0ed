"""Follows one shard in Redis and keeps a mirror of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from services.api.mirror import GapError, Mirror
from services.flows import history, keys, traffic
from services.flows.traffic import TrafficError
from services.runtime.clock import Clock
from services.runtime.log import get_logger
from services.runtime.redis_client import StoreError, translating
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_BLOCK_MS: Final = 1000
_TICKS_PER_READ: Final = 64
_RETRY_S: Final = 0.5
_ALIVE_US: Final = 5_000_000
"""Redis answers blocking reads every second; five missed ones are an outage."""
_CLOCK_US: Final = 10_000_000
"""How often Redis's clock is read: no two clocks drift apart by a second in so short a time."""
_NO_SESSION: Final = "no aggregator has begun a session in this Redis"
_LOST: Final = "Redis was emptied: what is shown is what it held before"


class Reader:
    """The only one that follows Redis in the API; it reads and never writes."""

    def __init__(self, redis: Redis, names: keys.Keys, clock: Clock, way: Path | None = None) -> None:
        """`way` is a file in which whoever keeps the way to Redis open says why it is not."""
        self._redis: Any = redis
        self._way = way
        self._names = names
        self._clock = clock
        self._answered_us = 0
        self._clock_read_us = 0
        self._why = "Redis has not answered yet"
        self._current = False
        self.mirror: Mirror | None = None
        """What was read last; it stays when Redis goes, until another session is there."""

    @property
    def problem(self) -> str:
        """Why what is served is not current; empty where it is."""
        if interrupted := self._interrupted():
            return interrupted
        if self.mirror is None:
            return f"no totals yet: {self._why}"
        if not self._why and self._clock.monotonic_us() - self._answered_us > _ALIVE_US:
            return "Redis does not answer"
        return self._why

    def _interrupted(self) -> str:
        if self._way is None:
            return ""
        try:
            return self._way.read_text().strip()
        except OSError:
            # Nobody has said anything yet.
            return ""

    async def follow(self, stop: Stop, on_change: Callable[[], None]) -> None:
        """Keep the mirror current until `stop`; `on_change` is called after every change."""
        while not stop.requested:
            try:
                if not self._current:
                    self._current = await self._load()
                    on_change()
                if not self._current:
                    await stop.sleep(_RETRY_S)
                elif await self._step():
                    on_change()
            except GapError:
                _log.info("totals-read-again", reason="a tick is missing, or the epoch changed")
                self._current = False
            except (StoreError, TrafficError) as error:
                if str(error) != self._why:
                    _log.warning("store-unreadable", error=str(error))
                self._why = str(error)
                on_change()
                await stop.sleep(_RETRY_S)

    async def _load(self) -> bool:
        """Read everything; False where there is no session."""
        with translating("reading the totals"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(self._names.totals)
                pipe.xrange(self._names.ticks)
                pipe.hgetall(self._names.history)
                pipe.time()
                stored, ticks, buckets, (seconds, micros) = await pipe.execute()
        self._answered()
        if b"session" not in stored:
            self._why = _NO_SESSION if self.mirror is None else _LOST
            return False
        session = traffic.decode_session(stored[b"session"])
        rows = [traffic.decode_row(int(name[4:]), value) for name, value in stored.items() if name.startswith(b"row:")]
        mirror = Mirror.of(self._clock, session, rows, int(seconds) * 1_000_000 + int(micros))
        mirror.take_history({int(number): history.decode(value) for number, value in buckets.items()})
        for _, entry in ticks:
            mirror.recall(traffic.decode_tick(entry[keys.FIELD_TICK]))
            # Two minutes of a large cluster take seconds; probes are to be answered meanwhile.
            await asyncio.sleep(0)
        self.mirror, self._why = mirror, ""
        _log.info("totals-read", epoch=session.epoch, n=session.n, rows=len(rows), ticks=len(ticks))
        return True

    async def _step(self) -> bool:
        """Apply the ticks that follow; False where there were none within a second."""
        mirror = self.mirror
        assert mirror is not None, "a current mirror is there"
        with translating("following the totals"):
            found = await self._redis.xread({self._names.ticks: mirror.tick_id}, count=_TICKS_PER_READ, block=_BLOCK_MS)
            await self._read_clock(mirror)
            # A new epoch may have a smaller number than ours, which a read from our cursor never shows.
            last = [] if found else await self._redis.xrevrange(self._names.ticks, count=1)
        self._answered()
        if not found:
            if not last or traffic.parse_tick_id(last[0][0].decode()) < (mirror.epoch, mirror.n):
                raise GapError
            self._why = ""
            return False
        for _, entry in found[0][1]:
            mirror.apply(traffic.decode_tick(entry[keys.FIELD_TICK]))
            # A long queue must not keep requests waiting.
            await asyncio.sleep(0)
        self._why = ""
        return True

    async def _read_clock(self, mirror: Mirror) -> None:
        if self._clock.monotonic_us() - self._clock_read_us > _CLOCK_US:
            seconds, micros = await self._redis.time()
            mirror.set_now(int(seconds) * 1_000_000 + int(micros))
            self._clock_read_us = self._clock.monotonic_us()

    def _answered(self) -> None:
        self._answered_us = self._clock.monotonic_us()
