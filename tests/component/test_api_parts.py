"""The API over three shards and a ledger that are written by hand, so that their moments are known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.flows.keys import LEDGER, Keys, shard_of
from services.flows.scope import Scope
from tests.support.live import connected, read
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shard import SECOND, Shard, change, pod, talked
from tests.support.wait import until

COUNT = 3
NODES = {shard: next(f"node-{n}" for n in range(99) if shard_of(f"node-{n}", COUNT) == shard) for shard in range(COUNT)}


@dataclass
class Parts:
    """Each shard has a node with one pod, `shop/pod-<shard>`, whose row is number 1."""

    shards: list[Shard]
    ledger: Shard

    async def sends(self, shard: int, size: int, at_us: int | None = None, **more: Any) -> None:
        """A pod sends some bytes to the internet."""
        name = NODES[shard]
        added = talked(Scope.INTERNET, tx_bytes=size)
        who = {1: pod(f"pod-{shard}", node=name)}
        await self.shards[shard].commit(change(1, added), who=who, nodes=(name,), at_us=at_us, cluster=added, **more)


@pytest.fixture
async def parts(redis: Any) -> Parts:
    """All have begun, and nothing was sent."""
    shards = [Shard(redis, 7 + n, names=Keys(n), shards=COUNT) for n in range(COUNT)]
    parts = Parts(shards, Shard(redis, 99, names=Keys(LEDGER), shards=COUNT))
    for shard in range(COUNT):
        await parts.sends(shard, 0)
    await parts.ledger.commit(nodes=())
    return parts


@pytest.fixture
async def api(redis_server: RedisServer, parts: Parts) -> AsyncIterator[Served]:
    """The API, ready."""
    del parts
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def test_totals_are_those_of_all_shards_and_the_ledger(api: Served, parts: Parts) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        await parts.sends(0, 1000, pending_bytes=10)
        await parts.sends(2, 200, pending_bytes=5, loss={"batch-late": 1})
        while (await read(socket, "delta"))["tot"][-1] != 1200:
            pass
    await parts.ledger.commit(nodes=(), cluster=talked(tx_bytes=40), pending_bytes=3, loss={"batch-late": 2})
    await until(lambda: _overview(api, "pendingBytes", 18), "what is pending is added up")
    overview = await api.get("/traffic/overview")
    assert (overview["clusterBytes"], overview["loss"]) == (1240, {"batch-late": 3})
    assert (overview["totalPods"], overview["totalNodes"]) == (COUNT, COUNT)
    assert "podloxx_pending_bytes 18" in (await api.ask("/metrics")).body.decode()


async def test_one_that_is_behind_is_no_clock_that_was_set_back(api: Served, parts: Parts) -> None:
    now_us = await parts.shards[0].now_us()
    await parts.sends(1, 1, at_us=now_us - 30 * SECOND)
    await until(lambda: _sent(api, "shop/pod-1", 1), "it is behind")
    await parts.sends(0, 1)
    await until(lambda: _sent(api, "shop/pod-0", 1), "another one is not")
    updated = (await api.get("/traffic/overview"))["lastUpdate"]
    await parts.sends(1, 1, at_us=now_us - 29 * SECOND)
    await until(lambda: _sent(api, "shop/pod-1", 2), "it is behind all the same")
    nodes = await api.get("/traffic/nodes")
    assert (nodes[NODES[0]]["live"], nodes[NODES[1]]["live"]) == (True, False)
    assert (await api.get("/traffic/overview"))["lastUpdate"] == updated


async def test_one_that_is_missing_is_named(redis: Any, api: Served, parts: Parts) -> None:
    names = parts.shards[2].names
    await redis.delete(names.totals, names.ticks)
    await until(lambda: _says(api, "no aggregator has begun shard 2 of 3"), "it is named")
    # What was read stays.
    assert await _sent(api, "shop/pod-0", 0)
    await parts.sends(2, 5)
    await api.ready()
    assert await _sent(api, "shop/pod-2", 5)


async def test_the_ledger_may_be_missing(redis: Any, api: Served, parts: Parts) -> None:
    await redis.delete(parts.ledger.names.totals, parts.ledger.names.ticks)
    await until(lambda: _says(api, "shard cluster of 3"), "it is named")


async def test_one_of_another_epoch_is_read_anew(redis: Any, api: Served, parts: Parts) -> None:
    cursor = (await api.ask("/traffic/flow")).headers["X-Podloxx-Tick"]
    await parts.sends(0, 1000)
    names = parts.shards[1].names
    await redis.delete(names.totals, names.ticks)
    parts.shards[1] = Shard(redis, 3, names=names, shards=COUNT)
    await parts.sends(1, 7)
    await until(lambda: _sent(api, "shop/pod-1", 7), "its new totals are shown")
    assert await _sent(api, "shop/pod-0", 1000)
    answer = await api.ask(f"/traffic/flow?since={cursor}")
    assert answer.status == 410


async def test_another_number_of_shards_is_told(redis: Any, api: Served, parts: Parts) -> None:
    names = parts.shards[2].names
    await redis.delete(names.totals, names.ticks)
    parts.shards[2] = Shard(redis, 3, names=names, shards=2)
    await parts.sends(2, 7)
    await until(lambda: _says(api, "shard 2 is one of 2, and shard 0 one of 3"), "it is told")


async def _sent(api: Served, name: str, size: int) -> bool:
    return bool((await api.get("/traffic/total"))[name]["transmitBytes"] == size)


async def _says(api: Served, words: str) -> bool:
    answer = await api.ask("/readyz")
    return answer.status == 503 and words in answer.json["detail"]


async def _overview(api: Served, name: str, value: int) -> bool:
    return bool((await api.get("/traffic/overview"))[name] == value)
