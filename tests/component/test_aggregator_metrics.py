"""The aggregator's own metrics, read of its process."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.runtime.process_metrics import process_metrics
from tests.support.agents import ScriptedAgent
from tests.support.aggregators import Aggregators, applied, batch_of
from tests.support.redis_server import RedisServer
from tests.support.served import free_port
from tests.support.wait import until


async def read(port: int) -> dict[str, float]:
    """Samples without labels, by name; none while nothing listens."""
    try:
        async with aiohttp.request("GET", f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 200
            families = text_string_to_metric_families(await answer.text())
            return {sample.name: sample.value for one in families for sample in one.samples if not sample.labels}
    except aiohttp.ClientConnectionError:
        return {}


async def has(port: int, name: str, value: float) -> bool:
    return (await read(port)).get(f"podloxx_aggregator_{name}") == value


async def test_it_tells_of_its_work_and_of_its_store(
    redis: Any, redis_server: RedisServer, aggregators: Aggregators
) -> None:
    port, other = free_port(), free_port()
    aggregators.start(f"--metrics-listen=127.0.0.1:{port}")
    await until(lambda: has(port, "owns_shard", 1), "it owns the shard")
    aggregators.start(f"--metrics-listen=:{other}")
    await until(lambda: has(other, "owns_shard", 0), "the other one stands by")
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: applied(redis), "the batch is applied")
    await until(lambda: has(port, "batches_total", 1), "it is told")
    found = await read(port)
    assert (found["podloxx_aggregator_agents"], found["podloxx_aggregator_pod_rows"]) == (1, 1)
    assert found["podloxx_aggregator_commit_duration_seconds_count"] >= 2
    assert found["podloxx_aggregator_commit_duration_seconds_sum"] > 0
    assert found["podloxx_aggregator_store_up"] == 1
    redis_server.stop()
    await until(lambda: has(port, "store_up", 0), "it tells that Redis is gone")
    assert (await read(port))["podloxx_aggregator_store_failures_total"] >= 1


@pytest.mark.parametrize("where", ["9337", "1.2.3.4:70000", "a:b:1", "192.0.2.1:9337"])
async def test_where_it_cannot_listen_it_says_so(redis: Any, aggregators: Aggregators, where: str) -> None:
    assert await redis.ping()
    process = aggregators.start(f"--metrics-listen={where}")
    assert await asyncio.to_thread(process.wait) == 2
    assert process.stderr is not None
    said = process.stderr.read()
    assert re.search(rf"--metrics-listen '?{re.escape(where)}", said.decode().splitlines()[-1])


def test_without_proc_a_process_tells_what_it_can(tmp_path: Path) -> None:
    assert [one.name for one in process_metrics("api", tmp_path)] == ["podloxx_build_info", "process_cpu_seconds_total"]


async def test_no_name_of_a_pod_is_behind_its_port_and_nothing_else(redis: Any, aggregators: Aggregators) -> None:
    port = free_port()
    aggregators.start(f"--metrics-listen=127.0.0.1:{port}")
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, 900))
    await until(lambda: has(port, "pod_rows", 1), "there is a pod")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        async with client.get("/metrics") as answer:
            body = await answer.text()
            assert answer.headers["Server"] == "podloxx"
        labels = re.findall(r"\{(.*)\}", body)
        assert len(labels) == 1, "only the version has labels"
        assert not re.search("web|shop|node-a|10\\.1|1\\.1\\.1", body)
        for method, path in (("GET", "/"), ("GET", "/traffic/total"), ("POST", "/metrics"), ("DELETE", "/metrics")):
            async with client.request(method, path) as refused:
                assert refused.status in {404, 405}, path
