"""An aggregator of a large cluster: 10,000 pods in a real API server, 200 changes and 1,000 agents a second."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
import redis.asyncio as aredis

from services.flows.scope import Rule
from tests.bench.report import Report
from tests.bench.test_memory import Process
from tests.support.agents import ScriptedAgent, attachment, fields, flow, window
from tests.support.aggregators import applied
from tests.support.api_server import ApiServer
from tests.support.cluster_aggregator import ClusterAggregator, now_s, peers
from tests.support.many_nodes import ManyNodes
from tests.support.many_objects import Fleet, fleet
from tests.support.programs import WITHOUT, built
from tests.support.redis_server import RedisServer
from tests.support.wait import until

_CLUSTER: Final = ManyNodes(nodes=1000, pods=10, flows=10, friends=5)
_SERVICES: Final = 2000
_CHANGES: Final = 200
"""A second."""
_SECONDS: Final = 15
_WARM_UP: Final = 3


@pytest.fixture(scope="module")
def api_server() -> Iterator[ApiServer]:
    """A running API server."""
    programs = built("apiserver")
    if programs is None:
        pytest.skip(WITHOUT["apiserver"])
    with tempfile.TemporaryDirectory(prefix="plx") as name:
        server = ApiServer(programs, Path(name))
        try:
            server.start()
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """A running store."""
    with tempfile.TemporaryDirectory(prefix="plx") as name:
        server = RedisServer(Path(name))
        server.start()
        yield server
        server.stop()


@dataclass(slots=True)
class Asker:
    """One pod whose agent tells that it asks others, each at a port of its own."""

    redis: Any
    agent: ScriptedAgent = field(default_factory=lambda: ScriptedAgent("node-0", "boot-asker"))
    me: str = _CLUSTER.address(0, 0)

    async def ask(self, *asked: tuple[str, int]) -> None:
        """Send one window with these addresses and ports."""
        flows = [flow(1, address, tx=100, port=port, local=self.me) for address, port in asked]
        second = await now_s(self.redis)
        await self.agent.send(self.redis, self.agent.batch(window([attachment(1, self.me)], *flows, second=second)))

    async def told(self) -> dict[int, str]:
        """The rule of each verdict, by port."""
        return {one.port: one.rule for one in await peers(self.redis, "pod-0-0")}


async def is_told(asker: Asker, *ports: int) -> bool:
    """Whether there are verdicts on what was asked at these ports."""
    told = await asker.told()
    return told.keys() >= set(ports)


@asynccontextmanager
async def changing(cluster: Fleet) -> AsyncIterator[list[float]]:
    """Change 200 pods a second meanwhile; the moments of the changes."""
    done: list[float] = []

    async def one(number: int) -> None:
        await cluster.change(number)
        done.append(time.monotonic())

    async def change() -> None:
        started, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(one(number))
                number += 1
                await asyncio.sleep(max(0.0, started + number / _CHANGES - time.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(change())
        yield done
        working.cancel()


async def lags(cluster: Fleet, asker: Asker) -> list[float]:
    """Seconds from when new pods have their addresses to the verdicts on who is asked there at the same moment."""
    found = []
    for at in range(_SECONDS):
        # Among its node's other pods, as any new pod is.
        address, port = _CLUSTER.address(at, 200), 20_000 + at
        await cluster.add_pod(f"new-{at}", address, at)
        had = time.monotonic()
        await asker.ask((address, port))
        await until(lambda port=port: is_told(asker, port), f"the verdict at port {port}", 20)
        found.append(time.monotonic() - had)
        assert (await asker.told())[port].startswith(Rule.POD.value), address
    return found


async def agents(redis: Any, process: Process) -> tuple[float, list[float]]:
    """Processor seconds that a second of 1,000 agents costs, and the seconds until each one is applied.

    The next second is sent when the one before is applied, so that what cannot be kept up with does not pile up.
    """
    cluster = replace(_CLUSTER, began=await now_s(redis))
    delays = []
    before = 0
    for at in range(_SECONDS):
        if at == _WARM_UP:
            before = process.own_ns()
        started = time.monotonic()
        last = None
        async with redis.pipeline(transaction=False) as pipe:
            for batch in cluster.second(at):
                pipe.xadd("podloxx:{0}:flows", fields(batch))
                last = batch
            await pipe.execute()
        assert last is not None
        sent = time.monotonic()
        await until(lambda last=last: is_applied(redis, last.boot, last.seq), f"second {at} is applied", 60)
        delays.append(time.monotonic() - sent)
        await asyncio.sleep(max(0.0, started + 1 - time.monotonic()))
    return (process.own_ns() - before) / 1e9 / (_SECONDS - _WARM_UP), delays[_WARM_UP:]


async def is_applied(redis: Any, boot: str, seq: int) -> bool:
    return await applied(redis, boot) == seq


async def measured(api_server: ApiServer, store: RedisServer, report: Report) -> None:
    """All of it, one after the other."""
    async with (
        fleet(api_server.url, api_server.admin.tls, _CLUSTER, _SERVICES) as cluster,
        aredis.Redis.from_url(store.url) as redis,
    ):
        await cluster.make()
        asker = Asker(redis)
        asked = [(_CLUSTER.address(node, 1), 1000 + node) for node in range(100)]
        await asker.ask(*asked)
        watches = await cluster.watches()
        begun = time.monotonic()
        with ClusterAggregator(store, api_server.kubeconfig()).running() as pid:
            process = Process(pid)
            await until(lambda: is_told(asker, *(port for _, port in asked)), "the first verdicts", 60)
            first = time.monotonic() - begun
            more = {kind: count - watches.get(kind, 0) for kind, count in (await cluster.watches()).items()}
            listed_mb = process.resident_mb()
            own, started = process.own_ns(), time.monotonic()
            async with changing(cluster) as changes:
                behind = await lags(cluster, asker)
            busy = (process.own_ns() - own) / 1e9 / (time.monotonic() - started)
            rate = len(changes) / (changes[-1] - changes[0])
            cost, delays = await agents(redis, process)
            last_mb = process.resident_mb()
    watched = {kind: count for kind, count in more.items() if count}
    lines = [
        ("seconds from the start to the first verdicts", f"{first:.1f}"),
        ("watches", ", ".join(f"{kind} {count}" for kind, count in sorted(watched.items()))),
        ("resident MB after the lists", f"{listed_mb:.0f}"),
        ("changes a second", f"{rate:.0f}"),
        ("of one processor meanwhile", f"{100 * busy:.0f} %"),
        ("seconds from a new pod to its verdict, median", f"{statistics.median(behind):.2f}"),
        ("the same, maximum", f"{max(behind):.2f}"),
        ("processor seconds for a second of 1,000 agents, 100 rows each", f"{cost:.1f}"),
        ("seconds until they are applied, median", f"{statistics.median(delays):.2f}"),
        ("the same, maximum", f"{max(delays):.2f}"),
        ("resident MB at the end", f"{last_mb:.0f}"),
    ]
    report.table("One aggregator, 10,000 pods on 1,000 nodes, 2,000 Services, a real API server", ("what", ""), lines)
    report.goal("seconds to list 10,000 pods and give the first verdicts", first, at_most=10)
    report.goal("watches per kind", max(watched.values()), at_most=1)
    report.goal("resident MB with 10,000 pods", listed_mb, at_most=250)
    report.goal("resident MB with them and the peers of 1,000 agents", last_mb, at_most=250)
    report.goal("seconds from a change to its verdict, maximum", max(behind), at_most=1)
    report.goal("processors for 1,000 agents at 1 Hz with 100 rows each", cost, at_most=1)
    assert watched.keys() == {"pods", "nodes", "services", "endpointslices", "servicecidrs"}
    assert rate > _CHANGES / 2
    assert max(behind) < 10


@pytest.mark.timeout(900)
def test_a_large_cluster(api_server: ApiServer, store: RedisServer, report: Report) -> None:
    asyncio.run(measured(api_server, store, report))
