"""Serves the built dashboard, and to its WebSockets the frames that a test gives: what no real API does on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tests.support.pretend_cluster import PretendCluster
from tests.support.wait import until

STATIC = Path(__file__).parents[2] / "services/api/static"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}


@dataclass(slots=True, eq=False)
class _Client:
    socket: web.WebSocketResponse
    watched: str = ""


@dataclass(slots=True)
class FrameServer:
    """The server of one test."""

    cluster: PretendCluster
    port: int = 0
    answers: dict[str, Any] = field(default_factory=dict)
    """What other paths answer."""
    refuse: tuple[int, str] | None = None
    """Code and reason with which WebSockets are closed at once."""
    greet: bool = True
    """Whether a client gets a snapshot when it connects."""
    greeting: str = ""
    """That snapshot, where it is made before."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The queries with which WebSockets came."""
    said: list[dict[str, Any]] = field(default_factory=list)
    """What clients said."""
    clients: set[_Client] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return f"http://127.0.0.1:{self.port}/"

    async def push(self, frame: dict[str, Any]) -> None:
        """Send a frame to all clients, and to those that watch a pod its peers."""
        text = orjson.dumps(frame).decode()
        for client in list(self.clients):
            with contextlib.suppress(ConnectionError):
                await client.socket.send_str(text)
                if client.watched:
                    await client.socket.send_str(orjson.dumps(self.cluster.watched(client.watched)).decode())

    async def tick(self) -> None:
        """A second of the cluster, taken by all clients."""
        await self.push(self.cluster.tick())
        await self.acknowledged(self.cluster.seq)

    async def acknowledged(self, seq: int) -> None:
        """Wait until some client has taken a message."""
        await until(lambda: any(one.get("ack") == seq for one in self.said), f"seq {seq} is acknowledged")

    async def drop(self) -> None:
        """Close every WebSocket without a word, as a process that dies does."""
        for client in list(self.clients):
            await client.socket.close(code=1011)
        await until(lambda: not self.clients, "all clients are gone")

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.asked.append(dict(request.query))
        if self.refuse:
            await socket.close(code=self.refuse[0], message=self.refuse[1].encode())
            return socket
        client = _Client(socket)
        self.clients.add(client)
        try:
            if self.greet:
                await socket.send_str(self.greeting or orjson.dumps(self.cluster.snapshot()).decode())
            async for message in socket:
                await self._heed(client, orjson.loads(message.data))
        finally:
            self.clients.discard(client)
        return socket

    async def _heed(self, client: _Client, said: dict[str, Any]) -> None:
        self.said.append(said)
        if "watch" in said:
            client.watched = said["watch"] or ""
            if client.watched:
                await client.socket.send_str(orjson.dumps(self.cluster.watched(client.watched)).decode())
        if said.get("snapshot"):
            await client.socket.send_str(orjson.dumps(self.cluster.snapshot()).decode())

    async def _page(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html", headers=_HEADERS)

    async def _answer(self, request: web.Request) -> web.Response:
        answer = self.answers.get(request.path)
        if answer is None:
            return web.json_response({"detail": f"nothing is scripted for {request.path}"}, status=503)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")


@contextlib.asynccontextmanager
async def serving_frames(server: FrameServer) -> AsyncIterator[FrameServer]:
    """The server while it runs, on a free port."""
    app = web.Application()
    app.router.add_get("/", server._page)
    app.router.add_get("/traffic/ws", server._live)
    app.router.add_static("/assets", STATIC / "assets")
    app.router.add_get("/{path:.*}", server._answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        for client in list(server.clients):
            await client.socket.close()
        await runner.cleanup()


async def ticking(server: FrameServer, seconds: float = 1.0) -> None:
    """Tick for ever."""
    while True:
        await server.push(server.cluster.tick())
        await asyncio.sleep(seconds)
