"""A container engine on a unix socket that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class FakeEngine:
    """Lists `containers`; `answer` and `events` replace what it would say by any bytes.

    While it is `mute` it takes requests and answers none, as behind a connection that is half open; while it
    `cuts` its list ends in the middle.
    """

    socket: Path
    containers: list[dict[str, Any]] = field(default_factory=list)
    answer: bytes | None = None
    events: bytes | None = None
    status: int = 200
    mute: bool = False
    cuts: bool = False
    lists: int = 0
    watchers: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _told: int = 0
    _ended: bool = False

    def run(self, name: str, *addresses: str, gateway: str = "", mode: str = "bridge", **labels: str) -> None:
        """A container starts; labels' underscores are dots."""
        four = next((one for one in addresses if ":" not in one), "")
        six = next((one for one in addresses if ":" in one), "")
        network = {"IPAddress": four, "GlobalIPv6Address": six, "Gateway": gateway, "IPv6Gateway": ""}
        self.containers.append(
            {
                "Id": f"{name}0123456789abcdef",
                "Names": [f"/{name}"],
                "Created": 1_700_000_000 + len(self.containers),
                "Labels": {key.replace("_", "."): value for key, value in labels.items()},
                "HostConfig": {"NetworkMode": mode},
                "NetworkSettings": {"Networks": {mode: network}},
            }
        )

    async def tell(self, *, ended: bool = False) -> None:
        """An event, or the end of all streams of events."""
        async with self._news:
            self._told += 1
            self._ended = ended
            self._news.notify_all()

    async def speaks(self) -> None:
        """Return once it is not mute."""
        async with self._news:
            await self._news.wait_for(lambda: self._ended or not self.mute)

    async def list(self, request: web.Request) -> web.StreamResponse:
        """`/containers/json`."""
        self.lists += 1
        await self.speaks()
        body = json.dumps(self.containers).encode() if self.answer is None else self.answer
        if self.cuts:
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[:-1])
            if request.transport is not None:
                request.transport.abort()
            return response
        return web.Response(body=body, status=self.status)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """`/events`."""
        self.watchers += 1
        await self.speaks()
        response = web.StreamResponse()
        await response.prepare(request)
        if self.events is not None:
            with contextlib.suppress(ConnectionError):
                await response.write(self.events)
            return response
        seen = self._told
        while not self._ended:
            async with self._news:
                if seen == self._told:
                    await self._news.wait()
                seen = self._told
            with contextlib.suppress(ConnectionError):
                await response.write(b'{"Type": "container", "Action": "start"}\n')
        return response


@contextlib.asynccontextmanager
async def fake_engine(socket: Path) -> AsyncIterator[FakeEngine]:
    """The engine while inside."""
    engine = FakeEngine(socket)
    app = web.Application()
    app.router.add_get("/containers/json", engine.list)
    app.router.add_get("/events", engine.watch)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(socket)).start()
        yield engine
    finally:
        await engine.tell(ended=True)
        await runner.cleanup()
        socket.unlink(missing_ok=True)
