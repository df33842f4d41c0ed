"""`/traffic/nodes` and the coverage among `/metrics`, over a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis.asyncio as aredis

from services.api import coverage_metrics
from services.flows import coverage, keys
from services.flows.coverage import InterfaceCoverage, NodeCoverage, Sums
from services.flows.delta import InterfaceCounters
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shard import NAMES, SECOND, Shard, pod, report
from tests.support.wait import until

WAYS = ("transmit", "receive")
GAUGES = {"cpu_seconds_total": 1.5, "resident_memory_max_bytes": 70e6, "discovery_delay_max_seconds": 0.01}
WEB = InterfaceCoverage(
    interface="veth1",
    index=3,
    source="ebpf",
    boot="boot-node-a",
    attachment=1,
    row=1,
    since_us=1_700_000_000 * SECOND,
    reported_us=1_700_000_010 * SECOND,
    counters=InterfaceCounters(9000, 90, 500, 5),
    counted=InterfaceCounters(1000, 10, 400, 4),
    captured=InterfaceCounters(1000, 10, 300, 3),
    compared=InterfaceCounters(1000, 10, 300, 3),
    attach=InterfaceCounters(0, 0, 60, 1),
    folded=InterfaceCounters(50, 1, 0, 0),
    gap=InterfaceCounters(7, 1, 0, 0),
    sees_tx=True,
    sees_rx=True,
)
ENDED = replace(WEB, interface="veth0", attachment=2, row=9, detached_us=1_700_000_005 * SECOND)
BLIND = replace(WEB, interface="veth2", attachment=3, row=2, counters=None, counted=InterfaceCounters(0, 0, 0, 0))


@pytest.fixture
async def api(redis_server: RedisServer, redis: aredis.Redis) -> AsyncIterator[Served]:
    """A node with three interfaces, of which one ended, and a node of which nothing is known."""
    shard = Shard(redis)
    reports = (report(gauges=GAUGES, loss={"kernel-drop": 2}), report("node-b", source="pcap"))
    await shard.commit(who={1: pod("web"), 2: pod("db")}, nodes=reports)
    past = Sums(counted=InterfaceCounters(100, 1, 0, 0), captured=InterfaceCounters(100, 1, 0, 0))
    known = NodeCoverage("node-a", SECOND, (ENDED, BLIND, WEB), past, {"kernel-drop": 2})
    await store(redis, known)
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def store(redis: aredis.Redis, known: NodeCoverage) -> None:
    """Leave a node's coverage in the store."""
    await redis.hset(NAMES.totals, f"{keys.COVERAGE}{known.node}", coverage.encode(known))


async def test_each_interface_with_what_was_counted_and_what_was_seen(api: Served) -> None:
    node = (await api.get("/traffic/nodes"))["node-a"]
    web, blind, ended = node["interfaces"]
    assert [one["interface"] for one in node["interfaces"]] == ["veth1", "veth2", "veth0"]
    assert (web["namespace"], web["pod"], web["attached"], web["sides"]) == ("shop", "web", True, "both")
    assert web["transmit"]["coveragePercent"] == 100.0
    assert web["receive"] == {
        "coveragePercent": 75.0,
        "countedBytes": 400,
        "countedPackets": 4,
        "capturedBytes": 300,
        "capturedPackets": 3,
        "uncoveredBytes": 100,
        "uncoveredPackets": 1,
        "attachBytes": 60,
        "attachPackets": 1,
        "unseenBytes": 0,
        "unseenPackets": 0,
        "foldedBytes": 0,
        "foldedPackets": 0,
        "agentGapBytes": 0,
        "agentGapPackets": 0,
        "seen": True,
    }
    assert web["transmit"]["foldedBytes"] == 50
    assert web["transmit"]["agentGapBytes"] == 7
    assert web["since"] == "2023-11-14T22:13:20Z"
    assert (ended["attached"], ended["ended"], ended["pod"]) == (False, "2023-11-14T22:13:25Z", None)
    # Where the interface's own counters are not known, nothing is said of what is missing.
    assert blind["transmit"]["countedBytes"] is None
    assert blind["transmit"]["coveragePercent"] is None
    assert blind["transmit"]["capturedBytes"] == 1000


