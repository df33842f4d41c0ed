"""The API on a real port over a real Redis, in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from services.api.app import run
from services.runtime.settings import ApiSettings
from services.runtime.supervise import Stop
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.wait import until


def free_port(address: str = "127.0.0.1") -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Answer:
    """An answer, read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return orjson.loads(self.body)

    def assert_problem(self, status: int, words: str) -> None:
        """It is an error of RFC 9457 whose detail holds `words`."""
        assert self.status == status, self.body
        assert self.headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} == self.json.keys()
        assert self.json["status"] == status
        assert words in self.json["detail"], self.json["detail"]


@dataclass(slots=True)
class Served:
    """A running API and a client of it."""

    port: int
    client: aiohttp.ClientSession
    stop: Stop
    task: asyncio.Task[None]

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request; underscores in names of headers are dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, self.url(path), headers=given, allow_redirects=False) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.read())

    async def get(self, path: str) -> Any:
        """The JSON behind a path."""
        answer = await self.ask(path)
        assert answer.status == 200, answer.body
        return answer.json

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def ready(self) -> None:
        """Wait until it serves what is in Redis."""

        async def is_ready() -> bool:
            return (await self.ask("/readyz")).status == 200

        await until(is_ready, "the API is ready")

    async def at(self, tick: str) -> None:
        """Wait until it has taken a tick."""

        async def is_there() -> bool:
            return (await self.ask("/traffic/flow")).headers.get("X-Podloxx-Tick") == tick

        await until(is_there, f"the API has tick {tick}")


@contextlib.asynccontextmanager
async def serving(server: RedisServer | RedisCluster, *, port: int = 0, **settings: Any) -> AsyncIterator[Served]:
    """The API while it runs; ended in order."""
    port = port or free_port()
    stop = Stop()
    wanted = ApiSettings(redis_url=server.url, port=port, **settings)
    # As many connections as a test asks for, instead of a hundred.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as client:
        task = asyncio.get_running_loop().create_task(run(wanted, stop))
        served = Served(port, client, stop, task)
        try:
            await until(lambda: task.done() or _listens(port), "the API listens")
            yield served
        finally:
            stop.request()
            await task


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
