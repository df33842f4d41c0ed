"""`/traffic/external`, `/traffic/map` and `/traffic/timeline` over a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as aredis

from services.api import timeline
from services.flows import history
from services.flows.history import Passed
from services.flows.scope import Scope
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shard import NAMES, Shard, change, peer, pod, talked

WEB = pod("web-1", owner_name="web", zone="z1")
OTHER = pod("web-2", node="node-b", owner_name="web", zone="z2")
DB = pod("db", "data", "node-b", zone="z2")
BLIND = pod("blind", coverage="ingress-only", zone="z1")


@pytest.fixture
async def shard(redis: aredis.Redis) -> Shard:
    """Four pods that talk with each other and with others."""
    shard = Shard(redis)
    numbers = {1: WEB, 2: OTHER, 3: DB, 4: BLIND}
    net: dict[str, Any] = {"rule": "public"}
    await shard.peers(
        1,
        peer(
            "8.8.8.8", Scope.INTERNET, port=53, protocol=17, tx_bytes=10, rx_bytes=90, tx_packets=1, rx_packets=2, **net
        ),
        peer("192.168.1.5", Scope.PRIVATE, rule="user-cidr", name="office", what="cidr", tx_bytes=5, rx_bytes=5),
        peer(
            "10.1.0.9",
            Scope.CROSS_ZONE,
            name="db",
            namespace="data",
            what="pod",
            tx_bytes=100,
            tx_packets=3,
            rx_bytes=7,
        ),
        peer("10.1.0.4", name="blind", namespace="shop", what="pod", tx_bytes=20, rx_bytes=2, rx_packets=1),
        peer("10.96.0.1", Scope.SERVICE, name="dns", namespace="kube-system", what="service", tx_bytes=1),
    )
    await shard.peers(2, peer("8.8.8.8", Scope.INTERNET, port=53, protocol=17, tx_bytes=1, rx_bytes=2, **net))
    await shard.peers(
        3, peer("10.1.0.2", Scope.CROSS_ZONE, name="web-1", namespace="shop", what="pod", tx_bytes=7, rx_bytes=100)
    )
    await shard.commit(*[change(number, talked(tx_bytes=1)) for number in numbers], who=numbers)
    return shard


@pytest.fixture
async def api(redis_server: RedisServer, shard: Shard) -> AsyncIterator[Served]:
    del shard
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def test_destinations_outside_are_added_up(api: Served) -> None:
    answer = await api.get("/traffic/external")
    first, second = answer["destinations"]
    assert (first["address"], first["protocol"], first["port"], first["scope"]) == ("8.8.8.8", "udp", 53, "internet")
    assert (first["transmitBytes"], first["receivedBytes"]) == (11, 92)
    assert (first["transmitPackets"], first["receivedPackets"]) == (1, 2)
    assert (first["pods"], first["podCount"]) == (["shop/web-1", "shop/web-2"], 2)
    assert first["firstSeen"] == "2023-11-14T22:13:20Z"
    assert (second["name"], second["rule"], second["podCount"]) == ("office", "user-cidr", 1)
    assert answer["more"] == {"destinations": 0, "transmitBytes": 0, "receivedBytes": 0}
    one = await api.get("/traffic/external?limit=1")
    assert [entry["address"] for entry in one["destinations"]] == ["8.8.8.8"]
    assert one["more"] == {"destinations": 1, "transmitBytes": 5, "receivedBytes": 5}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (
            "namespace",
            {
                (":internet", "shop"): 92,
                ("shop", "data"): 100,
                ("shop", "shop"): 20 + 2,
                ("shop", ":internet"): 11,
                ("data", "shop"): 7,
                ("shop", ":private"): 5,
                (":private", "shop"): 5,
                ("shop", ":service"): 1,
            },
        ),
        (
            "zone",
            {("z1", "z2"): 100, ("z2", "z1"): 7, ("z1", "z1"): 22, (":internet", "z1"): 90, (":internet", "z2"): 2},
        ),
        ("workload", {("shop/web", "data/db"): 100, ("data/db", "shop/web"): 7, ("shop/web", ":internet"): 11}),
        ("node", {("node-a", "node-b"): 100, ("node-b", "node-a"): 7}),
        ("pod", {("shop/web-1", "data/db"): 100, ("shop/blind", "shop/web-1"): 2}),
    ],
)
async def test_the_map_has_each_byte_once(api: Served, by: str, expected: dict[tuple[str, str], int]) -> None:
    answer = await api.get(f"/traffic/map?by={by}")
    edges = {(edge["from"], edge["to"]): edge["bytes"] for edge in answer["edges"]}
    assert expected.items() <= edges.items()
    assert answer["by"] == by
    assert [edge["bytes"] for edge in answer["edges"]] == sorted(edges.values(), reverse=True)
    # What db receives from web-1 is what web-1 sends; only blind's sending is seen at the other end alone.
    assert sum(edges.values()) == 11 + 92 + 10 + 100 + 7 + 22 + 1


async def left(redis: aredis.Redis, ago: int, *rows: int) -> int:
    """Leave a bucket in the store that ended so many buckets ago; when it began."""
    seconds, _ = await redis.time()
    number = int(seconds) // 5 - ago
    bucket = {row: {Scope.INTERNET: Passed(10 * row, row), Scope.SAME_NODE: Passed(1, 0)} for row in rows}
    await redis.hset(NAMES.history, str(number), history.encode(bucket))
    return number * 5


async def test_the_timeline_of_the_last_minutes(api: Served, redis: aredis.Redis) -> None:
    start = await left(redis, 10, 1, 3)
    answer = await api.get("/traffic/timeline")
    assert (answer["by"], answer["bucketSeconds"], len(answer["start"])) == ("scope", 5, 180)
    at = answer["start"].index(start)
    assert answer["series"]["internet"]["transmitBytes"][at] == 40
    assert answer["series"]["internet"]["receivedBytes"][at] == 4
    assert sum(answer["series"]["same-node"]["transmitBytes"]) == 2
    by = {}
    for name in ("column", "namespace", "workload", "node", "zone", "pod"):
        by[name] = (await api.get(f"/traffic/timeline?by={name}&from={start}&to={start}"))["series"]
        assert all(len(series["transmitBytes"]) == 1 for series in by[name].values())
    assert set(by["column"]) == {"internet", "local"}
    assert {name: series["transmitBytes"] for name, series in by["namespace"].items()} == {"shop": [11], "data": [31]}
    assert set(by["node"]) == {"node-a", "node-b"}
    assert set(by["pod"]) == {"shop/web-1", "data/db"}
    assert (await api.get(f"/traffic/timeline?to={start - 5000}"))["start"] == []


async def test_what_passed_between_two_times(api: Served, redis: aredis.Redis) -> None:
    start = await left(redis, 10, 1, 3)
    await left(redis, 9, 1)
    await left(redis, 8, 2)
    whole = await api.get(f"/traffic/range?from={start}&to={start + 10}")
    assert (whole["seconds"], set(whole["pods"])) == (10, {"shop/web-1", "data/db"})
    assert whole["pods"]["shop/web-1"] == {
        "transmitBytes": 22,
        "receivedBytes": 2,
        "columns": {
            "internet": {"transmitBytes": 20, "receivedBytes": 2},
            "local": {"transmitBytes": 2, "receivedBytes": 0},
        },
    }
    # Steps are whole ones, and the end is not one of them.
    first = await api.get(f"/traffic/range?from={start + 2}&to={start + 4}")
    assert (first["seconds"], first["pods"]["shop/web-1"]["transmitBytes"]) == (5, 11)
    everything = await api.get("/traffic/range")
    assert 895 <= everything["seconds"] <= 900
    assert len(everything["pods"]) == 3
    nothing = await api.get(f"/traffic/range?to={start - 5000}")
    assert (nothing["seconds"], nothing["pods"]) == (0, {})


async def test_over_which_ports_pods_talk(api: Served) -> None:
    assert (await api.get("/traffic/ports"))["pods"] == {
        "shop/web-1": [53, 80],
        "shop/web-2": [53],
        "data/db": [80],
    }


async def test_small_series_are_added_up(api: Served, redis: aredis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_SERIES", 1)
    start = await left(redis, 2, 1, 2, 3, 77)
    series = (await api.get(f"/traffic/timeline?by=pod&from={start}&to={start}"))["series"]
    # A row that is not known (any more) is nobody's.
    assert {name: one["transmitBytes"] for name, one in series.items()} == {timeline.OTHERS: [771 + 11 + 21 + 31]}


async def test_what_cannot_be_read_is_a_problem(api: Served, redis: aredis.Redis) -> None:
    start = await left(redis, 3, 1)
    await redis.hset(NAMES.history, str(start // 5), b"nonsense")
    (await api.ask("/traffic/timeline")).assert_problem(503, "the history in Redis cannot be read")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/traffic/external?limit=0", "limit='0' is not a number from 1 to 10000"),
        ("/traffic/external?limit=many", "limit='many'"),
        ("/traffic/map?by=colour", "by='colour' is none of namespace, workload, node, zone, pod"),
        ("/traffic/timeline?by=rack", "by='rack' is none of scope, column, namespace, workload, node, zone, pod"),
        ("/traffic/timeline?from=yesterday", "from='yesterday' is not a number"),
        ("/traffic/timeline?to=nan", "to='nan'"),
        ("/traffic/range?from=now", "from='now' is not a number"),
    ],
)
async def test_wrong_questions_are_refused(api: Served, path: str, words: str) -> None:
    (await api.ask(path)).assert_problem(400, words)
