"""Redis's clock, from which all others take the time of day, is set back or on while everything runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.capture.publisher import Origin, Publisher
from services.flows import keys, wire
from services.flows.delta import Attachment, InterfaceCounters
from services.runtime.clock import SystemClock
from tests.support.agents import NAMES, SECOND, ScriptedAgent, attachment, flow, window
from tests.support.aggregators import WEB, Aggregators, applied, batch_of, begun, history_sent, is_, sent
from tests.support.redis_server import RedisServer
from tests.support.served import serving
from tests.support.stepped_clock import SteppedClock
from tests.support.wait import until

HOUR_S = 3600.0


@pytest.fixture
def clock(folder: Path) -> Iterator[SteppedClock]:
    with contextlib.closing(SteppedClock(folder)) as one:
        yield one


@pytest.fixture
def redis_server(folder: Path, clock: SteppedClock) -> Iterator[RedisServer]:
    """A Redis whose clock is ours to step."""
    server = RedisServer(folder)
    server.environment = clock.environment
    server.start()
    yield server
    server.stop()


async def test_the_clock_is_stepped(redis: Any, clock: SteppedClock) -> None:
    for step in (HOUR_S, -2 * HOUR_S, HOUR_S):
        before = (await redis.time())[0]
        clock.step(step)
        assert abs((await redis.time())[0] - before - step) <= 1


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
async def test_totals_go_on(redis: Any, clock: SteppedClock, aggregators: Aggregators, step_s: float) -> None:
    agent = await begun(redis, aggregators, 900)
    clock.step(step_s)
    await agent.send(redis, batch_of(agent, 90))
    await until(lambda: is_(applied(redis), 2), "the second batch is applied")
    assert await sent(redis) == 990


class LiveAgent(ScriptedAgent):
    """Tells by its machine's clock what passed in the last second, and how far that is from Redis's."""

    async def tell(self, redis: Any, size: int, one: Attachment = WEB) -> None:
        """Send a batch of `size` bytes, and wait for it."""
        self.machine = "m1"
        seconds, micros = await redis.time()
        now = SystemClock().monotonic_us()
        told = replace(window([one], flow(one.id, "1.1.1.1", tx=size)), start_us=now - SECOND, end_us=now)
        batch = replace(self.batch(told), offset_us=seconds * SECOND + micros - now)
        await self.send(redis, batch)
        await until(lambda: is_(applied(redis, self.boot), batch.seq), "the batch is applied")


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
async def test_history_and_api_go_on(
    redis: Any, clock: SteppedClock, redis_server: RedisServer, aggregators: Aggregators, step_s: float
) -> None:
    aggregators.start()
    agent = LiveAgent()
    async with serving(redis_server) as api:
        await agent.tell(redis, 900)
        await api.ready()
        clock.step(step_s)
        await agent.tell(redis, 900)
        await agent.tell(redis, 900)
        assert await history_sent(redis) == 2700
        buckets = sorted(int(number) for number in await redis.hkeys(NAMES.history))
        seconds, _ = await redis.time()
        assert seconds // keys.HISTORY_BUCKET_S - 2 <= buckets[0] <= buckets[-1] <= seconds // keys.HISTORY_BUCKET_S
        [node] = (await api.get("/traffic/nodes")).values()
        assert node["live"]
        assert (await api.get("/traffic/total"))["shop/web"]["transmitBytes"] == 2700


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
async def test_who_dies_meanwhile_leaves_a_gap(
    redis: Any, clock: SteppedClock, aggregators: Aggregators, step_s: float
) -> None:
    aggregators.start()
    first, second = LiveAgent(), LiveAgent(boot="boot-b")
    await first.tell(redis, 900)
    clock.step(step_s)
    counters = InterfaceCounters(1500, 15, 0, 0)
    await second.tell(redis, 90, replace(WEB, id=7, first_counters=counters))
    assert await sent(redis) == 900 + 600 + 90
    await second.tell(redis, 90, replace(WEB, id=7, first_counters=counters))
    assert await sent(redis) == 900 + 600 + 180


async def test_nobody_reads_before_where_batches_come_after_the_clock_was_on_for_a_while(
    redis: Any, clock: SteppedClock, aggregators: Aggregators
) -> None:
    agent = await begun(redis, aggregators, 900)
    until_s = (await redis.time())[0] + HOUR_S / 2
    clock.step(HOUR_S)

    async def has_passed() -> bool:
        cursor = await redis.hget(NAMES.applied, keys.APPLIED_CURSOR)
        return bool(int(cursor.partition(b"-")[0]) / 1000 > until_s)

    await until(has_passed, "with nothing to read it goes by the clock")
    clock.step(-HOUR_S)
    await agent.send(redis, batch_of(agent, 90))
    await until(lambda: is_(applied(redis), 2), "the second batch is applied")
    assert await sent(redis) == 990
    assert await redis.xlen(NAMES.flows) == 0


async def test_who_slept_all_night_is_not_forgotten(redis: Any, clock: SteppedClock, aggregators: Aggregators) -> None:
    """In a suspended machine the time of day goes on, and what it takes to forget an agent does not pass."""
    agent, other = await begun(redis, aggregators, 900), ScriptedAgent("node-b", "boot-b")
    clock.step(8 * HOUR_S)
    await other.send(redis, other.batch(window([attachment(1, "10.1.0.9")])))
    await until(lambda: applied(redis, "boot-b"), "the other one is heard")
    # As it never heard that it was applied.
    await agent.send(redis, agent.sent[0])
    await agent.send(redis, batch_of(agent, 90))
    await until(lambda: is_(applied(redis), 2), "the second batch is applied")
    assert await sent(redis) == 990


async def test_an_agent_follows_at_once(redis: Any, clock: SteppedClock) -> None:
    publisher = Publisher(redis, NAMES, Origin("node-a", "boot-a"), 1000, SystemClock())
    for at, step_s in enumerate((0, HOUR_S, -2 * HOUR_S, 1.0)):
        for _ in range(3):
            # Some readings before: one of these is the most exact.
            await publisher.flush({})
        clock.step(step_s)
        publisher.add(window([WEB], second=at))
        await publisher.flush({})
        [*_, (_, last)] = await redis.xrange(NAMES.flows)
        batch = wire.decode(last[keys.FIELD_BATCH])
        seconds, micros = await redis.time()
        late_us = seconds * SECOND + micros - (SystemClock().monotonic_us() + batch.offset_us)
        assert abs(late_us) < SECOND // 2


async def test_a_lease_that_a_step_made_longer_is_taken_over_all_the_same(
    redis: Any, clock: SteppedClock, aggregators: Aggregators
) -> None:
    agent = await begun(redis, aggregators, 900)
    first = aggregators.processes[0]
    first.kill()
    clock.step(-HOUR_S)
    assert await redis.pttl(NAMES.lease) > 1000
    aggregators.start()
    await agent.send(redis, batch_of(agent, 90))
    await until(lambda: is_(applied(redis), 2), "the next one works")
    assert await sent(redis) == 990


async def test_a_lease_that_a_step_ended_is_not_owned_by_two(
    redis: Any, clock: SteppedClock, aggregators: Aggregators
) -> None:
    agent = await begun(redis, aggregators, 900)
    aggregators.start()
    for at in range(1, 6):
        clock.step(HOUR_S)
        await agent.send(redis, batch_of(agent, 90))
        await until(lambda at=at: is_(applied(redis), at + 1), "the batch is applied")
        assert await sent(redis) == 900 + at * 90
