"""The aggregator's process against a real Redis: exactly once, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.flows import keys, traffic
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS
from tests.support.agents import NAMES, ScriptedAgent, attachment, fields, flow, window
from tests.support.redis_server import RedisServer
from tests.support.wait import until
from tests.support.worlds import CONTENT

WEB = attachment(1, "10.1.0.2")


class Aggregator:
    """The service as a process."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        (folder / "addresses.json").write_text(json.dumps(CONTENT))
        self._arguments = [
            f"--redis-url={server.url}",
            f"--directory-file={folder / 'addresses.json'}",
            "--lease-ttl-s=1",
        ]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start one more."""
        argv = [sys.executable, "-m", "services.aggregator", *self._arguments, *more]
        self.processes.append(subprocess.Popen(argv, stderr=subprocess.PIPE))
        return self.processes[-1]

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def aggregator(redis_server: RedisServer, folder: Path) -> Iterator[Aggregator]:
    one = Aggregator(redis_server, folder)
    yield one
    one.end()


async def applied(redis: Any, boot: str = "boot-a") -> int:
    """The applied number of a boot id."""
    return int(await redis.hget(NAMES.applied, boot) or 0)


async def sent(redis: Any) -> int:
    """All tx bytes in the rows."""
    stored = await redis.hgetall(NAMES.totals)
    rows = [traffic.decode_row(int(f[4:]), value) for f, value in stored.items() if f.startswith(b"row:")]
    return sum(counts[0] for row in rows for counts in row.totals.values())


async def ticked(redis: Any) -> int:
    """All tx bytes in the ticks."""
    at = ROW_COUNTERS.index("tx_bytes")
    total = 0
    for _, entry in await redis.xrange(NAMES.ticks):
        for change in traffic.decode_tick(entry[keys.FIELD_TICK]).changes:
            total += sum(counts[at] for counts in change.added.values())
    return total


async def session(redis: Any) -> traffic.Session:
    """The stored session."""
    return traffic.decode_session(await redis.hget(NAMES.totals, "session"))


def batch_of(agent: ScriptedAgent, size: int) -> Any:
    """A batch with `size` bytes sent to the internet."""
    return agent.batch(window([WEB], flow(1, "1.1.1.1", tx=size), second=agent.seq))


async def test_a_batch_becomes_rows_peers_a_tick_and_history(redis: Any, aggregator: Aggregator) -> None:
    aggregator.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the batch is applied")
    assert await sent(redis) == 900
    assert await ticked(redis) == 900
    [peer] = (await redis.hgetall(NAMES.peers(1))).values()
    assert traffic.decode_peer(peer).address == "1.1.1.1"
    assert len(await redis.hgetall(NAMES.history)) == 1
    assert await redis.xlen(NAMES.flows) == 0
    now = await session(redis)
    [(tick_id, _)] = await redis.xrevrange(NAMES.ticks, count=1)
    assert tick_id.decode() == f"{now.epoch}-{now.n}"


async def test_duplicates_are_dropped_and_later_ones_left(redis: Any, aggregator: Aggregator) -> None:
    aggregator.start()
    agent = ScriptedAgent()
    first, second, third = (batch_of(agent, size) for size in (1, 10, 100))
    for batch in (first, first, third, second):
        await agent.send(redis, batch)
    await until(lambda: _is(applied(redis), 2), "two are applied")
    assert await sent(redis) == 11
    await agent.send(redis, third)
    await until(lambda: _is(applied(redis), 3), "the third is applied")
    assert await sent(redis) == 111
    assert (await session(redis)).loss == {"batch-duplicate": 1, "batch-ahead": 1}


async def _is(value: Any, expected: int) -> bool:
    return bool(await value == expected)


async def test_an_unknown_boot_begins_where_it_saw_confirmation(redis: Any, aggregator: Aggregator) -> None:
    aggregator.start()
    agent = ScriptedAgent(seq=100)
    await agent.send(redis, batch_of(agent, 5), confirmed=100)
    await until(lambda: _is(applied(redis), 101), "it is applied")


async def test_a_malformed_batch_is_counted_and_passed(redis: Any, aggregator: Aggregator) -> None:
    aggregator.start()
    agent = ScriptedAgent()
    broken = fields(batch_of(agent, 5)) | {keys.FIELD_BATCH: b"\xc1"}
    await redis.xadd(NAMES.flows, {"boot": "x"})
    await redis.xadd(NAMES.flows, broken)
    await agent.send(redis, batch_of(agent, 7))
    await until(lambda: _is(applied(redis), 2), "the good one is applied")
    assert await sent(redis) == 7
    assert (await session(redis)).loss == {"batch-malformed": 2}


async def test_killed_and_started_again_it_goes_on_exactly(redis: Any, aggregator: Aggregator) -> None:
    agent = ScriptedAgent()
    for turn in range(4):
        process = aggregator.start()
        await agent.send(redis, batch_of(agent, 10**turn))
        await until(lambda turn=turn: _is(applied(redis), turn + 1), "the batch is applied")
        process.kill()
        process.wait()
    assert await sent(redis) == 1111
    assert await ticked(redis) == 1111
    assert len(await redis.hgetall(NAMES.peers(1))) == 1
    assert (await session(redis)).cluster[Scope.INTERNET][0] == 1111


async def test_a_store_that_was_emptied_is_written_again(redis: Any, aggregator: Aggregator) -> None:
    aggregator.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the batch is applied")
    before = await session(redis)
    await redis.flushall()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: _is(applied(redis), 2), "the next batch is applied")
    assert await sent(redis) == 901
    after = await session(redis)
    assert after.epoch != before.epoch
    assert after.started_us == before.started_us


async def test_redis_killed_and_started_again(redis_server: RedisServer, redis: Any, aggregator: Aggregator) -> None:
    aggregator.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the batch is applied")
    redis_server.kill()
    redis_server.start()
    await until(lambda: _is(applied(redis), 1), "everything is there again", timeout_s=20)
    assert await sent(redis) == 900


async def test_a_standby_takes_over(redis: Any, aggregator: Aggregator) -> None:
    first = aggregator.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 1))
    await until(lambda: applied(redis), "the first one works")
    aggregator.start()
    first.send_signal(signal.SIGSTOP)
    await agent.send(redis, batch_of(agent, 10))
    await until(lambda: _is(applied(redis), 2), "the standby took over")
    first.send_signal(signal.SIGCONT)
    code = await asyncio.to_thread(first.wait, 10)
    assert code == 1
    assert first.stderr is not None
    assert b"another aggregator has taken over this shard" in first.stderr.read()
    assert await sent(redis) == 11


async def test_told_to_stop_it_gives_the_shard_back(redis: Any, aggregator: Aggregator) -> None:
    process = aggregator.start()
    await until(lambda: redis.get(NAMES.lease), "it owns the shard")
    process.terminate()
    assert await asyncio.to_thread(process.wait, 10) == 0
    assert await redis.get(NAMES.lease) is None


def test_a_wrong_address_file_is_one_sentence(aggregator: Aggregator, folder: Path) -> None:
    (folder / "bad.json").write_text('{"version": 1, "addresses": {"10.0.0.300": {}}}')
    process = aggregator.start(f"--directory-file={folder / 'bad.json'}")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said.decode().splitlines()[-1].endswith("is wrong at addresses.10.0.0.300: expected an IPv4 or IPv6 address")
