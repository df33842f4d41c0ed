"""The aggregator's process while a right that a commit needs is taken away and given back."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from services.aggregator.store import Store, StoreLostError
from services.aggregator.totals import Totals
from services.launcher.store import RULES
from services.runtime.clock import SystemClock
from tests.support.agents import NAMES, ScriptedAgent
from tests.support.aggregators import Aggregators, applied, batch_of, history_sent, is_, sent, ticked
from tests.support.wait import until
from tests.support.worlds import directory


async def with_rights(redis: Any, aggregators: Aggregators, folder: Path) -> Any:
    """An aggregator that has only the rights it needs, with a first batch in the totals."""
    (folder / "password").write_text("secret")
    await redis.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", *RULES["aggregator"].split())
    process = aggregators.start("--redis-user=narrow", f"--redis-password-file={folder / 'password'}")
    await until(lambda: redis.hexists("podloxx:{0}:totals", "session"), "it works")
    return process


async def refused(redis: Any, right: str) -> None:
    """Wait until a command of the narrow user was refused."""

    async def is_refused() -> bool:
        return any(entry["username"] == "narrow" for entry in await redis.acl_log())

    await until(is_refused, f"{right} was refused")


@pytest.mark.parametrize("right", ["xadd", "xtrim", "hset", "pexpire", "evalsha"])
async def test_a_commit_that_failed_half_way_is_completed(
    redis: Any, aggregators: Aggregators, folder: Path, right: str
) -> None:
    await with_rights(redis, aggregators, folder)
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: applied(redis), "the first batch is applied")
    await redis.execute_command("ACL", "SETUSER", "narrow", f"-{right}")
    await agent.send(redis, batch_of(agent, 10))
    await refused(redis, right)
    await redis.execute_command("ACL", "SETUSER", "narrow", f"+{right}")
    await agent.send(redis, batch_of(agent, 100))
    await until(lambda: is_(applied(redis), 3), "all are applied")
    assert await sent(redis) == 111
    assert await ticked(redis) == 111
    assert await history_sent(redis) == 111


@pytest.mark.parametrize("right", ["xadd", "xtrim", "hset"])
async def test_killed_half_way_through_a_commit_it_counts_nothing_twice(
    redis: Any, aggregators: Aggregators, folder: Path, right: str
) -> None:
    process = await with_rights(redis, aggregators, folder)
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: applied(redis), "the first batch is applied")
    await redis.execute_command("ACL", "SETUSER", "narrow", f"-{right}")
    await agent.send(redis, batch_of(agent, 10))
    await refused(redis, right)
    process.kill()
    await asyncio.to_thread(process.wait)
    aggregators.start()
    await agent.send(redis, batch_of(agent, 100))
    await until(lambda: is_(applied(redis), 3), "all are applied")
    assert await sent(redis) == 111
    assert await history_sent(redis) == 111


async def test_who_read_a_commit_that_ended_half_way_keeps_a_lease_that_ran_out(
    redis: Any, aggregators: Aggregators, folder: Path
) -> None:
    process = await with_rights(redis, aggregators, folder)
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: applied(redis), "the first batch is applied")
    await redis.execute_command("ACL", "SETUSER", "narrow", "-xadd")
    await agent.send(redis, batch_of(agent, 10))
    await refused(redis, "xadd")
    process.kill()
    await asyncio.to_thread(process.wait)
    store = Store(redis, NAMES, 60, SystemClock())
    await redis.delete(NAMES.lease)
    assert await store.acquire()
    assert await store.load(Totals(directory(), 1000))
    assert store.position.encode() != await redis.hget(NAMES.totals, "position")
    # It was stopped for longer than its lease: nobody else has taken the shard.
    await redis.delete(NAMES.lease)
    with contextlib.suppress(StoreLostError):
        await store.renew()
    assert await redis.exists(NAMES.lease)


async def test_who_saw_an_owner_takes_no_emptied_store(redis: Any) -> None:
    store = Store(redis, NAMES, 5, SystemClock())
    assert not await store.acquire(only_with_totals=True)
    await redis.hset(NAMES.totals, "session", b"")
    assert await store.acquire(only_with_totals=True)
