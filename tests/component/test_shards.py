"""Nodes divided over shards: aggregators as processes, a real Redis, and each byte in the cluster's totals once."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from services.flows import keys
from services.flows.keys import Keys
from tests.support.agents import ScriptedAgent, fields, flow, window
from tests.support.aggregators import Aggregators
from tests.support.several_shards import (
    SHARDS,
    WEB,
    Two,
    all_own,
    is_total,
    owners,
    sessions,
    settled,
    start,
    taken_over,
)
from tests.support.wait import until


async def test_a_byte_between_two_shards_counts_once(redis: Any, aggregators: Aggregators) -> None:
    start(aggregators)
    await until(lambda: all_own(redis), "all have begun")
    two = Two(redis)
    await two.greet()
    for size in (1000, 20_000, 300_000):
        await two.talk(size)
    await settled(two)
    ledger = (await sessions(redis))[-1]
    assert sum(counts[0] for counts in ledger.cluster.values()) == 321_000
    assert (ledger.overlap_bytes, ledger.shards) == (0, SHARDS)


async def test_whoever_is_killed_it_goes_on_exactly(redis: Any, aggregators: Aggregators) -> None:
    processes = start(aggregators)
    await until(lambda: all_own(redis), "all have begun")
    two = Two(redis)
    for turn, victim in enumerate(processes):
        await two.talk(1000 * 10**turn)
        await asyncio.sleep(0.1 * turn)
        victim.kill()
        victim.wait()
        # One that stands by for all of them takes over.
        start(aggregators, 1)
        await two.talk(500)
        await settled(two)
    assert all(one.loss.keys() <= {"batch-duplicate"} for one in await sessions(redis))


async def test_one_that_stood_still_is_fenced(redis: Any, aggregators: Aggregators) -> None:
    processes = start(aggregators)
    await until(lambda: all_own(redis), "all have begun")
    two = Two(redis)
    await two.talk(1000)
    await settled(two)
    start(aggregators, 1)
    for one in processes:
        before = await owners(redis)
        one.send_signal(signal.SIGSTOP)
        await two.talk(20_000)
        await until(lambda before=before: taken_over(redis, before), "another one took over")
        await settled(two)
        one.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(one.wait, 10) == 1
        start(aggregators, 1)


async def test_an_emptied_redis_is_written_again(redis: Any, aggregators: Aggregators) -> None:
    start(aggregators)
    await until(lambda: all_own(redis), "all have begun")
    two = Two(redis)
    await two.talk(20_000)
    await redis.flushall()
    await two.again()
    await two.talk(1000)
    await settled(two)


async def test_a_ledger_that_begins_anew_is_told_all_points(redis: Any, aggregators: Aggregators) -> None:
    processes = start(aggregators)
    await until(lambda: all_own(redis), "all have begun")
    two = Two(redis)
    await two.talk(20_000)
    await settled(two)
    names = Keys(keys.LEDGER)
    for one in processes:
        # Which of them is the ledger shows when one is stopped and its lease runs out.
        one.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        if await redis.get(names.lease) is None:
            one.kill()
            one.wait()
            break
        one.send_signal(signal.SIGCONT)
    await redis.delete(names.totals, names.applied, names.ticks, names.lease, names.flows)
    start(aggregators, 1)
    await until(lambda: all_own(redis), "a ledger has begun")
    before = two.sent
    await two.talk(3000)
    await until(two.applied, "all batches are applied")
    alone = 2000
    await until(lambda: is_total(two, (two.sent - before + alone, 0)), "only what came since then is in its totals")


async def test_other_numbers_of_shards_are_refused(redis: Any, aggregators: Aggregators) -> None:
    start(aggregators)
    await until(lambda: all_own(redis), "all have begun")
    stranger = ScriptedAgent("node-a", "boot-a")
    await redis.xadd(Keys(0).flows, fields(stranger.batch(window([WEB], flow(1, "1.1.1.1", tx=5)))))
    await until(lambda: _refused(redis), "it is refused")
    for one in aggregators.processes:
        one.kill()
        one.wait()
    other = aggregators.start("--shards=2")
    _, said = await asyncio.to_thread(other.communicate, timeout=15)
    assert other.returncode == 2
    assert b"the session in Redis is divided over 3 shards, and --shards says 2" in said


async def _refused(redis: Any) -> bool:
    return (await sessions(redis))[0].loss == {"batch-malformed": 1}
