"""The API over several shards: aggregators as processes, a real Redis, and all of it as if it were one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.flows.keys import Keys, shard_of
from tests.support.aggregators import Aggregators
from tests.support.live import connected, read
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.several_shards import SHARDS, Two, all_own, settled, start
from tests.support.wait import until


@pytest.fixture
async def two(redis: Any, aggregators: Aggregators) -> Two:
    """Two pods of two shards, which have talked for a second."""
    start(aggregators)
    await until(lambda: all_own(redis), "all have begun", timeout_s=30)
    seconds, _ = await redis.time()
    two = Two(redis, began=int(seconds))
    await two.talk(20_000)
    await settled(two)
    return two


@pytest.fixture
async def api(redis_server: RedisServer, two: Two) -> AsyncIterator[Served]:
    """The API, ready."""
    del two
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def sent(api: Served, pod: str = "shop/web") -> int:
    """What a pod has sent."""
    return int((await api.get("/traffic/total"))[pod]["transmitBytes"])


async def test_all_shards_are_shown_as_one(api: Served, two: Two) -> None:
    total = await api.get("/traffic/total")
    assert {name: (one["transmitBytes"], one["receivedBytes"]) for name, one in total.items()} == {
        "shop/web": (22_000, 0),
        "data/db": (0, 20_000),
    }
    nodes = await api.get("/traffic/nodes")
    assert {name: one["interfaces"][0]["pod"] for name, one in nodes.items()} == {"node-a": "web", "node-b": "db"}
    peers = (await api.get("/traffic/peers?pod=shop/web"))["peers"]
    assert {one["address"]: one["transmitBytes"] for one in peers} == {"10.2.0.2": 20_000, "1.1.1.1": 2000}
    [other] = (await api.get("/traffic/peers?pod=data/db"))["peers"]
    assert (other["address"], other["receivedBytes"]) == ("10.1.0.2", 20_000)
    series = (await api.get("/traffic/timeline?by=namespace"))["series"]
    assert {name: sum(one["transmitBytes"]) for name, one in series.items()} == {"shop": 22_000, "data": 0}
    passed = (await api.get("/traffic/range"))["pods"]
    assert {name: one["transmitBytes"] for name, one in passed.items()} == {"shop/web": 22_000, "data/db": 0}
    edges = (await api.get("/traffic/map?by=pod"))["edges"]
    assert sum(one["bytes"] for one in edges) == two.sent


async def test_what_comes_is_added(api: Served, two: Two) -> None:
    before = (await api.ask("/traffic/flow")).headers["X-Podloxx-Tick"]
    async with connected(api) as socket:
        first = await read(socket, "snapshot")
        assert first["tot"][-1] == 22_000 + 20_000
        await two.talk(300_000)
        seen = first["tot"][-1]
        while seen < 330_000 + 42_000 + 300_000:
            seen = (await read(socket, "delta"))["tot"][-1]
    assert await sent(api) == 352_000
    await settled(two)
    flow = await api.get(f"/traffic/flow?since={before}")
    assert (flow["shop/web"]["transmitBytes"], flow["data/db"]["receivedBytes"]) == (330_000, 300_000)


async def test_a_shard_that_is_away_hinders_no_other_one(
    api: Served, two: Two, redis: Any, aggregators: Aggregators
) -> None:
    owner = await owner_of(redis, aggregators, Keys(shard_of("node-b", SHARDS)))
    owner.kill()
    owner.wait()
    await two.talk(1000)
    await until(lambda: _sent(api, 23_100), "the other shard's pod goes on")
    assert (await api.get("/traffic/total"))["data/db"]["receivedBytes"] == 20_000
    start(aggregators, 1)
    await settled(two)
    await until(lambda: _sent(api, 21_000, "data/db", "receivedBytes"), "its own pod too, then")


async def test_a_shard_that_begins_anew_is_read_anew(
    api: Served, two: Two, redis: Any, aggregators: Aggregators
) -> None:
    names = Keys(shard_of("node-a", SHARDS))
    owner = await owner_of(redis, aggregators, names)
    owner.kill()
    owner.wait()
    await redis.delete(names.totals, names.applied, names.ticks, names.lease)
    await asyncio.sleep(1.5)
    answer = await api.ask("/readyz")
    assert answer.status == 503
    assert f"no aggregator has begun shard {names.shard} of {SHARDS}" in answer.json["detail"]
    start(aggregators, 1)
    await two.again()
    await two.talk(500)
    await until(lambda: _sent(api, 22_550), "all is shown again")


async def owner_of(redis: Any, aggregators: Aggregators, names: Keys) -> Any:
    """The process that owns a shard: the one without which its lease runs out."""
    for one in aggregators.processes:
        one.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        gone = await redis.get(names.lease) is None
        one.send_signal(signal.SIGCONT)
        if gone:
            return one
    raise AssertionError(f"nobody owns {names}")


async def _sent(api: Served, size: int, pod: str = "shop/web", column: str = "transmitBytes") -> bool:
    answer = await api.ask("/traffic/total")
    return answer.status == 200 and answer.json.get(pod, {}).get(column) == size
