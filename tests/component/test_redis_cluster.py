"""A real Redis Cluster of three nodes as the store: shards and the ledger lie on different ones."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from services.flows import keys
from services.flows.keys import Keys
from services.runtime import redis_client, store_check
from services.runtime.errors import UsageError
from services.runtime.findings import State
from services.runtime.settings import CommonSettings
from tests.support.aggregators import Aggregators
from tests.support.redis_cluster import MASTERS, RedisCluster, running
from tests.support.redis_server import RedisServer
from tests.support.served import Served, free_port, serving
from tests.support.several_shards import Two, all_own, settled, start
from tests.support.wait import until


@pytest.fixture
def cluster(folder: Path) -> Iterator[RedisCluster]:
    """A running one."""
    with running(folder) as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: RedisCluster) -> AsyncIterator[Any]:
    """A client of it."""
    client = redis_client.connect(CommonSettings(redis_url=cluster.url))
    yield client
    await client.aclose()


@pytest.fixture
def aggregators(cluster: RedisCluster, folder: Path) -> Iterator[Aggregators]:
    """Aggregators of it."""
    several = Aggregators(cluster, folder)
    yield several
    several.end()


@pytest.fixture
async def two(redis: Any, aggregators: Aggregators) -> Two:
    """Two pods of two shards, which have talked for a second."""
    start(aggregators)
    await until(lambda: all_own(redis), "all have begun", timeout_s=20)
    two = Two(redis, began=await redis_client.now_us(redis) // 1_000_000)
    await two.talk(20_000)
    await settled(two)
    return two


@pytest.fixture
async def api(cluster: RedisCluster, two: Two) -> AsyncIterator[Served]:
    """The API, ready."""
    del two
    async with serving(cluster) as served:
        await served.ready()
        yield served


async def test_shards_lie_on_all_nodes_and_are_shown_as_one(cluster: RedisCluster, two: Two, api: Served) -> None:
    assert {cluster.node_of(Keys(shard).totals) for shard in (*range(4), keys.LEDGER)} == set(range(MASTERS))
    total = await api.get("/traffic/total")
    assert (total["shop/web"]["transmitBytes"], total["data/db"]["receivedBytes"]) == (22_000, 20_000)
    await two.talk(1000)
    await settled(two)
    await until(lambda: _sent(api, 23_100), "what comes is added")


async def test_a_node_that_is_killed_has_everything_again(cluster: RedisCluster, two: Two, api: Served) -> None:
    for number in range(MASTERS):
        cluster.kill(number)
        await asyncio.sleep(0.5)
        cluster.again(number)
        await until(lambda: _goes_on(two), f"all is there again after node {number} was lost", timeout_s=30)
    await two.talk(1000)
    await settled(two)
    await until(lambda: _sent(api, 23_100), "and is shown", timeout_s=20)


async def test_a_node_that_stands_still_loses_nothing(cluster: RedisCluster, two: Two) -> None:
    cluster.signal(cluster.node_of(Keys(keys.LEDGER).totals), signal.SIGSTOP)
    await asyncio.sleep(1)
    cluster.signal(cluster.node_of(Keys(keys.LEDGER).totals), signal.SIGCONT)
    await two.talk(300_000)
    await settled(two)


async def test_a_slot_that_moves_to_another_node_is_followed(cluster: RedisCluster, two: Two, api: Served) -> None:
    for names in (Keys(keys.LEDGER), Keys(0), Keys(2)):
        cluster.move(names.totals, (cluster.node_of(names.totals) + 1) % MASTERS)
        await two.talk(1000)
        await settled(two)
    await until(lambda: _sent(api, 22_000 + 3300), "the API follows, too", timeout_s=20)


async def test_all_ask_one_nodes_clock(cluster: RedisCluster, redis: Any) -> None:
    cluster.forget_commands()
    for _ in range(7):
        await redis_client.now_us(redis)
    asked = cluster.commands("time")
    assert sorted(asked) == [0, 0, 7]
    assert asked[cluster.node_of(Keys().lease)] == 7


async def test_doctor_looks_at_the_node_of_the_first_shard(cluster: RedisCluster) -> None:
    found = {one.about: one.state for one in await store_check.look(CommonSettings(redis_url=cluster.url))}
    assert found["store"] is found["store rights"] is State.OK


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis-cluster://127.0.0.1", "'127.0.0.1' is not of the form HOST:PORT"),
        ("redis-cluster://127.0.0.1:1/0", "redis-cluster://HOST:PORT,HOST:PORT"),
        ("redis-cluster://me:secret@127.0.0.1:1", "redis-cluster://HOST:PORT,HOST:PORT"),
    ],
)
def test_addresses_that_are_none_are_refused(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        redis_client.connect(CommonSettings(redis_url=url))
    assert "secret" not in str(caught.value)


async def test_a_redis_that_is_no_cluster_is_told(redis_server: RedisServer) -> None:
    port = free_port()
    with Redis(unix_socket_path=str(redis_server.socket)) as alone:
        alone.config_set("port", port)
    [found] = await store_check.look(CommonSettings(redis_url=f"redis-cluster://127.0.0.1:{port}"))
    assert found.state is State.PROBLEM
    assert "cluster" in found.text.lower()


async def _goes_on(two: Two) -> bool:
    try:
        await two.again()
        return await two.applied()
    except RedisError:
        return False


async def _sent(api: Served, size: int) -> bool:
    answer = await api.ask("/traffic/total")
    return answer.status == 200 and answer.json["shop/web"]["transmitBytes"] == size
