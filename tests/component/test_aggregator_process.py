"""The aggregator's process against a real Redis: what it makes of batches."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

from services.aggregator.store import Store
from services.flows import keys, peer_store, wire
from services.flows.delta import Batch
from services.flows.traffic import ROW_COUNTERS
from services.runtime.clock import SystemClock
from tests.support.agents import NAMES, SHARDS, ScriptedAgent, fields, flow, nodes, window
from tests.support.aggregators import WEB, Aggregators, applied, batch_of, begun, is_, sent, session, ticked, ticks
from tests.support.wait import until


async def test_a_batch_becomes_rows_peers_a_tick_and_history(redis: Any, aggregators: Aggregators) -> None:
    await begun(redis, aggregators, 900)
    assert await sent(redis) == 900
    assert await ticked(redis) == 900
    [peer] = peer_store.decode_peers(await redis.hgetall(NAMES.peers(1)))
    assert peer.address == "1.1.1.1"
    assert len(await redis.hgetall(NAMES.history)) == 1
    assert await redis.xlen(NAMES.flows) == 0
    now = await session(redis)
    [(tick_id, _)] = await redis.xrevrange(NAMES.ticks, count=1)
    assert tick_id.decode() == f"{now.epoch}-{now.n}"


async def test_duplicates_are_dropped_and_later_ones_left(redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    agent = ScriptedAgent()
    first, second, third = (batch_of(agent, size) for size in (1, 10, 100))
    for batch in (first, first, third, second):
        await agent.send(redis, batch)
    await until(lambda: is_(applied(redis), 2), "two are applied")
    assert await sent(redis) == 11
    await agent.send(redis, third)
    await until(lambda: is_(applied(redis), 3), "the third is applied")
    assert await sent(redis) == 111
    assert (await session(redis)).loss == {"batch-duplicate": 1, "batch-ahead": 1}


async def test_an_unknown_boot_begins_where_it_saw_confirmation(redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    agent = ScriptedAgent(seq=100)
    await agent.send(redis, batch_of(agent, 5), confirmed=100)
    await until(lambda: is_(applied(redis), 101), "it is applied")


def malformed(agent: ScriptedAgent) -> list[dict[Any, Any]]:
    """Entries that can never be applied; the last ones have taken a number of `agent`."""
    numbered = [fields(batch_of(agent, 5)) for _ in range(3)]
    return [
        {"nothing": "known"},
        {**numbered[0], keys.FIELD_SEQ: "one"},
        {**numbered[0], keys.FIELD_SEQ: 0},
        {**numbered[0], keys.FIELD_CONFIRMED: -1},
        {**numbered[0], keys.FIELD_SEQ: 10**30},
        {**numbered[0], keys.FIELD_BOOT: b"\xff"},
        {**numbered[0], keys.FIELD_BOOT: ""},
        {**numbered[0], keys.FIELD_BOOT: keys.APPLIED_CURSOR},
        {**numbered[0], keys.FIELD_BATCH: b"\xc1"},
        {**numbered[1], keys.FIELD_BATCH: numbered[2][keys.FIELD_BATCH]},
        {**numbered[2], keys.FIELD_BATCH: wire.encode(implausible(agent))},
    ]


def implausible(agent: ScriptedAgent) -> Batch:
    """A batch under the agent's last number that no interface can have counted."""
    return replace(agent.sent[-1], windows=(window([WEB], flow(1, "1.1.1.1", tx=2**60)),))


