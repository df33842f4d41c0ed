"""The aggregator's process and agents' publishers where Redis has no memory left: nothing is lost or stuck."""

from __future__ import annotations

import signal
from typing import Any, Final

import numpy as np
import pytest
from redis.exceptions import OutOfMemoryError

from services.capture.publisher import Origin, Publisher
from services.flows.delta import FLOW, Kind, Rows, Side, Window
from services.runtime.clock import SystemClock
from tests.support.agents import NAMES, attachment
from tests.support.aggregators import Aggregators, applied, batch_of, begun, is_, peers_sent, sent, session
from tests.support.redis_server import RedisServer
from tests.support.wait import until

# An aggregator on a busy machine empties a store slowly.
pytestmark = pytest.mark.timeout(150)

_ROWS: Final = 20_000
_AGENTS: Final = 4
_SIZE: Final = 1000
_FILLING: Final = 5
"""Windows of every agent, which are more than the Redis of a test takes."""


def wide(at: int) -> Window:
    """A window of a second whose flows fill most of a megabyte."""
    rows: Rows = np.zeros(_ROWS, FLOW)
    rows["attachment"], rows["kind"], rows["protocol"], rows["port"], rows["server"] = 1, Kind.IP, 6, 443, Side.PEER
    rows["peer_hi"] = 0x2001_0DB8_0000_0000
    rows["peer_lo"] = np.random.default_rng(at).integers(1, 1 << 63, _ROWS)
    rows["tx_bytes"], rows["tx_packets"] = _SIZE, 1
    return Window(at * 1_000_000, (at + 1) * 1_000_000, (attachment(1, "10.1.0.2"),), rows)


def publishers(redis: Any) -> list[Publisher]:
    """Agents of several nodes."""
    return [
        Publisher(redis, NAMES, Origin(f"node-{at}", f"boot-{at}"), 2 * _ROWS, SystemClock()) for at in range(_AGENTS)
    ]


async def fill(agents: list[Publisher], windows: int) -> bool:
    """Let every agent send; whether one was refused for want of memory."""
    refused = False
    for at in range(windows):
        for agent in agents:
            agent.add(wide(at))
            refused |= not await agent.flush({})
    return refused


async def confirmed(agents: list[Publisher]) -> bool:
    """Whether all that agents hold is in the totals by now."""
    for agent in agents:
        await agent.flush({})
    return not any(agent.unconfirmed for agent in agents)


async def limit(redis: Any, more: int) -> None:
    """Give Redis so much memory more than it uses."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + more)


async def other_keys(redis: Any) -> None:
    """Fill what is left with keys of somebody else's."""
    number = 0
    while True:
        try:
            await redis.set(f"other:{number}", bytes(1 << 10))
        except OutOfMemoryError:
            return
        number += 1


async def test_a_store_that_agents_filled_is_emptied_again(redis: Any, aggregators: Aggregators) -> None:
    process = aggregators.start("--peers-per-pod=100")
    agents = publishers(redis)
    await fill(agents, 1)
    await until(lambda: confirmed(agents), "the agents are known")
    await limit(redis, 8 << 20)
    process.send_signal(signal.SIGSTOP)
    assert await fill(agents, _FILLING), "Redis is full"
    process.send_signal(signal.SIGCONT)
    await until(lambda: confirmed(agents), "all is applied", timeout_s=100)
    assert await sent(redis) == _AGENTS * (1 + _FILLING) * _ROWS * _SIZE
    # All agents see the same pod.
    assert await peers_sent(redis) == _AGENTS * (1 + _FILLING) * _ROWS * _SIZE


async def test_a_full_store_that_restarts_is_filled_and_emptied_again(
    redis: Any, redis_server: RedisServer, aggregators: Aggregators
) -> None:
    aggregators.start("--peers-per-pod=100")
    agents = publishers(redis)
    await fill(agents, 1)
    await until(lambda: confirmed(agents), "the agents are known")
    aggregators.processes[0].send_signal(signal.SIGSTOP)
    redis_server.kill()
    redis_server.start("--maxmemory", "6mb")
    assert await fill(agents, _FILLING), "Redis is full"
    aggregators.processes[0].send_signal(signal.SIGCONT)
    await until(lambda: confirmed(agents), "all is applied", timeout_s=100)
    assert await sent(redis) == _AGENTS * (1 + _FILLING) * _ROWS * _SIZE


async def test_an_aggregator_that_starts_at_a_full_store_empties_it(redis: Any, aggregators: Aggregators) -> None:
    agents = publishers(redis)
    await limit(redis, 8 << 20)
    assert await fill(agents, _FILLING), "Redis is full"
    aggregators.start("--peers-per-pod=100")
    await until(lambda: confirmed(agents), "all is applied", timeout_s=100)
    assert await sent(redis) == _AGENTS * _FILLING * _ROWS * _SIZE


async def test_where_others_filled_it_what_was_sent_is_committed_all_the_same(
    redis: Any, aggregators: Aggregators
) -> None:
    agent = await begun(redis, aggregators, 1)
    batch = batch_of(agent, 10)
    aggregators.processes[0].send_signal(signal.SIGSTOP)
    await agent.send(redis, batch)
    await limit(redis, 100_000)
    await other_keys(redis)
    before = (await session(redis)).epoch

    async def lease_is_over() -> bool:
        return not await redis.exists(NAMES.lease)

    await until(lease_is_over, "the lease ran out")
    aggregators.processes[0].send_signal(signal.SIGCONT)
    await until(lambda: is_(applied(redis), 2), "the second batch is applied")
    assert await sent(redis) == 11
    assert (await session(redis)).epoch == before


async def test_a_full_store_that_lost_everything_is_written_again(
    redis: Any, redis_server: RedisServer, aggregators: Aggregators
) -> None:
    await begun(redis, aggregators, 1)
    aggregators.processes[0].send_signal(signal.SIGSTOP)
    redis_server.kill()
    redis_server.start()
    await limit(redis, 100_000)
    await other_keys(redis)
    aggregators.processes[0].send_signal(signal.SIGCONT)
    await until(lambda: is_(applied(redis), 1), "the totals are there again")
    assert await sent(redis) == 1