async def test_interfaces_that_went_while_there_was_no_agent_are_lost(api: Served, redis: aredis.Redis) -> None:
    before = replace(WEB, interface="veth7", boot="an earlier one", attachment=7)
    await store(redis, NodeCoverage("node-a", SECOND, (WEB, replace(ENDED, boot="an earlier one"), before)))
    await Shard(redis, epoch=8).commit(who={1: pod("web")}, nodes=(report(),))
    await store(redis, NodeCoverage("node-a", SECOND, (WEB, replace(ENDED, boot="an earlier one"), before)))

    async def is_told() -> bool:
        return bool((await api.get("/traffic/nodes"))["node-a"]["lostInterfaces"] == 1)

    await until(is_told, "one interface is lost")
    node = (await api.get("/traffic/nodes"))["node-a"]
    assert {one["interface"]: one["lost"] for one in node["interfaces"]} == {
        "veth1": False,
        "veth0": False,
        "veth7": True,
    }
    assert 'podloxx_node_lost_interfaces{node="node-a"} 1\n' in (await api.ask("/metrics")).body.decode()


async def test_each_node_with_its_agent(api: Served) -> None:
    nodes = await api.get("/traffic/nodes")
    first, second = nodes["node-a"], nodes["node-b"]
    assert (first["boot"], first["source"], first["attachments"]) == ("boot-node-a", "socket", 1)
    assert (first["cpuSeconds"], first["memoryMaxBytes"], first["discoveryDelayMaxSeconds"]) == (1.5, 70e6, 0.01)
    assert first["lostPackets"] == {"kernel-drop": 2}
    assert first["lagSeconds"] > 0
    assert first["transmit"]["countedBytes"] == 100 + 1000 + 1000
    assert first["receive"]["uncoveredPackets"] == 2
    # One packet of each of the two passed early, and two were lost.
    assert first["unexplainedPackets"] == 0
    assert second["lagSeconds"] is None, "a file's windows lie at any time"
    assert (second["interfaces"], second["since"], second["lostPackets"]) == ([], None, None)
    assert [second[way] for way in WAYS] == [None, None]


async def test_the_same_as_metrics(api: Served) -> None:
    lines = (await api.ask("/metrics")).body.decode().splitlines()
    of_web = 'node="node-a",namespace="shop",pod="web",interface="veth1"'
    for line in (
        f'podloxx_coverage_ratio{{{of_web},direction="receive"}} 0.75',
        f'podloxx_interface_bytes_total{{{of_web},direction="receive"}} 400',
        f'podloxx_interface_captured_bytes_total{{{of_web},direction="receive"}} 300',
        f'podloxx_interface_direction_seen{{{of_web},direction="transmit"}} 1',
        'podloxx_node_interface_bytes_total{node="node-a",direction="transmit"} 2100',
        'podloxx_node_agent_gap_bytes_total{node="node-a",direction="transmit"} 21',
        'podloxx_node_uncovered_packets{node="node-a",reason="attach",direction="receive"} 2',
        'podloxx_node_uncovered_packets{node="node-a",reason="unexplained",direction=""} 0',
        "podloxx_coverage_interfaces_left_out 0",
    ):
        assert line in lines, [other for other in lines if other.startswith(line.split("{")[0])]
    assert not any('interface="veth0"' in line for line in lines), "it ended"


async def test_metrics_of_interfaces_are_bounded(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage_metrics, "MOST_INTERFACES", 0)
    body = (await api.ask("/metrics")).body.decode()
    assert "podloxx_coverage_interfaces_left_out 1\n" in body
    assert "podloxx_interface_bytes_total{" not in body
    assert "podloxx_node_interface_bytes_total{" in body


async def test_what_cannot_be_read_is_a_problem_and_no_zero(api: Served, redis: aredis.Redis) -> None:
    await redis.hset(NAMES.totals, f"{keys.COVERAGE}node-a", b"nonsense")
    (await api.ask("/traffic/nodes")).assert_problem(503, "the coverage of a node in Redis cannot be read")
    # Everything else can still be scraped.
    body = (await api.ask("/metrics")).body.decode()
    assert "podloxx_pod" in body
    assert "podloxx_coverage_ratio{" not in body


async def test_many_who_ask_at_once_get_the_same(api: Served) -> None:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(api.get("/traffic/nodes")) for _ in range(20)]
    first = asked[0].result()["node-a"]["interfaces"]
    assert all(one.result()["node-a"]["interfaces"] == first for one in asked)
