"""The aggregator's process when it, its store or its rival is killed, emptied, full or frozen."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from services.capture.publisher import Origin, Publisher
from services.flows.scope import Scope
from services.runtime.clock import SystemClock
from tests.support.agents import NAMES, ScriptedAgent, flow, window
from tests.support.aggregators import (
    WEB,
    Aggregators,
    applied,
    batch_of,
    history_sent,
    is_,
    peers_sent,
    sent,
    session,
    ticked,
)
from tests.support.redis_server import RedisServer
from tests.support.wait import until


async def test_killed_and_started_again_it_goes_on_exactly(redis: Any, aggregators: Aggregators) -> None:
    agent = ScriptedAgent()
    for turn in range(4):
        process = aggregators.start()
        await agent.send(redis, batch_of(agent, 10**turn))
        await until(lambda turn=turn: is_(applied(redis), turn + 1), "the batch is applied")
        process.kill()
        process.wait()
    assert await sent(redis) == 1111
    assert await ticked(redis) == 1111
    assert len(await redis.hgetall(NAMES.peers(1))) == 1
    assert (await session(redis)).cluster[Scope.INTERNET][0] == 1111


async def test_a_store_that_was_emptied_is_written_again(redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the batch is applied")
    before = await session(redis)
    await redis.flushall()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: is_(applied(redis), 2), "the next batch is applied")
    assert await sent(redis) == 901
    after = await session(redis)
    assert after.epoch != before.epoch
    assert after.started_us == before.started_us


async def test_redis_killed_and_started_again(redis_server: RedisServer, redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the batch is applied")
    redis_server.kill()
    redis_server.start()
    await until(lambda: is_(applied(redis), 1), "everything is there again", timeout_s=20)
    assert await sent(redis) == 900


async def test_a_standby_takes_over(redis: Any, aggregators: Aggregators) -> None:
    first = aggregators.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: applied(redis), "the first one works")
    aggregators.start()
    first.send_signal(signal.SIGSTOP)
    await agent.send(redis, batch_of(agent, 10))
    await until(lambda: is_(applied(redis), 2), "the standby took over")
    first.send_signal(signal.SIGCONT)
    code = await asyncio.to_thread(first.wait, 10)
    assert code == 1
    assert first.stderr is not None
    assert b"another aggregator has taken over this shard" in first.stderr.read()
    assert await sent(redis) == 11


async def test_a_standby_leaves_an_emptied_store_to_its_owner(redis: Any, aggregators: Aggregators) -> None:
    first = aggregators.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the first one works")
    second = aggregators.start()
    await until(lambda: is_standing_by(redis), "the second one stands by")
    for _ in range(3):
        await redis.flushall()
        await until(lambda: is_(sent(redis), 900), "everything is there again")
    assert first.poll() is None
    assert second.poll() is None


async def is_standing_by(redis: Any) -> bool:
    """Whether two aggregators are connected."""
    return len(await redis.client_list()) >= 3


async def test_a_standby_begins_a_session_when_owner_and_totals_are_gone(redis: Any, aggregators: Aggregators) -> None:
    first = aggregators.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the first one works")
    aggregators.start()
    await until(lambda: is_standing_by(redis), "the second one stands by")
    first.kill()
    first.wait()
    await redis.flushall()
    await agent.send(redis, batch_of(agent, 11), confirmed=1)
    await until(lambda: is_(sent(redis), 11), "a new session begins", timeout_s=20)


@pytest.fixture
def publisher(redis: Any) -> Publisher:
    """An agent's real end of the delivery protocol."""
    return Publisher(redis, NAMES, Origin("node-a", "boot-a"), 100_000, SystemClock())


async def confirmed(publisher: Publisher) -> bool:
    """Whether everything is in the totals, after one more round of sending."""
    await publisher.flush({})
    return not publisher.unconfirmed


async def test_nothing_is_lost_and_nothing_twice_whatever_breaks(
    redis_server: RedisServer, redis: Any, aggregators: Aggregators, publisher: Publisher
) -> None:
    aggregators.start()
    chance = random.Random(4)
    truth = 0
    for second in range(25):
        size = 100 * chance.randrange(1, 1000)
        truth += size
        publisher.add(window([WEB], flow(1, f"1.1.1.{second % 5}", tx=size), second=second))
        if chance.random() < 0.7:
            await publisher.flush({})
        match chance.randrange(6):
            case 0:
                aggregators.processes[-1].kill()
                aggregators.processes[-1].wait()
                aggregators.start()
            case 1:
                # Not while the aggregator is being replaced: lost together, a session is lost.
                await until(lambda: confirmed(publisher), "all is applied", timeout_s=20)
                await redis.flushall()
            case 2:
                await until(lambda: confirmed(publisher), "all is applied", timeout_s=20)
                redis_server.kill()
                redis_server.start()
            case _:
                await until(lambda: confirmed(publisher), "all is applied", timeout_s=20)
    await until(lambda: confirmed(publisher), "all is applied", timeout_s=20)
    await until(lambda: is_(sent(redis), truth), "the totals are there", timeout_s=20)
    assert await peers_sent(redis) == truth
    assert await history_sent(redis) == truth
    assert (await session(redis)).cluster[Scope.INTERNET][0] == truth


async def test_agents_fill_a_store_and_the_aggregator_makes_room(
    redis: Any, aggregators: Aggregators, publisher: Publisher
) -> None:
    process = aggregators.start()
    publisher.add(window([WEB], flow(1, "1.1.1.1", tx=1)))
    await until(lambda: confirmed(publisher), "the first one is applied")
    process.send_signal(signal.SIGSTOP)
    await fill(redis, publisher)
    process.send_signal(signal.SIGCONT)
    await until(lambda: confirmed(publisher), "all is applied", timeout_s=20)
    assert await sent(redis) == 1 + 3 * 8000


async def test_a_restarted_aggregator_makes_room_in_a_full_store(
    redis: Any, aggregators: Aggregators, publisher: Publisher
) -> None:
    process = aggregators.start()
    publisher.add(window([WEB], flow(1, "1.1.1.1", tx=1)))
    await until(lambda: confirmed(publisher), "the first one is applied")
    process.kill()
    process.wait()
    await fill(redis, publisher)
    aggregators.start()
    await until(lambda: confirmed(publisher), "all is applied", timeout_s=20)
    assert await sent(redis) == 1 + 3 * 8000


async def fill(redis: Any, publisher: Publisher) -> None:
    """Send batches until the store takes no more."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", used + 300_000)
    for second in range(1, 4):
        rows = [flow(1, f"10.9.{at // 250}.{at % 250}", tx=1, port=at) for at in range(8000)]
        publisher.add(window([WEB], *rows, second=second))
        await publisher.flush({})
    assert publisher.unconfirmed
    with pytest.raises(OutOfMemoryError, match="maxmemory"):
        await redis.xadd(NAMES.flows, {"more": b"x" * 300_000})
