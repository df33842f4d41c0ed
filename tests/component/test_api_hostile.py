"""Requests and messages that fuzzing kept, sent to an API over a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
import redis.asyncio as aredis

from tests.fuzz import rest
from tests.fuzz.corpora import kept
from tests.support.redis_server import RedisServer
from tests.support.served import Answer, Served, serving

MOST_AT_ONCE = 20


@pytest.fixture
async def api(redis_server: RedisServer, redis: aredis.Redis) -> AsyncIterator[Served]:
    """The API of two pods."""
    await rest.filled(redis)
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def status_of(api: Served, request: bytes) -> int:
    """Of the answer to a request whose first line ends so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(request + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status = int(head.split()[1])
    if b"json" in head and not request.startswith(b"HEAD "):
        orjson.loads(body)
    return status


async def test_no_request_is_an_error_of_the_server_or_a_line_of_its_log(
    api: Served, caplog: pytest.LogCaptureFixture
) -> None:
    requests = kept("rest")
    assert len(requests) >= 20
    for one in requests:
        assert 200 <= await status_of(api, one) < 500, one
    assert caplog.records == []


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET /traffic/flow?since=" + b"7" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "8190 bytes"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"7" * 9000 + b"\r\n\r\n", 400, "8190 bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "HTTPS traffic"),
    ],
    ids=["line", "header", "tls"],
)
async def test_what_the_web_server_itself_refuses_is_told_as_every_error(
    api: Served, caplog: pytest.LogCaptureFixture, request_: bytes, status: int, words: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request_)
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    Answer(int(lines[0].split()[1]), headers, body).assert_problem(status, words)
    assert headers["Server"] == "podloxx"
    assert caplog.records == []


async def test_no_message_breaks_more_than_its_own_connection(api: Served) -> None:
    messages = kept("websocket")
    together = asyncio.Semaphore(MOST_AT_ONCE)

    async def say(message: bytes) -> None:
        async with together, api.client.ws_connect(api.url("/traffic/ws?v=1")) as socket:
            await socket.send_str(message.decode(errors="replace"))
            async with asyncio.timeout(20):
                received = await socket.receive()
            assert received.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE}

    async with asyncio.TaskGroup() as tasks:
        for one in messages:
            tasks.create_task(say(one))
    assert (await api.ask("/readyz")).status == 200
