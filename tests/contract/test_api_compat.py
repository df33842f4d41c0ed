"""The original's JSON: its names, its types and what they mean, for its dashboard and everybody's scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import pytest
import redis.asyncio as aredis

from services.api import views
from services.api.mirror import Mirror
from services.flows.scope import Scope
from services.flows.traffic import Row, Session, Tick
from tests.support.clocks import HandClock
from tests.support.redis_server import RedisServer
from tests.support.served import serving
from tests.support.shard import SECOND, Shard, change, counts, peer, pod, report, talked

START = 1_700_000_000 * SECOND
COUNTERS = {
    "packetsSum": int,
    "transmitBytes": int,
    "receivedBytes": int,
    "unknownBytes": int,
    "localTransmitBytes": int,
    "localReceivedBytes": int,
}
OVERVIEW = COUNTERS | {
    "totalNodes": int,
    "totalNamespaces": int,
    "totalPods": int,
    "uptime": str,
    "lastUpdate": int,
    "externalBandwidthPerSec": str,
    "internalBandwidthPerSec": str,
    "packetsPerSec": int,
}
POD = COUNTERS | {
    "fileName": str,
    "ip": str,
    "podName": str,
    "namespace": str,
    "node": str,
    "containerId": str,
    "transmitStartBytes": int,
    "receivedStartBytes": int,
    "startTime": str,
    "connections": dict,
}
CONNECTION = {"ip1": str, "ip2": str, "packetSum": int}
Known = tuple[Mirror, dict[int, tuple[Any, ...]]]


@pytest.fixture
def known() -> Known:
    """Two pods whose every byte is known, and their peers."""
    web = pod(
        "web",
        ip="10.1.0.2",
        ips=("10.1.0.2",),
        interface="veth1",
        container_id="c0ffee",
        started_us=START - 60 * SECOND,
        transmit_start_bytes=11,
        received_start_bytes=12,
        zone="eu-1a",
        region="eu-1",
        owner_kind="Deployment",
        owner_name="web",
        labels=(("app", "web"),),
    )
    mirror = Mirror.of(HandClock(), Session(7, 1, START), [Row(1, web, {}), Row(2, pod("db", "data", ""), {})], START)
    added = {
        Scope.SAME_NODE: counts(tx_bytes=1000, rx_bytes=2000, tx_packets=1, rx_packets=2),
        Scope.CROSS_ZONE: counts(tx_bytes=100, rx_bytes=200, tx_packets=1, rx_packets=1),
        Scope.PRIVATE: counts(tx_bytes=10, rx_bytes=20, tx_packets=1),
        Scope.INTERNET: counts(tx_bytes=4_000_000, rx_bytes=600_000, tx_packets=5, tx_other_bytes=1_000),
        Scope.OTHER: counts(tx_bytes=7, tx_packets=1),
        Scope.UNKNOWN: counts(tx_bytes=42, rx_bytes=46, tx_other_bytes=42, rx_other_bytes=46, tx_packets=1),
    }
    ingress = talked(Scope.SERVICE, tx_bytes=500, rx_bytes=300, tx_ingress_bytes=500, rx_ingress_bytes=300)
    mirror.apply(Tick(7, 2, START + SECOND, (change(1, added | ingress),), nodes=(report(),)))
    return mirror, {1: (peer("10.1.0.3", tx_packets=1, rx_packets=2),)}


def assert_types(answer: dict[str, Any], wanted: Mapping[str, type]) -> None:
    """Every field is there, and of its type: a bool is no number, null is nothing."""
    assert {name: type(answer.get(name)) for name in wanted} == wanted


def without_extensions(answer: dict[str, Any], wanted: Mapping[str, type]) -> dict[str, Any]:
    """The original's fields alone."""
    return {name: answer[name] for name in wanted}


