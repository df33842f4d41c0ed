"""Connecting to a real Redis, and what is said when that fails."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.runtime.errors import UsageError
from services.runtime.redis_client import StoreError, connect, translating
from services.runtime.settings import CommonSettings
from tests.support.redis_server import RedisServer


async def test_replies_are_bytes(redis_server: RedisServer) -> None:
    async with connect(CommonSettings(redis_url=redis_server.url)) as client:
        await client.set("a", "1")
        assert await client.get("a") == b"1"


async def test_user_and_password_are_used(redis_server: RedisServer, folder: Path) -> None:
    async with connect(CommonSettings(redis_url=redis_server.url)) as client:
        await client.acl_setuser("viewer", enabled=True, passwords=["+secret"], commands=["+ping"])
    (folder / "password").write_text("secret\n")
    settings = CommonSettings(
        redis_url=redis_server.url, redis_user="viewer", redis_password_file=str(folder / "password")
    )
    async with connect(settings) as client:
        assert await client.ping()
        with pytest.raises(StoreError, match="reading totals: Redis refused"), translating("reading totals"):
            await client.get("a")


async def test_a_wrong_password_is_said(redis_server: RedisServer, folder: Path) -> None:
    (folder / "password").write_text("wrong")
    settings = CommonSettings(
        redis_url=redis_server.url, redis_user="viewer", redis_password_file=str(folder / "password")
    )
    async with connect(settings) as client:
        with pytest.raises(StoreError, match="Check --redis-user"), translating("reading totals"):
            await client.ping()


async def test_over_tcp_a_dead_machine_is_noticed(redis_server: RedisServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    redis_server.stop()
    redis_server.start("--port", str(port), "--bind", "127.0.0.1")
    async with connect(CommonSettings(redis_url=f"redis://127.0.0.1:{port}/0")) as client:
        assert await client.ping()
        [connection] = client.connection_pool._available_connections
        assert connection._writer is not None
        wire = connection._writer.get_extra_info("socket")
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_an_unreachable_store_fails_at_once() -> None:
    async with connect(CommonSettings(redis_url="unix:///nowhere/redis.sock")) as client:
        with pytest.raises(StoreError, match="cannot be reached"), translating("reading totals"):
            await client.ping()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--redis-url 'http://x'"):
        connect(CommonSettings(redis_url="http://x"))
    with pytest.raises(UsageError, match=r"http://\*\*\*@x"):
        connect(CommonSettings(redis_url="http://agent:secret@x"))


def test_a_missing_password_file_is_named() -> None:
    with pytest.raises(UsageError, match="--redis-password-file /nowhere: No such file"):
        connect(CommonSettings(redis_password_file="/nowhere"))
