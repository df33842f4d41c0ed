"""The WebSocket over a real Redis and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import orjson
import pytest
import redis.asyncio as aredis

from services.api import app, live
from services.api.live import Hub
from services.flows.scope import Scope
from tests.support.live import clients, closed, connected, read
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shard import Shard, change, pod, talked
from tests.support.wait import until

WEB, DB = pod("web"), pod("db", "data", "node-b")


@pytest.fixture
async def shard(redis: aredis.Redis) -> Shard:
    """Two pods, of which one has talked."""
    shard = Shard(redis)
    await shard.commit(
        change(1, talked(Scope.INTERNET, tx_bytes=1000)), who={1: WEB, 2: DB}, nodes=("node-a", "node-b")
    )
    return shard


@pytest.fixture
async def api(redis_server: RedisServer, shard: Shard) -> AsyncIterator[Served]:
    """The API, ready."""
    del shard
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def test_snapshot_then_deltas(api: Served, shard: Shard) -> None:
    async with connected(api) as socket:
        first = await read(socket, "snapshot")
        assert (first["v"], first["epoch"], first["seq"], first["reporting"]) == (1, 7, 1, [2, 2])
        assert first["pods"]["name"] == ["web", "db"]
        assert first["rows"]["internet_tx"] == [1000, 0]
        await shard.commit(change(2, talked(tx_bytes=500)))
        delta = await read(socket, "delta")
        assert (delta["base"], delta["seq"]) == (1, 2)
        assert dict(zip(delta["i"], delta["rows"]["total"], strict=True))[2] == 500
        assert delta["tot"][-1] == 1500


async def test_without_an_acknowledgement_there_is_no_further_message(api: Served, shard: Shard) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot", ack=False)
        for size in (10, 20, 30):
            tick = await shard.commit(change(1, talked(tx_bytes=size)))
            await api.at(tick.id)
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.3)
        await socket.send_json({"ack": 1})
        delta = await read(socket)
        assert (delta["base"], delta["seq"], delta["rows"]["total"]) == (1, 4, [1060])


async def test_acknowledging_something_else_is_no_acknowledgement(api: Served, shard: Shard) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot", ack=False)
        await socket.send_json({"ack": 99})
        tick = await shard.commit(change(1, talked(tx_bytes=1)))
        await api.at(tick.id)
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.3)


async def test_who_acknowledges_nothing_is_closed(
    redis_server: RedisServer, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    del shard
    monkeypatch.setattr(app, "Hub", partial(Hub, ack_s=0.2))
    async with serving(redis_server) as api, connected(api) as socket:
        assert await closed(socket) == (4002, "no ack for 0 s")


async def test_who_does_not_read_is_closed_and_forgotten(
    redis_server: RedisServer, redis: aredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "Hub", partial(Hub, ack_s=0.2))
    monkeypatch.setattr(live, "_CLOSE_S", 0.2)
    # More than the buffers of a socket hold.
    crowd = {number: pod(f"pod-{number}-{'x' * 200}") for number in range(40_000)}
    await Shard(redis).commit(who=crowd)
    async with serving(redis_server) as api:
        await api.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
        writer.write(
            b"GET /traffic/ws?v=1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        # Its first message is so large that it may be forgotten before anybody could count it.
        assert (await reader.readline()).startswith(b"HTTP/1.1 101")

        async def is_gone() -> bool:
            return not await clients(api)

        await until(is_gone, "it is forgotten")
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()


async def test_resuming_goes_on_where_it_was(api: Served, shard: Shard) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        await shard.commit(change(1, talked(tx_bytes=5)))
        await read(socket, "delta")
    tick = await shard.commit(change(1, talked(tx_bytes=5)))
    await api.at(tick.id)
    async with connected(api, "v=1&resume=7:2") as socket:
        delta = await read(socket)
        assert (delta["t"], delta["base"], delta["i"]) == ("delta", 2, [1])


@pytest.mark.parametrize("resume", ["7:0", "7:1", "7:99", "8:1", f"7:{2**80}"])
async def test_resuming_from_elsewhere_begins_anew(api: Served, resume: str) -> None:
    async with connected(api, f"v=1&resume={resume}") as socket:
        assert (await read(socket))["t"] == "snapshot"


async def test_a_bad_resume_is_refused(api: Served) -> None:
    (await api.ask("/traffic/ws?resume=x")).assert_problem(400, "is not of the form <epoch>:<seq>")


async def test_a_snapshot_can_be_asked_for(api: Served) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot", ack=False)
        # Asked before, acknowledged after: the request still stands.
        await socket.send_json({"snapshot": True})
        await socket.send_json({"ack": 1})
        assert (await read(socket))["t"] == "snapshot"


async def test_a_new_epoch_begins_with_a_snapshot(api: Served, redis: aredis.Redis) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        await redis.flushall()
        await Shard(redis, epoch=3).commit(change(1, talked(tx_bytes=5)), who={1: WEB})
        again = await read(socket, "snapshot")
        assert (again["epoch"], again["tot"][-1]) == (3, 5)


async def test_an_outage_of_the_store_is_told(api: Served, redis_server: RedisServer) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        redis_server.kill()
        while not (message := await read(socket, "delta"))["problem"]:
            pass
        assert "Redis cannot be reached" in message["problem"]
        assert message["seq"] == 1


async def test_messages_come_at_most_so_often(api: Served, shard: Shard) -> None:
    async with connected(api) as socket:
        await socket.send_json({"hz": 1})
        await read(socket, "snapshot")
        began = asyncio.get_running_loop().time()
        await shard.commit(change(1, talked(tx_bytes=5)))
        await read(socket, "delta")
        assert asyncio.get_running_loop().time() - began > 0.5


async def test_a_paused_client_gets_everything_at_once_later(api: Served, shard: Shard) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        await socket.send_json({"hz": 0})
        for _ in range(3):
            tick = await shard.commit(change(1, talked(tx_bytes=5)))
        await api.at(tick.id)
        # The pause may come after the first of them.
        seen = 0
        with contextlib.suppress(TimeoutError):
            while True:
                message = orjson.loads((await socket.receive(timeout=0.6)).data)
                seen = message["seq"]
                await socket.send_json({"ack": seen})
        await shard.commit(change(1, talked(tx_bytes=5)))
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.5)
        await socket.send_json({"hz": 4})
        delta = await read(socket, "delta")
        assert (delta["seq"], delta["rows"]["total"]) == (5, [1020])
        assert seen < 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "the message is not JSON"),
        ("[]", "expected an object"),
        ('{"hz": 100}', "hz must be"),
        ('{"delete": "everything"}', "unknown field 'delete'"),
    ],
)
async def test_a_message_that_is_not_understood_closes_that_client_only(
    api: Served, shard: Shard, text: str, reason: str
) -> None:
    async with connected(api) as good, connected(api) as bad:
        await read(good, "snapshot")
        await bad.send_str(text)
        code, why = await closed(bad)
        assert code == 1008
        assert reason in why
        await shard.commit(change(1, talked(tx_bytes=5)))
        await read(good, "delta")


async def test_bytes_are_not_understood(api: Served) -> None:
    async with connected(api) as socket:
        await socket.send_bytes(b"{}")
        assert await closed(socket) == (1008, "only text messages are understood")


async def test_a_message_that_is_too_long_closes_the_client(api: Served) -> None:
    async with connected(api) as socket:
        await socket.send_json({"watch": "x" * 5000})
        assert (await closed(socket))[0] == 1009


async def test_another_version_is_closed_with_the_reason(api: Served) -> None:
    async with connected(api, "v=2") as socket:
        assert await closed(socket) == (4001, "this API speaks version 1 of the live protocol")


async def test_there_is_a_most_of_clients(redis_server: RedisServer, shard: Shard) -> None:
    del shard
    async with serving(redis_server, max_clients=2) as api:
        await api.ready()
        async with connected(api), connected(api):
            (await api.ask("/traffic/ws?v=1")).assert_problem(503, "--max-clients")
            assert await clients(api) == 2

        async def has_room() -> bool:
            return not await clients(api)

        await until(has_room, "they are gone")
        async with connected(api) as socket:
            await read(socket, "snapshot")


async def test_no_handshake_no_socket(api: Served) -> None:
    (await api.ask("/traffic/ws?v=1")).assert_problem(400, "")
    assert await clients(api) == 0


async def test_a_client_that_goes_without_a_word_is_forgotten(api: Served, shard: Shard) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        response = socket._response
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.abort()

    async def is_gone() -> bool:
        return not await clients(api)

    await until(is_gone, "it is forgotten")
    tick = await shard.commit(change(1, talked(tx_bytes=5)))
    await api.at(tick.id)


async def test_clients_are_told_when_the_service_ends(api: Served) -> None:
    async with connected(api) as one, connected(api) as two:
        await read(one, "snapshot")
        api.stop.request()
        assert await closed(one) == (1001, "podloxx ends")
        assert await closed(two) == (1001, "podloxx ends")
        await asyncio.wait_for(api.task, 5)


async def test_a_client_that_does_not_answer_does_not_hold_up_the_end(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_CLOSE_S", 0.2)
    async with connected(api, autoclose=False) as socket:
        await read(socket, "snapshot")
        api.stop.request()
        await asyncio.wait_for(api.task, 5)


async def test_before_the_first_totals_a_client_waits(redis_server: RedisServer, redis: aredis.Redis) -> None:
    async with serving(redis_server) as api, connected(api) as socket:
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.2)
        await Shard(redis).commit(change(1, talked(tx_bytes=5)), who={1: WEB})
        assert (await read(socket))["tot"][-1] == 5


async def test_many_clients_see_the_same(api: Served, shard: Shard) -> None:
    async def follow() -> Any:
        async with connected(api) as socket:
            message = await read(socket)
            while message["seq"] < 5:
                message = await read(socket)
            return message["tot"]

    async with asyncio.TaskGroup() as tasks:
        followers = [tasks.create_task(follow()) for _ in range(20)]
        for _ in range(4):
            await shard.commit(change(1, talked(tx_bytes=5)))
    assert {tuple(one.result()) for one in followers} == {tuple(followers[0].result())}
    assert followers[0].result()[-1] == 1020
