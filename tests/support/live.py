"""A client of the WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from tests.support.served import Served

Socket = aiohttp.ClientWebSocketResponse


@contextlib.asynccontextmanager
async def connected(api: Served, query: str = "v=1", *, hz: float = 4, **options: Any) -> AsyncIterator[Socket]:
    """A client that wants to be told as often as can be."""
    async with api.client.ws_connect(api.url(f"/traffic/ws?{query}"), **options) as socket:
        if hz != 1:
            await socket.send_json({"hz": hz})
        yield socket


async def read(socket: Socket, kind: str = "", *, ack: bool = True) -> Any:
    """The next message, of a kind if one is given; acknowledged."""
    while True:
        message = await socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        found = orjson.loads(message.data)
        if found["t"] != "pod" and ack:
            await socket.send_json({"ack": found["seq"]})
        if not kind or found["t"] == kind:
            return found


async def closed(socket: Socket) -> tuple[int | None, str]:
    """Code and reason with which the server closes, whatever it sends before."""
    while True:
        message = await socket.receive(timeout=10)
        if message.type is aiohttp.WSMsgType.CLOSE:
            return message.data, message.extra or ""
        assert message.type is aiohttp.WSMsgType.TEXT, message


async def clients(api: Served) -> int:
    """How many clients the API has."""
    lines = (await api.ask("/metrics")).body.decode().splitlines()
    [line] = [line for line in lines if line.startswith("podloxx_websocket_clients ")]
    return int(line.split()[1])