def test_overview(known: Known) -> None:
    answer = orjson.loads(orjson.dumps(views.overview(known[0])))
    assert_types(answer, OVERVIEW)
    assert without_extensions(answer, OVERVIEW) == {
        "packetsSum": 13,
        "transmitBytes": 4_000_617,
        "receivedBytes": 602_520,
        "unknownBytes": 1_088,
        "localTransmitBytes": 1_107,
        "localReceivedBytes": 2_200,
        "totalNodes": 1,
        "totalNamespaces": 2,
        "totalPods": 2,
        "uptime": "2023-11-14T22:13:20Z",
        "lastUpdate": 1_700_000_001,
        "externalBandwidthPerSec": "4.6 MB",
        "internalBandwidthPerSec": "3.3 kB",
        "packetsPerSec": 13,
    }


def test_total(known: Known) -> None:
    answer = orjson.loads(orjson.dumps(views.total(*known)))
    assert set(answer) == {"shop/web", "data/db"}
    for entry in answer.values():
        assert_types(entry, POD)
        for connection in entry["connections"].values():
            assert {name: type(value) for name, value in connection.items()} == CONNECTION
    web = without_extensions(answer["shop/web"], POD)
    [(number, connection)] = web.pop("connections").items()
    assert re.fullmatch(r"\d+", number)
    assert connection == {"ip1": "10.1.0.2", "ip2": "10.1.0.3", "packetSum": 3}
    assert web == {
        "fileName": "veth1",
        "ip": "10.1.0.2",
        "podName": "web",
        "namespace": "shop",
        "node": "node-a",
        "containerId": "c0ffee",
        "packetsSum": 13,
        "transmitBytes": 4_000_617,
        "receivedBytes": 602_520,
        "unknownBytes": 1_088,
        "localTransmitBytes": 1_107,
        "localReceivedBytes": 2_200,
        "transmitStartBytes": 11,
        "receivedStartBytes": 12,
        "startTime": "2023-11-14T22:12:20Z",
    }


def test_total_of_a_pod_of_which_little_is_known(known: Known) -> None:
    entry = views.total(*known)["data/db"]
    assert (entry["node"], entry["startTime"], entry["connections"]) == ("", "", {})


def test_flow(known: Known) -> None:
    answer = orjson.loads(orjson.dumps(views.flow(known[0], known[0].since(7, 1))))
    assert answer == {
        "shop/web": {
            "packetsSum": 13,
            "transmitBytes": 4_000_617,
            "receivedBytes": 602_520,
            "unknownBytes": 1_088,
            "localTransmitBytes": 1_107,
            "localReceivedBytes": 2_200,
        }
    }
    assert_types(answer["shop/web"], COUNTERS)


def test_all_bytes_of_the_interface_are_in_the_three_sums(known: Known) -> None:
    entry = views.total(*known)["shop/web"]
    scopes = entry["scopes"].values()
    everything = sum(one["transmitBytes"] + one["receivedBytes"] for one in scopes)
    assert entry["transmitBytes"] + entry["receivedBytes"] + entry["unknownBytes"] == everything == 4_604_225


def test_finer_scopes_stand_beside_them(known: Known) -> None:
    entry = views.total(*known)["shop/web"]
    assert entry["scopes"]["cross-zone"] == {"transmitBytes": 100, "receivedBytes": 200, "packets": 2}
    assert set(entry["scopes"]) == {"same-node", "cross-zone", "private", "internet", "other", "unknown", "service"}


async def test_the_original_dashboard_is_answered(redis_server: RedisServer, redis: aredis.Redis) -> None:
    await Shard(redis).commit(change(1, talked(tx_bytes=1)), who={1: pod("web", started_us=START)})
    async with serving(redis_server) as api:
        await api.ready()
        for path in ("/traffic/overview", "/traffic/total", "/traffic/flow"):
            answer = await api.ask(path, Content_Type="application/json")
            assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        total = await api.get("/traffic/total")
        assert datetime.fromisoformat(total["shop/web"]["startTime"]).timestamp() == START / 1e6
        uptime = (await api.get("/traffic/overview"))["uptime"]
        assert datetime.fromisoformat(uptime).utcoffset() is not None
