"""The aggregator's process where it, Redis or what Redis holds goes: exactly once, whatever is killed."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from services.flows.scope import Scope
from tests.support.agents import NAMES, ScriptedAgent
from tests.support.aggregators import Aggregators, applied, batch_of, begun, is_, sent, session, ticked
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
    agent = await begun(redis, aggregators, 900)
    before = await session(redis)
    await redis.flushall()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: is_(applied(redis), 2), "the next batch is applied")
    assert await sent(redis) == 901
    after = await session(redis)
    assert after.epoch != before.epoch
    assert after.started_us == before.started_us


async def test_redis_killed_and_started_again(redis_server: RedisServer, redis: Any, aggregators: Aggregators) -> None:
    await begun(redis, aggregators, 900)
    redis_server.kill()
    redis_server.start()
    await until(lambda: is_(applied(redis), 1), "everything is there again", timeout_s=20)
    assert await sent(redis) == 900


async def test_a_standby_takes_over(redis: Any, aggregators: Aggregators) -> None:
    agent = await begun(redis, aggregators, 1)
    first = aggregators.processes[0]
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
