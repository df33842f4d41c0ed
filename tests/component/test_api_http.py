"""REST over a real Redis that is fed tick by tick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as aredis

from services.api.routes import Routes
from services.flows.scope import Scope
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shapes import Shapes
from tests.support.shard import Shard, change, peer, pod, report, talked
from tests.support.wait import until

WEB, DB = pod("web", ip="10.1.0.2", ips=("10.1.0.2",)), pod("db", "data", "node-b")


@pytest.fixture
async def shard(redis: aredis.Redis) -> Shard:
    """Two pods, of which one has talked."""
    shard = Shard(redis)
    await shard.commit(change(1, talked(tx_bytes=1000, tx_packets=2)), who={1: WEB, 2: DB}, nodes=("node-a", "node-b"))
    return shard


@pytest.fixture
async def api(redis_server: RedisServer, shard: Shard) -> AsyncIterator[Served]:
    """The API, ready."""
    del shard
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def test_totals_are_there_and_follow(api: Served, shard: Shard) -> None:
    assert (await api.get("/traffic/total"))["shop/web"]["transmitBytes"] == 1000
    tick = await shard.commit(change(1, talked(Scope.INTERNET, tx_bytes=500)), change(2, talked(rx_bytes=7)))
    await api.at(tick.id)
    total = await api.get("/traffic/total")
    assert (total["shop/web"]["transmitBytes"], total["data/db"]["receivedBytes"]) == (1500, 7)
    assert (await api.get("/traffic/overview"))["transmitBytes"] == 1500


async def test_flow_since_a_tick_is_the_same_for_everybody(api: Served, shard: Shard) -> None:
    tick = await shard.commit(change(1, talked(tx_bytes=500)))
    await api.at(tick.id)
    for _ in range(2):
        answer = await api.ask("/traffic/flow?since=7-1")
        assert answer.json == {
            "shop/web": {
                "packetsSum": 0,
                "transmitBytes": 500,
                "receivedBytes": 0,
                "unknownBytes": 0,
                "localTransmitBytes": 500,
                "localReceivedBytes": 0,
            }
        }
        assert answer.headers["X-Podloxx-Tick"] == "7-2"
    assert await api.get("/traffic/flow?since=7-2") == {}


async def test_totals_are_what_was_there_and_flows_since(api: Served, shard: Shard) -> None:
    before = await api.get("/traffic/total")
    for size in (10, 20, 30):
        tick = await shard.commit(change(1, talked(tx_bytes=size)), change(2, talked(rx_bytes=size)))
    await api.at(tick.id)
    added = await api.get("/traffic/flow?since=7-1")
    after = await api.get("/traffic/total")
    for key, counters in added.items():
        for name, value in counters.items():
            assert after[key][name] == before[key][name] + value


async def test_flow_of_a_window(api: Served, shard: Shard) -> None:
    """Of 1000 bytes a minute ago, and 100 now."""
    now = await shard.now_us()
    new = await shard.commit(change(1, talked(tx_bytes=100)), at_us=now + 60_000_000)
    await api.at(new.id)
    assert (await api.get("/traffic/flow"))["shop/web"]["transmitBytes"] == 100
    assert (await api.get("/traffic/flow?window=100"))["shop/web"]["transmitBytes"] == 1100


@pytest.mark.parametrize("window", ["0", "-1", "121", "nan", "inf", "x", ""])
async def test_a_bad_window_is_refused(api: Served, window: str) -> None:
    (await api.ask(f"/traffic/flow?window={window}")).assert_problem(400, "is not a number of seconds up to 120")


@pytest.mark.parametrize("since", ["7", "x-1", "7-", "-1", "7-1-1", "\u0667-1", "7-1%00"])
async def test_a_bad_cursor_is_refused(api: Served, since: str) -> None:
    (await api.ask(f"/traffic/flow?since={since}")).assert_problem(400, "is no tick id of the form")


@pytest.mark.parametrize("since", ["8-1", "6-1", "7-2", f"7-{2**70}"])
async def test_a_foreign_cursor_says_how_to_go_on(api: Served, since: str) -> None:
    (await api.ask(f"/traffic/flow?since={since}")).assert_problem(410, "Read /traffic/total and go on from 7-1")


async def test_a_cursor_that_is_too_old_is_gone(redis_server: RedisServer, redis: aredis.Redis) -> None:
    shard = Shard(redis)
    now = await shard.now_us()
    for age_s in (200, 130, 10):
        await shard.commit(change(1, talked(tx_bytes=1)), who={1: WEB}, at_us=now - age_s * 1_000_000)
    async with serving(redis_server) as api:
        await api.ready()
        (await api.ask("/traffic/flow?since=7-0")).assert_problem(410, "kept for 120 s")
        assert (await api.get("/traffic/flow?since=7-1"))["shop/web"]["transmitBytes"] == 2


async def test_peers_of_a_pod(api: Served, shard: Shard) -> None:
    await shard.peers(1, peer("10.1.0.3", tx_bytes=5), peer("10.1.0.4", tx_bytes=9, name="db", namespace="data"))
    await shard.peers(1, peer("", Scope.INTERNET, rule="", protocol=0, port=0, name="other peers", tx_bytes=1))
    answer = await api.get("/traffic/peers?pod=shop/web")
    assert [one["address"] for one in answer["peers"]] == ["10.1.0.4", "10.1.0.3", ""]
    assert answer["peers"][0] == {
        "address": "10.1.0.4",
        "local": "",
        "name": "db",
        "namespace": "data",
        "what": "",
        "protocol": "tcp",
        "port": 80,
        "server": "peer",
        "scope": "same-node",
        "rule": "pod-same-node",
        "via": "",
        "candidates": [],
        "candidateCount": 0,
        "transmitBytes": 9,
        "receivedBytes": 0,
        "transmitPackets": 0,
        "receivedPackets": 0,
        "firstSeen": "2023-11-14T22:13:20Z",
        "lastSeen": "2023-11-14T22:13:21Z",
    }
    assert (answer["peers"][2]["name"], answer["peers"][2]["protocol"]) == ("other peers", "")


async def test_peers_follow_with_the_row(api: Served, shard: Shard) -> None:
    await shard.peers(1, peer("10.1.0.3", tx_packets=5))
    [before] = (await api.get("/traffic/total"))["shop/web"]["connections"].items()
    await shard.peers(1, peer("10.1.0.3", tx_packets=8))
    tick = await shard.commit(change(1, talked(tx_bytes=1)))
    await api.at(tick.id)
    [after] = (await api.get("/traffic/total"))["shop/web"]["connections"].items()
    assert before == (after[0], {"ip1": "10.1.0.2", "ip2": "10.1.0.3", "packetSum": 5})
    assert after[1]["packetSum"] == 8


async def test_peers_are_read_once_until_their_row_changes(api: Served, redis: aredis.Redis) -> None:
    async def commands() -> int:
        stats = await redis.info("commandstats")
        return int(stats.get("cmdstat_hgetall", {}).get("calls", 0))

    await api.get("/traffic/total")
    before = await commands()
    async with asyncio.TaskGroup() as tasks:
        for path in ("/traffic/total", "/traffic/total", "/traffic/peers?pod=shop/web"):
            tasks.create_task(api.get(path))
    assert await commands() == before


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/traffic/peers", 400, "?pod=namespace/name"),
        ("/traffic/peers?pod=", 400, "?pod=namespace/name"),
        ("/traffic/peers?pod=shop/nobody", 404, "no pod 'shop/nobody'"),
        ("/traffic/peers?pod=%ff%0d%0a", 404, "no pod"),
        ("/nowhere", 404, "nothing at '/nowhere'"),
        ("/assets/", 404, "nothing at"),
        ("/assets/..%2f..%2f__init__.py", 404, "nothing at"),
        ("/static/index.html", 404, "nothing at"),
        ("/.stamp", 404, "nothing at"),
        ("/index.html.gz", 404, "nothing at"),
    ],
)
async def test_what_is_not_there(api: Served, path: str, status: int, words: str) -> None:
    (await api.ask(path)).assert_problem(status, words)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(api: Served, method: str) -> None:
    answer = await api.ask("/traffic/total", method)
    answer.assert_problem(405, method)
    assert answer.headers["Allow"] == "GET, HEAD"


async def test_exact(api: Served, shard: Shard) -> None:
    tick = await shard.commit(change(1, talked(tx_bytes=2**62)))
    await api.at(tick.id)
    web = (await api.get("/traffic/total?exact=1"))["shop/web"]
    assert web["transmitBytesExact"] == str(2**62 + 1000)
    assert web["transmitBytes"] == 2**62 + 1000
    assert "transmitBytesExact" not in (await api.get("/traffic/total"))["shop/web"]
    assert (await api.get("/traffic/overview?exact=1"))["clusterBytesExact"] == "0"
    assert (await api.get("/traffic/flow?exact=1"))["shop/web"]["packetsSumExact"] == "2"


async def test_probes(redis_server: RedisServer, redis: aredis.Redis) -> None:
    async with serving(redis_server) as api:
        assert await api.get("/healthz") == {"status": "ok"}

        async def why() -> Any:
            return "no aggregator" in (await api.ask("/readyz")).json["detail"]

        await until(why, "it says that there is no session")
        (await api.ask("/readyz")).assert_problem(503, "no totals yet: no aggregator has begun a session")
        (await api.ask("/traffic/total")).assert_problem(503, "no totals yet")
        metrics = await api.ask("/metrics")
        assert (metrics.status, b"podloxx_api_ready 0\n" in metrics.body) == (200, True)
        await Shard(redis).commit(who={1: WEB})
        await api.ready()
        assert await api.get("/readyz") == {"status": "ok"}


async def test_metrics(api: Served) -> None:
    answer = await api.ask("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    line = (
        'podloxx_pod_bytes_total{namespace="shop",pod="web",node="node-a",scope="same-node",direction="transmit"} 1000'
    )
    assert line in answer.body.decode().splitlines()


async def test_loss_and_coverage_are_shown(api: Served, shard: Shard) -> None:
    tick = await shard.commit(
        who={2: pod("db", "data", "node-b", coverage="egress-only")},
        nodes=(report(loss={"kernel-drop": 3}),),
        loss={"kernel-drop": 3},
        pending_bytes=11,
        overlap_bytes=12,
        cluster=talked(tx_bytes=9),
    )
    await api.at(tick.id)
    overview = await api.get("/traffic/overview")
    assert overview["loss"] == {"kernel-drop": 3}
    assert (overview["pendingBytes"], overview["overlapBytes"], overview["clusterBytes"]) == (11, 12, 9)
    assert overview["coverage"] == {"full": 1, "egress-only": 1}
    assert (await api.get("/traffic/total"))["data/db"]["coverage"] == "egress-only"


async def test_every_path_is_documented_and_answers_as_documented(api: Served, shard: Shard) -> None:
    await shard.peers(1, peer("10.1.0.9", tx_bytes=700, tx_packets=1), peer("8.8.8.8", Scope.INTERNET, rx_bytes=1))
    tick = await shard.commit(change(1, talked(tx_bytes=700)), nodes=(report(gauges={"cpu_seconds_total": 1.0}),))
    await api.at(tick.id)
    shapes = Shapes(await api.get("/openapi.json"))
    for path in shapes.plain_paths:
        shapes.assert_holds(path, 200, await api.get(f"{path}?pod=shop/web" if path == "/traffic/peers" else path))
    for path, status in (
        ("/traffic/peers", 400),
        ("/traffic/peers?pod=no/body", 404),
        ("/traffic/flow?since=1-1", 410),
    ):
        answer = await api.ask(path)
        assert answer.status == status
        shapes.assert_holds(path.partition("?")[0], status, answer.json)
    served = {route.path for route in Routes.__new__(Routes).table()}
    assert served - {"/", "/podloxx", "/podloxx/", "/{name:.+}", "/openapi.json"} == shapes.paths


@pytest.mark.parametrize("tick", ["9" * 5000 + "-1", "7-" + "9" * 5000])
async def test_a_tick_with_more_digits_than_python_reads_is_none(api: Served, tick: str) -> None:
    (await api.ask(f"/traffic/flow?since={tick}")).assert_problem(400, "is no tick id")
    (await api.ask(f"/traffic/ws?resume={tick.replace('-', ':')}")).assert_problem(400, "is not of the form")


@pytest.mark.parametrize("number", ["1_0", "%D9%A1", "%201", "inf", "nan", "0x1", "", "-1", "1.5"])
async def test_a_number_is_written_in_digits(api: Served, number: str) -> None:
    (await api.ask(f"/traffic/external?limit={number}")).assert_problem(400, "number")


@pytest.mark.parametrize("window", ["1_0", "nan", "121", "0"])
async def test_a_window_is_looked_at_also_beside_a_tick(api: Served, window: str) -> None:
    (await api.ask(f"/traffic/flow?since=7-1&window={window}")).assert_problem(400, "is not a number of seconds")
