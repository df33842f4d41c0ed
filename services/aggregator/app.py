"""Owns a shard, or stands by for it, until it is told to stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import OutOfMemoryError, RedisError

from services.aggregator.consumer import Consumer
from services.aggregator.directory.static_file import StaticDirectory
from services.aggregator.store import Store
from services.aggregator.totals import Totals
from services.flows import keys
from services.runtime import redis_client
from services.runtime.health import Heartbeat
from services.runtime.log import get_logger
from services.runtime.settings import AggregatorSettings
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_RETRY_S: Final = 0.5
"""Between two attempts to reach Redis: soon enough for totals that are watched live."""


async def run(settings: AggregatorSettings, stop: Stop) -> None:
    """Keep the totals of one shard until `stop`."""
    directory = StaticDirectory.read(settings.directory_file, cidr=settings.cidr, private_cidr=settings.private_cidr)
    heartbeat = Heartbeat(settings.heartbeat_file)
    redis = redis_client.connect(settings)
    store = Store(redis, keys.Keys(settings.shard), settings.lease_ttl_s)
    consumer = Consumer(store, Totals(directory, settings.peers_per_pod))
    try:
        if not await _own(store, settings, heartbeat, stop):
            return
        await _with_patience(consumer, consumer.load, stop)
        block_ms = max(1, int(min(1.0, settings.lease_ttl_s / 3) * 1000))
        while not stop.requested:
            await _with_patience(consumer, lambda: consumer.step(block_ms), stop)
            heartbeat.beat()
        await _release(store)
    finally:
        await redis.aclose()


async def _own(store: Store, settings: AggregatorSettings, heartbeat: Heartbeat, stop: Stop) -> bool:
    """Wait until the shard is ours; False where the end came first."""
    waiting = False
    while not stop.requested:
        try:
            if await store.acquire():
                return True
        except (RedisError, OSError) as error:
            _log.warning("store-unreachable", doing="acquiring the shard", error=str(error))
        else:
            if not waiting:
                _log.info("standing-by", shard=settings.shard)
            waiting = True
        heartbeat.beat()
        await stop.sleep(_RETRY_S)
    return False


async def _with_patience(consumer: Consumer, work: Callable[[], Awaitable[None]], stop: Stop) -> None:
    """Do `work`; where Redis fails try again, for the memory holds what the store lost."""
    failing = False
    while not stop.requested:
        try:
            await work()
        except OutOfMemoryError as error:
            _log.error("store-full", error=str(error), mend="give Redis more memory (maxmemory)")
            await consumer.store.trim(consumer.cursor)
            await stop.sleep(_RETRY_S)
        except (RedisError, OSError) as error:
            if not failing:
                _log.warning("store-unreachable", error=str(error))
            failing = True
            await stop.sleep(_RETRY_S)
        else:
            if failing:
                _log.info("store-reached-again")
            return


async def _release(store: Store) -> None:
    try:
        await store.release()
    except (RedisError, OSError) as error:
        _log.warning("lease-not-released", error=str(error))
