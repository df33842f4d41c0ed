"""The client of a real Redis Cluster: whom it asks when slots and nodes change, and what is said when that fails."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.flows.keys import Keys
from services.launcher.store import RULES
from services.runtime import store_check
from services.runtime.findings import State
from services.runtime.redis_client import StoreError, connect, now_us, translating
from services.runtime.settings import CommonSettings
from tests.support.redis_cluster import MASTERS, RedisCluster, running
from tests.support.served import Served, free_port, serving
from tests.support.shard import Shard, change, pod, talked
from tests.support.wait import until


@pytest.fixture
def cluster(folder: Path) -> Iterator[RedisCluster]:
    """A running one."""
    with running(folder) as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: RedisCluster) -> AsyncIterator[Any]:
    """A client of it."""
    client = connect(CommonSettings(redis_url=cluster.url))
    yield client
    await client.aclose()


@pytest.fixture
def somebody(cluster: RedisCluster, folder: Path) -> CommonSettings:
    """A user who may do what an agent does, and what a client needs to find a cluster's nodes."""
    cluster.user("somebody", "secret", f"{RULES['agent']} +cluster|slots +command")
    (folder / "password").write_text("secret\n")
    return CommonSettings(redis_url=cluster.url, redis_user="somebody", redis_password_file=str(folder / "password"))


async def test_the_clock_is_that_of_the_node_to_which_the_first_shard_moved(cluster: RedisCluster, redis: Any) -> None:
    await now_us(redis)
    before = cluster.node_of(Keys().lease)
    cluster.move(Keys().lease, (before + 1) % MASTERS)
    cluster.forget_commands()
    # Whoever has another shard hears of it in no other way.
    for _ in range(3):
        await now_us(redis)
    asked = cluster.commands("time")
    assert asked[(before + 1) % MASTERS] == 3
    # The first question was on its way to where it was before.
    assert asked[before] <= 1


async def test_one_that_is_gone_altogether_is_told_each_time(cluster: RedisCluster, redis: Any) -> None:
    await now_us(redis)
    cluster.kill()
    for _ in range(7):
        with pytest.raises(StoreError, match="reading: Redis cannot be reached"):
            await _read(redis)


async def test_an_agents_user_does_all_that_it_does(cluster: RedisCluster, somebody: CommonSettings) -> None:
    del cluster
    found = {one.about: one for one in await store_check.look(somebody)}
    assert {found[about].state for about in ("store", "store rights")} == {State.OK}, found
    async with connect(somebody) as client:
        assert await now_us(client) > 0


async def test_a_wrong_password_is_said(somebody: CommonSettings) -> None:
    Path(somebody.redis_password_file).write_text("wrong")
    async with contextlib.aclosing(connect(somebody)) as client:
        with pytest.raises(StoreError, match=r"reading: Redis refused.*Check --redis-user"):
            await _read(client)


async def test_a_user_who_may_not_ask_for_the_nodes_is_told_what_is_missing(
    cluster: RedisCluster, somebody: CommonSettings
) -> None:
    for right in ("cluster|slots", "command"):
        cluster.user("somebody", "secret", f"-{right}")
        [found] = await store_check.look(somebody)
        assert found.state is State.PROBLEM
        assert f"+{right}" in found.text + found.mend
        assert "not enabled" not in found.text
        cluster.user("somebody", "secret", f"+{right}")


async def test_nodes_that_nobody_reaches_are_named() -> None:
    nodes = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    async with contextlib.aclosing(connect(CommonSettings(redis_url=f"redis-cluster://{nodes}"))) as client:
        with pytest.raises(StoreError, match=r"reading: Redis cannot be reached.* 127\.0\.0\.1:"):
            await _read(client)


async def test_any_node_of_several_is_enough(cluster: RedisCluster) -> None:
    url = f"redis-cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster.ports[2]}"
    async with connect(CommonSettings(redis_url=url)) as client:
        for shard in range(7):
            assert await client.set(Keys(shard).lease, "x")


async def test_the_api_finds_a_session_in_a_slot_that_moved_before_it_began(cluster: RedisCluster, redis: Any) -> None:
    async with serving(cluster) as api:
        await until(lambda: _says(api, "no aggregator has begun"), "it has looked")
        cluster.move(Keys().totals, (cluster.node_of(Keys().totals) + 1) % MASTERS)
        await redis.hlen(Keys().totals)
        await Shard(redis).commit(change(1, talked(tx_bytes=7)), who={1: pod("web")})
        await api.ready()
        assert (await api.get("/traffic/total"))["shop/web"]["transmitBytes"] == 7


async def _read(redis: Any) -> None:
    """As the API reads totals."""
    with translating("reading"):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(Keys().totals)
            await pipe.execute()


async def _says(api: Served, words: str) -> bool:
    answer = await api.ask("/readyz")
    return answer.status == 503 and words in answer.json["detail"]