async def test_malformed_batches_are_counted_and_passed(redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    agent = ScriptedAgent()
    bad = malformed(agent)
    for entry in bad:
        await redis.xadd(NAMES.flows, entry)
    await agent.send(redis, batch_of(agent, 7))
    await until(lambda: is_(applied(redis), 4), "the good one is applied")
    assert await sent(redis) == 7
    assert (await session(redis)).loss == {"batch-malformed": len(bad)}
    assert await redis.xlen(NAMES.flows) == 0


async def test_batches_that_wait_share_a_commit(redis: Any, aggregators: Aggregators) -> None:
    agents = [ScriptedAgent(node, f"boot-{at}") for at, node in enumerate(nodes(10))]
    for agent in agents:
        await agent.send(redis, batch_of(agent, 100))
    aggregators.start()
    await until(lambda: is_(applied(redis, "boot-9"), 1), "all are applied")
    assert [len(tick.nodes) for tick in await ticks(redis)] == [0, 10]


async def test_a_bad_batch_spoils_no_others(redis: Any, aggregators: Aggregators) -> None:
    agents = [ScriptedAgent(node, f"boot-{at}") for at, node in enumerate(nodes(10))]
    for agent in agents:
        batch = batch_of(agent, 100)
        await agent.send(redis, replace(batch, error_us=2**63) if agent is agents[4] else batch)
    aggregators.start()
    await until(lambda: is_(applied(redis, "boot-9"), 1), "all are applied")
    assert await applied(redis, "boot-4") == 1
    assert (await session(redis)).loss == {"batch-malformed": 1}
    assert [len(tick.nodes) for tick in await ticks(redis)] == [0, 9]


async def test_an_agent_that_is_ahead_is_told_where_to_begin(redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    agent = ScriptedAgent(seq=7)
    await agent.send(redis, batch_of(agent, 5), confirmed=4)
    await until(lambda: is_(applied(redis), 4), "it is told")
    assert await sent(redis) == 0


async def test_the_cursor_follows_while_nothing_comes(redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    before = await redis.time()
    await until(lambda: is_later(redis, before[0] * 1000), "what was sent until then has been read")


async def is_later(redis: Any, than_ms: int) -> bool:
    """Whether agents can tell that all entries up to a moment were read."""
    cursor = await redis.hget(NAMES.applied, keys.APPLIED_CURSOR)
    return int((cursor or b"0-0").split(b"-")[0]) > than_ms


async def test_its_heart_beats(redis: Any, aggregators: Aggregators) -> None:
    aggregators.start()
    await until(lambda: redis.get(NAMES.lease), "it owns the shard")
    first = aggregators.heartbeat.stat().st_mtime_ns
    await until(lambda: aggregators.heartbeat.stat().st_mtime_ns > first, "it beats again")


async def test_totals_that_cannot_be_read_are_left_alone(redis: Any, aggregators: Aggregators) -> None:
    await redis.hset(NAMES.totals, "session", b"\xc1")
    process = aggregators.start()
    _, said = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 1
    assert b"the totals in Redis cannot be read" in said.splitlines()[-1]
    assert await redis.hget(NAMES.totals, "session") == b"\xc1"


async def test_damaged_books_are_one_sentence(redis: Any, aggregators: Aggregators) -> None:
    process = aggregators.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 100))
    await until(lambda: applied(redis), "it is applied")
    process.kill()
    process.wait()
    books = msgpack.unpackb(await redis.hget(NAMES.totals, "books"))
    if SHARDS == 1:
        # One entry that waits, of a pod that is not listed.
        books["once"]["held"] = [1, [], [], [[1, b"\1"]] * (5 + len(ROW_COUNTERS))]
    else:
        books["letters"] = [1]
    await redis.hset(NAMES.totals, "books", msgpack.packb(books))
    process = aggregators.start()
    _, said = await asyncio.to_thread(process.communicate, timeout=20)
    assert b"the totals in Redis cannot be read" in said.splitlines()[-1]


async def test_told_to_stop_it_gives_the_shard_back(redis: Any, aggregators: Aggregators) -> None:
    process = aggregators.start()
    await until(lambda: redis.get(NAMES.lease), "it owns the shard")
    process.terminate()
    assert await asyncio.to_thread(process.wait, 10) == 0
    assert await redis.get(NAMES.lease) is None


def test_a_wrong_address_file_is_one_sentence(aggregators: Aggregators, folder: Path) -> None:
    (folder / "bad.json").write_text('{"version": 1, "addresses": {"10.0.0.300": {}}}')
    process = aggregators.start(f"--directory-file={folder / 'bad.json'}")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said.decode().splitlines()[-1].endswith("is wrong at addresses.10.0.0.300: expected an IPv4 or IPv6 address")


async def test_where_one_entry_was_large_few_are_read_at_once(redis: Any) -> None:
    store = Store(redis, NAMES, 5, SystemClock())
    for size in (8 << 20, *[10] * 69):
        await redis.xadd(NAMES.flows, {keys.FIELD_BATCH: b"x" * size})
    sizes, cursor = [], b"0-0"
    while entries := await store.read(cursor, 1):
        sizes.append(len(entries))
        cursor = entries[-1][0]
    # Nothing is known of the first ones, the second ones follow the large one, and then all are small.
    assert sizes == [16, 16, 38]
