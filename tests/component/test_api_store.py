"""The API through what a store may do: go, stand still, lose everything, change its epoch."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aredis

from services.api import app
from services.flows import history, keys
from services.flows.history import Passed
from services.flows.scope import Scope
from services.launcher import store as stores
from tests.support.clocks import HandClock
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shard import NAMES, Shard, change, peer, pod, talked
from tests.support.wait import until

WEB = pod("web")


@pytest.fixture
async def shard(redis: aredis.Redis) -> Shard:
    """One pod that has talked."""
    shard = Shard(redis)
    await shard.commit(change(1, talked(tx_bytes=1000)), who={1: WEB})
    return shard


@pytest.fixture
async def api(redis_server: RedisServer, shard: Shard) -> AsyncIterator[Served]:
    """The API, ready."""
    del shard
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def why(api: Served) -> str:
    """Why the API is not ready; empty where it is."""
    answer = await api.ask("/readyz")
    return "" if answer.status == 200 else str(answer.json["detail"])


async def until_sent(api: Served, size: int) -> None:
    """Wait until the pod has sent so many bytes."""

    async def is_there() -> bool:
        answer = await api.ask("/traffic/total")
        return answer.status == 200 and answer.json.get("shop/web", {}).get("transmitBytes") == size

    await until(is_there, f"the pod sent {size} bytes")


@pytest.mark.parametrize("epoch", [3, 99], ids=["smaller", "greater"])
async def test_a_new_epoch_is_read_anew(api: Served, redis: aredis.Redis, epoch: int) -> None:
    await redis.delete(NAMES.totals, NAMES.ticks)
    await Shard(redis, epoch=epoch).commit(change(1, talked(tx_bytes=5)), who={1: WEB})
    await until_sent(api, 5)
    assert (await api.get("/traffic/overview"))["problem"] == ""
    (await api.ask("/traffic/flow?since=7-1")).assert_problem(410, f"{epoch}-1")


async def test_a_missing_tick_makes_it_read_anew(api: Served, shard: Shard) -> None:
    shard.n = 5
    await shard.commit(change(1, talked(tx_bytes=1)))
    await until_sent(api, 1001)
    (await api.ask("/traffic/flow?since=7-1")).assert_problem(410, "7-6")


async def test_an_emptied_store_is_said_and_what_was_is_still_shown(api: Served, redis: aredis.Redis) -> None:
    await redis.flushall()

    async def is_said() -> bool:
        return "Redis was emptied" in await why(api)

    await until(is_said, "it says that the totals are gone")
    assert (await api.get("/traffic/total"))["shop/web"]["transmitBytes"] == 1000
    assert "Redis was emptied" in (await api.get("/traffic/overview"))["problem"]
    await Shard(redis, epoch=8).commit(change(1, talked(tx_bytes=7)), who={1: WEB})
    await until_sent(api, 7)
    assert await why(api) == ""


async def test_a_killed_store_is_said_and_followed_again(api: Served, redis_server: RedisServer, shard: Shard) -> None:
    redis_server.kill()

    async def is_said() -> bool:
        return "Redis cannot be reached" in await why(api)

    await until(is_said, "it says that Redis is away")
    assert (await api.get("/traffic/overview"))["totalPods"] == 1
    (await api.ask("/traffic/peers?pod=shop/web")).assert_problem(503, "Redis cannot be reached")
    redis_server.start()
    await shard.commit(change(1, talked(tx_bytes=1)))
    await until_sent(api, 1001)
    assert await why(api) == ""


async def test_a_store_that_is_away_at_the_start_is_waited_for(redis_server: RedisServer) -> None:
    redis_server.stop()
    async with serving(redis_server) as api:

        async def is_said() -> bool:
            return "Redis cannot be reached" in await why(api)

        await until(is_said, "it says that Redis is away")
        redis_server.start()
        async with aredis.Redis(unix_socket_path=str(redis_server.socket)) as client:
            await Shard(client).commit(change(1, talked(tx_bytes=3)), who={1: WEB})
        await until_sent(api, 3)


async def test_a_store_that_stands_still_is_said(
    redis_server: RedisServer, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    monkeypatch.setattr(app, "SystemClock", lambda: clock)
    async with serving(redis_server) as api:
        await api.ready()
        redis_server.signal(signal.SIGSTOP)
        try:
            clock.pass_s(6)
            assert await why(api) == "Redis does not answer"
            assert (await api.get("/traffic/overview"))["problem"] == "Redis does not answer"
        finally:
            redis_server.signal(signal.SIGCONT)
        await shard.commit(change(1, talked(tx_bytes=1)))
        await until_sent(api, 1001)
        assert await why(api) == ""


async def test_who_asks_a_store_that_stands_still_is_answered(
    redis_server: RedisServer, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.peers._ANSWER_S", 0.2)
    redis_server.signal(signal.SIGSTOP)
    try:
        (await api.ask("/traffic/peers?pod=shop/web")).assert_problem(503, "Redis does not answer")
    finally:
        redis_server.signal(signal.SIGCONT)

    async def answers() -> bool:
        return (await api.ask("/traffic/peers?pod=shop/web")).status == 200

    await until(answers, "peers are read again")


@pytest.mark.parametrize("broken", ["session", "row:1"])
async def test_totals_that_cannot_be_read_are_said(
    redis_server: RedisServer, shard: Shard, redis: aredis.Redis, broken: str
) -> None:
    await redis.hset(NAMES.totals, broken, b"\xc1")
    async with serving(redis_server) as api:

        async def is_said() -> bool:
            return "of version 1" in await why(api)

        await until(is_said, "it says that it cannot read")
        await shard.commit(change(1, talked(tx_bytes=1)))
        await until_sent(api, 1001)


async def test_a_tick_that_cannot_be_read_is_said(api: Served, shard: Shard, redis: aredis.Redis) -> None:
    await redis.xadd(NAMES.ticks, {keys.FIELD_TICK: b"\xc1"}, id="7-2")

    async def is_said() -> bool:
        return "not a tick of version 1" in await why(api)

    await until(is_said, "it says that it cannot read")
    await redis.delete(NAMES.ticks)
    shard.n = 2
    await shard.commit(change(1, talked(tx_bytes=1)))
    await until_sent(api, 1001)


async def test_peers_that_cannot_be_read_are_said(api: Served, redis: aredis.Redis) -> None:
    await redis.hset(NAMES.peers(1), b"x", b"\xc1")
    (await api.ask("/traffic/peers?pod=shop/web")).assert_problem(503, "peers in Redis cannot be read")
    (await api.ask("/traffic/total")).assert_problem(503, "peers in Redis cannot be read")


async def test_too_many_questions_about_peers_are_turned_away(
    api: Served, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.peers._ANSWER_S", 0.5)
    redis_server.signal(signal.SIGSTOP)
    try:
        answers: list[Any] = []
        async with asyncio.TaskGroup() as tasks:
            answers += [tasks.create_task(api.ask("/traffic/peers?pod=shop/web")) for _ in range(130)]
        details = [answer.result().json["detail"] for answer in answers]
    finally:
        redis_server.signal(signal.SIGCONT)
    assert any("too many requests" in detail for detail in details)
    assert all("too many requests" in detail or "does not answer" in detail for detail in details)


async def test_the_viewer_of_the_launchers_store_may_do_all_that_is_needed(
    redis_server: RedisServer, folder: Path
) -> None:
    rules = stores.RULES["viewer"].split()
    async with aredis.Redis(unix_socket_path=str(redis_server.socket)) as admin:
        shard = Shard(admin)
        await shard.commit(change(1, talked(tx_bytes=1000)), who={1: WEB})
        await shard.peers(1, peer("10.1.0.3", tx_bytes=5))
        await admin.execute_command("ACL", "SETUSER", "viewer", "on", ">secret", *rules)  # type: ignore[no-untyped-call]
        (folder / "password").write_text("secret")
        async with serving(redis_server, redis_user="viewer", redis_password_file=str(folder / "password")) as api:
            await api.ready()
            tick = await shard.commit(change(1, talked(tx_bytes=1)))
            await api.at(tick.id)
            assert len((await api.get("/traffic/peers?pod=shop/web"))["peers"]) == 1
            await admin.flushall()

            async def is_said() -> bool:
                return "Redis was emptied" in await why(api)

            await until(is_said, "it says that the totals are gone")
        assert not [entry for entry in await admin.acl_log() if entry["reason"] == "command"]


async def test_a_wrong_password_is_said(redis_server: RedisServer, folder: Path) -> None:
    async with aredis.Redis(unix_socket_path=str(redis_server.socket)) as admin:
        await admin.execute_command("ACL", "SETUSER", "viewer", "on", ">secret", "~*", "+@all")  # type: ignore[no-untyped-call]
    (folder / "password").write_text("wrong")
    async with serving(redis_server, redis_user="viewer", redis_password_file=str(folder / "password")) as api:

        async def is_said() -> bool:
            return "Check --redis-user and --redis-password-file" in await why(api)

        await until(is_said, "it says what to check")


async def test_history_that_was_stored_is_in_the_timeline(redis_server: RedisServer, redis: aredis.Redis) -> None:
    shard = Shard(redis)
    await shard.commit(who={1: WEB})
    bucket = (await shard.now_us()) // 5_000_000 - 3
    stored = history.encode({1: {Scope.INTERNET: Passed(100, 20)}})
    await redis.hset(NAMES.history, str(bucket), stored)
    async with serving(redis_server) as api:
        await api.ready()
        async with api.client.ws_connect(api.url("/traffic/ws?v=1")) as socket:
            message = await socket.receive_json()
    assert [bucket * 5, 0, 0, 0, 120, 0] in message["timeline"]


async def test_an_interrupted_way_to_the_store_is_told_by_who_keeps_it(
    redis_server: RedisServer, shard: Shard, folder: Path
) -> None:
    del shard
    way = folder / "way"
    async with serving(redis_server, way_file=str(way)) as served:
        await served.ready()
        way.write_text("the way into the cluster is interrupted: pod redis-1 is gone\n")
        assert await why(served) == "the way into the cluster is interrupted: pod redis-1 is gone"
        way.write_text("")
        assert await why(served) == ""
