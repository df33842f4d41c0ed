"""Follows all shards in Redis and keeps a mirror of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from services.api.mirror import GapError, Mirror
from services.api.shards import Shards, Stored
from services.flows import history, keys, traffic
from services.flows.traffic import Tick, TrafficError
from services.runtime import redis_client
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

    def __init__(self, redis: Redis, clock: Clock, way: Path | None = None) -> None:
        """`way` is a file in which whoever keeps the way to Redis open says why it is not."""
        self._redis: Any = redis
        self._way = way
        self._clock = clock
        self._answered_us = 0
        self._clock_read_us = 0
        self._why = "Redis has not answered yet"
        self._current = False
        self._positions: dict[keys.Keys, tuple[int, int]] = {}
        """Epoch and number of the tick of each shard that was applied last."""
        self._committed_us: dict[keys.Keys, int] = {}
        """When the tick of each of several shards was committed that was applied last."""
        self._reads: dict[keys.Keys, asyncio.Task[list[Tick] | Exception]] = {}
        self._failing: dict[keys.Keys, Exception] = {}
        """By shard what its last read met."""
        self.shards = Shards()
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
        async with asyncio.TaskGroup() as tasks:
            try:
                await self._follow(tasks, stop, on_change)
            finally:
                self._end_reads()

    async def _follow(self, tasks: asyncio.TaskGroup, stop: Stop, on_change: Callable[[], None]) -> None:
        while not stop.requested:
            try:
                if not self._current:
                    self._current = await self._load()
                    on_change()
                if not self._current:
                    await stop.sleep(_RETRY_S)
                elif await self._step(tasks):
                    on_change()
            except GapError:
                _log.info("totals-read-again", reason="a tick is missing, or the epoch changed")
                self._current = False
                self._end_reads()
            except (StoreError, TrafficError) as error:
                if str(error) != self._why:
                    _log.warning("store-unreadable", error=str(error))
                self._why = str(error)
                on_change()
                await stop.sleep(_RETRY_S)

    async def _load(self) -> bool:
        """Read everything; False where there is no session."""
        self._end_reads()
        shards, parts = Shards(), dict[keys.Keys, Stored]()
        first, now_us = await self._stored(shards.all[0])
        if first is None:
            self._why = _NO_SESSION if self.mirror is None else _LOST
            return False
        shards.count = first.session.shards
        for names in shards.all:
            part, now_us = (first, now_us) if not parts else await self._stored(names)
            if part is None:
                self._why = f"no aggregator has begun shard {names.shard} of {shards.count}"
                return False
            if part.session.shards != shards.count:
                self._why = f"shard {names.shard} is one of {part.session.shards}, and shard 0 one of {shards.count}"
                return False
            parts[names] = part
        whole = shards.together(parts)
        mirror = Mirror.of(self._clock, whole.session, whole.rows, now_us)
        mirror.take_history(whole.buckets)
        for tick in whole.ticks:
            mirror.recall(tick)
            # Two minutes of a large cluster take seconds; probes are to be answered meanwhile.
            await asyncio.sleep(0)
        self.mirror, self.shards, self._why = mirror, shards, ""
        self._positions = {names: (part.session.epoch, part.session.n) for names, part in parts.items()}
        if shards.count > 1:
            self._committed_us = {
                names: traffic.decode_tick(part.ticks[-1]).at_us for names, part in parts.items() if part.ticks
            }
        ticks = sum(len(part.ticks) for part in parts.values())
        _log.info("totals-read", epoch=mirror.epoch, n=mirror.n, rows=len(whole.rows), ticks=ticks)
        return True

    async def _stored(self, names: keys.Keys) -> tuple[Stored | None, int]:
        """What a shard has in Redis, None where nothing; and Redis's time."""
        with translating("reading the totals"):
            # The client of a cluster looks for what moved to another node with a plain command, not with a transaction.
            await self._redis.hget(names.totals, "position")
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(names.totals)
                pipe.xrange(names.ticks)
                pipe.hgetall(names.history)
                stored, entries, buckets = await pipe.execute()
            now_us = await redis_client.now_us(self._redis)
        self._answered()
        if b"session" not in stored:
            return None, now_us
        rows = [traffic.decode_row(int(name[4:]), value) for name, value in stored.items() if name.startswith(b"row:")]
        ticks = [entry[keys.FIELD_TICK] for _, entry in entries]
        passed = {int(number): history.decode(value) for number, value in buckets.items()}
        return Stored(traffic.decode_session(stored[b"session"]), rows, ticks, passed), now_us

    async def _step(self, tasks: asyncio.TaskGroup) -> bool:
        """Apply the ticks that follow; False where there were none within a second."""
        mirror = self.mirror
        assert mirror is not None, "a current mirror is there"
        for names in self.shards.all:
            if names not in self._reads:
                self._reads[names] = tasks.create_task(self._next(names), name=f"ticks-{names.shard}")
        # Each of several shards has ticks when its own aggregator commits.
        await asyncio.wait(self._reads.values(), return_when=asyncio.FIRST_COMPLETED)
        found = []
        for names in [names for names, read in self._reads.items() if read.done()]:
            told = self._reads.pop(names).result()
            if isinstance(told, Exception):
                self._failing[names] = told
            else:
                self._failing.pop(names, None)
                found.append([(names, tick) for tick in told])
        with translating("reading the clock"):
            await self._read_clock(mirror)
        # Those of one shard stay in its order, also where the clock was set back.
        for names, tick in heapq.merge(*found, key=lambda one: one[1].at_us):
            epoch, n = self._positions[names]
            if (tick.epoch, tick.n) != (epoch, n + 1):
                raise GapError
            self._positions[names] = tick.epoch, tick.n
            mirror.apply(self.shards.tick(names, tick, mirror.epoch, mirror.n + 1), self._committed_us.get(names))
            if self.shards.count > 1:
                self._committed_us[names] = tick.at_us
            # A long queue must not keep requests waiting.
            await asyncio.sleep(0)
        # Others are followed all the same where one cannot be.
        for failed in self._failing.values():
            raise failed
        self._why = ""
        return any(found)

    async def _next(self, names: keys.Keys) -> list[Tick] | Exception:
        """The ticks of a shard behind those that were applied, none where there were none within a second; or what failed."""
        try:
            return await self._after(names)
        except (GapError, StoreError, TrafficError) as error:
            return error

    async def _after(self, names: keys.Keys) -> list[Tick]:
        epoch, n = self._positions[names]
        with translating("following the totals"):
            found = await self._redis.xread({names.ticks: f"{epoch}-{n}"}, count=_TICKS_PER_READ, block=_BLOCK_MS)
            # A new epoch may have a smaller number than ours, which a read from our cursor never shows.
            last = [] if found else await self._redis.xrevrange(names.ticks, count=1)
        self._answered()
        if found:
            return [traffic.decode_tick(entry[keys.FIELD_TICK]) for _, entry in found[0][1]]
        if not last or traffic.parse_tick_id(last[0][0].decode()) < (epoch, n):
            raise GapError
        return []

    def _end_reads(self) -> None:
        for read in self._reads.values():
            read.cancel()
        self._reads.clear()
        self._failing.clear()

    async def _read_clock(self, mirror: Mirror) -> None:
        if self._clock.monotonic_us() - self._clock_read_us > _CLOCK_US:
            mirror.set_now(await redis_client.now_us(self._redis))
            self._clock_read_us = self._clock.monotonic_us()

    def _answered(self) -> None:
        self._answered_us = self._clock.monotonic_us()
