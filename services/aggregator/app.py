"""Owns a shard, or stands by for it, until it is told to stop."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from services.aggregator import cluster_watch, metrics_server, session_lease
from services.aggregator.cluster_ledger import ClusterLedger
from services.aggregator.consumer import Consumer
from services.aggregator.directory import Directory
from services.aggregator.directory.static_file import StaticDirectory
from services.aggregator.own_metrics import own_metrics
from services.aggregator.post import Post
from services.aggregator.store import Store
from services.aggregator.timeline import Timeline
from services.aggregator.totals import Totals
from services.flows import keys
from services.runtime import garbage, redis_client
from services.runtime.clock import SystemClock
from services.runtime.errors import UsageError
from services.runtime.health import Heartbeat
from services.runtime.log import get_logger
from services.runtime.settings import AggregatorSettings
from services.runtime.supervise import Stop

_log = get_logger(__name__)
_T = TypeVar("_T")

_STANDBY_S: Final = 0.5
"""How often a standby looks: soon enough for totals that are watched live."""
_RETRY_S: Final = (0.1, 1.0)
"""First and longest pause before Redis is tried again; the longest is shorter than any lease."""


async def run(settings: AggregatorSettings, stop: Stop) -> None:
    """Keep the totals of one shard until `stop`."""
    heartbeat = Heartbeat(settings.heartbeat_file)
    heartbeat.beat()
    redis = redis_client.connect(settings)
    store = Store(redis, keys.Keys(), settings.lease_ttl_s, SystemClock())
    try:
        async with (
            session_lease.guarding(settings, SystemClock(), stop),
            _directory(settings, store, Patience(store, heartbeat, stop), stop) as directory,
        ):
            consumers = list(_consumers(settings, redis, store.timeline, directory))
            await _own(settings, consumers, Patience(store, heartbeat, stop), stop)
    finally:
        await redis.aclose()


@asynccontextmanager
async def _directory(
    settings: AggregatorSettings, store: Store, patience: Patience, stop: Stop
) -> AsyncIterator[Directory]:
    """Who has which address: as a file says, or a cluster."""
    if not settings.kubeconfig:
        yield StaticDirectory.read(settings.directory_file, cidr=settings.cidr, private_cidr=settings.private_cidr)
        return
    if settings.directory_file:
        raise UsageError("--kubeconfig and --directory-file exclude each other: addresses are learnt from one of them")
    # Moments in the directory are Redis's.
    await patience.with_(store.now_us)
    async with cluster_watch.watching(settings, store.timeline.about_now_us, stop) as directory:
        yield directory


def _consumers(
    settings: AggregatorSettings, redis: Redis, timeline: Timeline, directory: Directory
) -> Iterator[Consumer]:
    """One for each shard that may be ours; of several shards one for the ledger, too."""
    clock, shards = SystemClock(), settings.shards
    post = Post(redis) if shards > 1 else None
    for shard in range(shards):
        store = Store(redis, keys.Keys(shard), settings.lease_ttl_s, clock, timeline)
        totals = Totals(directory, settings.peers_per_pod, shards, shard)
        yield Consumer(store, totals, clock, settings.tick_interval_s, post)
    if shards > 1:
        store = Store(redis, keys.Keys(keys.LEDGER), settings.lease_ttl_s, clock, timeline)
        yield Consumer(store, ClusterLedger(directory, 0, shards), clock, settings.tick_interval_s)


async def _own(settings: AggregatorSettings, consumers: Sequence[Consumer], patience: Patience, stop: Stop) -> None:
    patience.take(consumers[0])
    async with metrics_server.serving(settings.metrics_listen, lambda: own_metrics(patience.consumer, patience)):
        standbys = [(consumer, Standby(consumer.store, settings)) for consumer in consumers]
        while not stop.requested:
            for consumer, standby in standbys:
                patience.take(consumer)
                if await patience.with_(standby.try_to_own):
                    await _work(settings, consumer, patience, stop)
                    return
            await stop.sleep(_STANDBY_S)


async def _work(settings: AggregatorSettings, consumer: Consumer, patience: Patience, stop: Stop) -> None:
    patience.owns = not stop.requested
    await patience.with_(consumer.load)
    garbage.collect_seldom()
    block_ms = int(min(1.0, settings.lease_ttl_s / 3) * 1000)
    while not stop.requested:
        consumer.totals.directory.refresh()
        await patience.with_(lambda: consumer.step(block_ms))
    await _release(consumer.store)


class Standby:
    """Takes a shard when nobody owns it."""

    def __init__(self, store: Store, settings: AggregatorSettings) -> None:
        self._store = store
        self._turns = int(2 * settings.lease_ttl_s / _STANDBY_S)
        self._saw_owner = False
        self._empty = 0

    async def try_to_own(self) -> bool:
        """Whether the shard is ours now."""
        # The store may be emptied at any moment. Its owner has everything in memory and comes back, if it lives.
        patient = self._saw_owner and self._empty < self._turns
        if await self._store.acquire(only_with_totals=patient):
            return True
        if not self._saw_owner:
            _log.info("standing-by", shard=self._store.shard)
        self._saw_owner = True
        self._empty = 0 if await self._store.holds_totals() else self._empty + 1
        return False


class Patience:
    """Tries again where Redis fails, for the memory holds what the store lost."""

    def __init__(self, store: Store, heartbeat: Heartbeat, stop: Stop) -> None:
        self._store = store
        self._consumer: Consumer | None = None
        self.owns = False
        """Whether the shard is ours."""
        self.reached = False
        """Whether the store answered what it was asked last."""
        self.failures = 0
        self._heartbeat = heartbeat
        self._stop = stop

    def take(self, consumer: Consumer) -> None:
        """Try what this one does, from now on."""
        self._consumer, self._store = consumer, consumer.store

    @property
    def consumer(self) -> Consumer:
        """The one that was taken last."""
        assert self._consumer is not None, "one is taken before anybody asks"
        return self._consumer

    async def with_(self, work: Callable[[], Awaitable[_T]]) -> _T | None:
        """What `work` returns once it succeeds; nothing where the end came first."""
        pause, longest = _RETRY_S
        failing = False
        while not self._stop.requested:
            # Also while Redis is away: a restart would lose what only this process still has.
            self._heartbeat.beat()
            try:
                done = await work()
            except OutOfMemoryError as error:
                self.failures += 1
                _log.error("store-full", error=str(error), mend="give Redis more memory (maxmemory)")
                await self._make_room()
            except (RedisError, OSError) as error:
                self.reached = False
                self.failures += 1
                if not failing:
                    _log.warning("store-unreachable", error=str(error))
                failing = True
            else:
                self.reached = True
                if failing:
                    _log.info("store-reached-again")
                return done
            # Jitter: after an outage not all of its clients come back in the same moment.
            await self._stop.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, longest)
        return None

    async def _make_room(self) -> None:
        try:
            if self._consumer is not None:
                await self._store.trim(self._consumer.cursor)
        except (RedisError, OSError) as error:
            _log.warning("store-unreachable", error=str(error))


async def _release(store: Store) -> None:
    try:
        await store.release()
    except (RedisError, OSError) as error:
        _log.warning("lease-not-released", error=str(error))
