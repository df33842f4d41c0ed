"""Outages of minutes, by a clock that the test moves: what an agent saw meanwhile is in the totals to the byte."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aredis

from services.capture import app
from services.capture.publisher import Origin, Publisher
from services.flows.delta import Attachment, InterfaceCounters, Window
from services.flows.keys import FROZEN_BATCHES, SUB_WINDOWS
from services.flows.scope import Scope
from services.runtime.errors import PodloxxError
from services.runtime.redis_client import connect
from services.runtime.settings import CaptureSettings, CommonSettings
from tests.support.agents import NAMES, SECOND, attachment, flow
from tests.support.aggregators import Aggregators, sent, session
from tests.support.clocks import HandClock
from tests.support.redis_proxy import RedisProxy, Way
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.wait import until

_MOST_HELD = FROZEN_BATCHES + SUB_WINDOWS


@dataclass
class Node:
    """An agent on a clock of its own, the interface that it watches, and its way to Redis."""

    redis: aredis.Redis
    proxy: RedisProxy
    ttl_s: float
    random: random.Random
    clock: HandClock = field(default_factory=HandClock)
    passed: int = 0
    """Bytes that the interface has counted."""
    boots: int = 0
    publisher: Publisher = field(init=False)
    point: Attachment = field(init=False)

    def __post_init__(self) -> None:
        self.boot()

    @property
    def counters(self) -> InterfaceCounters:
        """What the interface says now."""
        return InterfaceCounters(self.passed, self.passed // 100, 0, 0)

    def boot(self) -> None:
        """Start the agent anew: it has forgotten all, and finds an interface that has counted on."""
        self.boots += 1
        self.publisher = Publisher(self.redis, NAMES, Origin("node-a", f"boot-{self.boots}"), 100, self.clock)
        first = attachment(self.boots, "10.1.0.2", interface="veth0", since=self.clock.now_us)
        self.point = replace(first, index=3, first_counters=self.counters, counters=self.counters)

    async def second(self) -> None:
        """One second of traffic and one flush, as the agent's loop does them; raises PodloxxError where it ends."""
        start = self.clock.now_us
        self.clock.pass_s(1)
        size = 100 * self.random.randrange(1, 1000)
        self.passed += size
        self.point = replace(self.point, counters=self.counters)
        peer = f"1.1.1.{self.random.randrange(1, 9)}"
        self.publisher.add(Window(start, self.clock.now_us, (self.point,), flow(self.point.id, peer, tx=size)))
        await self.publisher.flush({})
        assert self.publisher.unconfirmed <= _MOST_HELD
        app._give_up(CaptureSettings(node="node-a", ttl_s=self.ttl_s), self.publisher)

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            await self.second()

    async def confirmed(self) -> bool:
        """Whether all that it holds is in the totals; time stands still."""
        await self.publisher.flush({})
        return not self.publisher.unconfirmed

    async def settled(self) -> None:
        await until(self.confirmed, "all is confirmed")


@pytest.fixture
async def node(redis_server: RedisServer, folder: Path) -> AsyncIterator[Node]:
    with RedisProxy(folder / "proxy.sock", redis_server.socket) as proxy:
        async with connect(CommonSettings(redis_url=proxy.url)) as client:
            yield Node(client, proxy, 300, random.Random(7))


@pytest.mark.parametrize(("minutes", "ttl_s"), [(4, 300), (10, 900)])
async def test_an_outage_shorter_than_the_ttl_costs_no_byte(
    redis: Any, aggregators: Aggregators, node: Node, minutes: int, ttl_s: float
) -> None:
    node.ttl_s = ttl_s
    aggregators.start()
    await node.seconds(5)
    await node.settled()
    node.proxy.set(Way.REFUSE)
    await node.seconds(minutes * 60)
    node.proxy.set(Way.PASS)
    await node.seconds(5)
    await node.settled()
    assert await sent(redis) == node.passed
    now = await session(redis)
    assert now.cluster[Scope.INTERNET][0] == node.passed
    assert not now.loss


async def test_while_the_aggregator_is_away_for_ten_minutes_the_stream_stays_short(
    redis: Any, aggregators: Aggregators, node: Node
) -> None:
    aggregators.start()
    await node.seconds(5)
    await node.settled()
    aggregators.processes[0].kill()
    aggregators.processes[0].wait()
    await node.seconds(600)
    assert await redis.xlen(NAMES.flows) <= FROZEN_BATCHES
    aggregators.start()
    await node.settled()
    assert await sent(redis) == node.passed


async def test_an_outage_beyond_the_ttl_ends_as_a_gap_that_is_told(
    redis: Any, aggregators: Aggregators, node: Node
) -> None:
    aggregators.start()
    await node.seconds(5)
    await node.settled()
    confirmed = node.passed
    node.proxy.set(Way.REFUSE)
    began = node.clock.now_us
    with pytest.raises(PodloxxError, match=r"has not answered for 300 s \(--ttl-s\)"):
        await node.seconds(400)
    assert 300 <= (node.clock.now_us - began) / SECOND <= 302
    # What passes while nobody looks, only the interface knows.
    node.passed += 12_300
    node.proxy.set(Way.PASS)
    node.boot()
    unseen = node.passed - confirmed
    await node.seconds(5)
    await node.settled()
    assert await sent(redis) == node.passed
    now = await session(redis)
    assert now.cluster[Scope.UNKNOWN][0] == unseen
    assert now.cluster[Scope.INTERNET][0] == node.passed - unseen


async def test_store_and_aggregator_lost_together_begin_a_session_that_is_shown_as_new(
    redis_server: RedisServer, redis: Any, aggregators: Aggregators, node: Node
) -> None:
    aggregators.start()
    async with serving(redis_server) as api:
        await node.seconds(5)
        await node.settled()
        await api.ready()
        before, old = await session(redis), await told(api)
        assert old["total"] == node.passed
        aggregators.processes[0].kill()
        redis_server.kill()
        gone = node.passed
        await node.seconds(60)
        redis_server.start()
        aggregators.start()
        await node.seconds(5)
        await node.settled()
        assert await sent(redis) == node.passed - gone
        after = await session(redis)
        assert after.epoch != before.epoch
        assert after.started_us > before.started_us
        await until(partial(shows, api, node.passed - gone), "the API shows the new session")
        new = await told(api)
        assert new["uptime"] != old["uptime"]
        assert new["started"] > old["started"]


async def shows(api: Served, size: int) -> bool:
    """Whether the API's totals are these."""
    return bool((await told(api))["total"] == size)


async def told(api: Served) -> dict[str, Any]:
    """What the overview and the first message to a page say of the session."""
    totals = (await api.get("/traffic/total")).values()
    async with api.client.ws_connect(api.url("/traffic/ws?v=1")) as page:
        seed = await page.receive_json()
    return {
        "uptime": (await api.get("/traffic/overview"))["uptime"],
        "started": seed["started"],
        "total": sum(pod["transmitBytes"] for pod in totals),
    }
