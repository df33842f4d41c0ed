"""Follows one shard in Redis and keeps a mirror of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.api.mirror import GapError, Mirror
from services.flows import keys, traffic
from services.flows.traffic import Peer, TrafficError
from services.runtime.clock import Clock
from services.runtime.log import get_logger
from services.runtime.redis_client import StoreError, translating
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_BLOCK_MS: Final = 1000
_RETRY_S: Final = 0.5
_ALIVE_US: Final = 5_000_000
"""Redis answers blocking reads every second; five missed ones are an outage."""


class Reader:
    """The only one that talks to Redis in the API; it reads and never writes."""

    def __init__(self, redis: Redis, names: keys.Keys, clock: Clock) -> None:
        self._redis: Any = redis
        self._names = names
        self._clock = clock
        self._answered_us = 0
        self._peers: dict[int, tuple[Peer, ...]] = {}
        self._peers_at = ""
        self.mirror: Mirror | None = None

    @property
    def problem(self) -> str:
        """Why what is served is not current; empty where it is."""
        if self.mirror is None:
            return "no totals yet: Redis cannot be reached, or no aggregator has begun a session"
        if self._clock.monotonic_us() - self._answered_us > _ALIVE_US:
            return "Redis does not answer"
        return ""

    async def follow(self, stop: Stop, on_change: Callable[[], None]) -> None:
        """Keep the mirror current until `stop`; `on_change` is called after every change."""
        failing = False
        while not stop.requested:
            try:
                if self.mirror is None:
                    await self._load()
                    on_change()
                if self.mirror is None:
                    await stop.sleep(_RETRY_S)
                    continue
                if await self._step(self.mirror):
                    on_change()
                failing = False
            except GapError:
                _log.info("totals-read-again", reason="a tick is missing, or the epoch changed")
                self.mirror = None
            except (RedisError, OSError, TrafficError) as error:
                if not failing:
                    _log.warning("store-unreachable", error=str(error))
                failing = True
                await stop.sleep(_RETRY_S)

    async def peers(self, number: int) -> tuple[Peer, ...]:
        """A row's peers; raises StoreError."""
        with translating("reading peers"):
            raw = await self._redis.hgetall(self._names.peers(number))
        return _decoded(raw)

    async def all_peers(self, numbers: list[int]) -> dict[int, tuple[Peer, ...]]:
        """The peers of many rows, read once per tick however often they are asked for."""
        assert self.mirror is not None
        if self._peers_at != self.mirror.tick_id:
            at = self.mirror.tick_id
            with translating("reading peers"):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for number in numbers:
                        pipe.hgetall(self._names.peers(number))
                    found = await pipe.execute()
            self._peers = {number: _decoded(raw) for number, raw in zip(numbers, found, strict=True)}
            self._peers_at = at
        return self._peers

    async def _load(self) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(self._names.totals)
            pipe.xrange(self._names.ticks)
            pipe.hgetall(self._names.history)
            pipe.time()
            stored, ticks, history, (seconds, micros) = await pipe.execute()
        if b"session" not in stored:
            return
        session = traffic.decode_session(stored[b"session"])
        rows = [traffic.decode_row(int(name[4:]), value) for name, value in stored.items() if name.startswith(b"row:")]
        mirror = Mirror.of(self._clock, session, rows, int(seconds) * 1_000_000 + int(micros))
        mirror.take_history({int(number): traffic.decode_history(value) for number, value in history.items()})
        for _, entry in ticks:
            mirror.remember(traffic.decode_tick(entry[keys.FIELD_TICK]))
        self.mirror = mirror
        self._answered_us = self._clock.monotonic_us()
        _log.info("totals-read", epoch=session.epoch, n=session.n, rows=len(rows), ticks=len(ticks))

    async def _step(self, mirror: Mirror) -> bool:
        """Apply the ticks that follow; False where there were none within a second."""
        found = await self._redis.xread({self._names.ticks: mirror.tick_id}, count=64, block=_BLOCK_MS)
        self._answered_us = self._clock.monotonic_us()
        if found:
            for _, entry in found[0][1]:
                mirror.apply(traffic.decode_tick(entry[keys.FIELD_TICK]))
                # A long queue must not keep requests waiting.
                await asyncio.sleep(0)
            return True
        # A new epoch may have a smaller number than ours, which a read from our cursor never shows.
        last = await self._redis.xrevrange(self._names.ticks, count=1)
        if not last or traffic.parse_tick_id(last[0][0].decode()) != (mirror.epoch, mirror.n):
            raise GapError
        return False


def _decoded(raw: dict[bytes, bytes]) -> tuple[Peer, ...]:
    try:
        return tuple(map(traffic.decode_peer, raw.values()))
    except TrafficError as error:
        raise StoreError(f"peers in Redis cannot be read: {error}") from error
