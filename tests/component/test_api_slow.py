"""Clients that do not read, or say nothing: what they may cost an API process, and whom they hold up."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest
import redis.asyncio as aredis

from services.api.live import _KERNEL_BYTES
from services.api.web_socket_frames import FRAME_BYTES
from tests.support.crowd import Crowd
from tests.support.redis_server import RedisServer
from tests.support.served import free_port
from tests.support.wait import until

_MANY: Final = 60
_MB: Final = 1 << 20
_HELLO: Final = (
    b"GET /traffic/ws?v=1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@dataclass(slots=True)
class Api:
    """An API process."""

    pid: int
    port: int

    def resident(self) -> int:
        """Bytes that are resident."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def queued(self) -> list[int]:
        """Bytes that the kernel holds to be sent, by connection."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return [
            int(one[4].split(":")[0], 16) for one in fields if one[1].endswith(f":{self.port:04X}") and one[3] == "01"
        ]


@pytest.fixture
async def crowd(redis: aredis.Redis) -> Crowd:
    """Pods whose snapshot is some megabytes."""
    crowd = Crowd(redis, 5000, 20, padding="x" * 200)
    await crowd.begin()
    return crowd


@pytest.fixture
def api(redis_server: RedisServer, crowd: Crowd) -> Iterator[Api]:
    """The API over them."""
    del crowd
    port = free_port()
    argv = [sys.executable, "-m", "services.api", f"--port={port}", f"--redis-url={redis_server.url}"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if "totals-read" in line)
            yield Api(process.pid, port)
            process.terminate()
            process.communicate(timeout=20)
        finally:
            process.kill()


@pytest.fixture
async def good(api: Api) -> AsyncIterator[Any]:
    """A client that reads and acknowledges: gives the seq of its next message."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{api.port}/traffic/ws?v=1", max_msg_size=0) as client,
    ):
        await client.send_json({"hz": 4})

        async def read() -> int:
            message = orjson.loads((await client.receive(timeout=10)).data)
            await client.send_json({"ack": message["seq"]})
            return int(message["seq"])

        yield read


async def told(crowd: Crowd, good: Any) -> None:
    """All pods change, and a good client hears of it."""
    n, _ = await crowd.tick(0, parts=1)
    while await good() < n:
        pass


async def test_clients_that_do_not_read_cost_next_to_nothing_and_hold_nobody_up(
    api: Api, crowd: Crowd, good: Any
) -> None:
    for _ in range(4):
        await told(crowd, good)
    before = api.resident()
    several: list[socket.socket] = []
    try:
        for _ in range(_MANY):
            several.append(one := socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", api.port))
            one.sendall(_HELLO)

        async def all_wait() -> bool:
            return sum(size > FRAME_BYTES for size in api.queued()) == _MANY

        await until(all_wait, "the kernel holds what they do not read")
        for _ in range(4):
            await told(crowd, good)
        # Twice: the kernel counts its own bookkeeping into what is asked for.
        assert max(api.queued()) <= 2 * _KERNEL_BYTES
        # Each has been sent a snapshot of more than two megabytes; two frames of it wait here.
        assert api.resident() - before < _MANY * 4 * FRAME_BYTES + 8 * _MB
    finally:
        for one in several:
            one.close()


async def test_a_client_that_never_acknowledges_gets_nothing_further(api: Api, crowd: Crowd, good: Any) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{api.port}/traffic/ws?v=1", max_msg_size=0) as silent,
    ):
        first = orjson.loads((await silent.receive(timeout=10)).data)
        for _ in range(4):
            await told(crowd, good)
        with pytest.raises(TimeoutError):
            await silent.receive(timeout=0.3)
        await silent.send_json({"ack": first["seq"]})
        merged = orjson.loads((await silent.receive(timeout=10)).data)
        assert (merged["t"], merged["base"], merged["seq"], len(merged["i"])) == ("delta", first["seq"], crowd.n, 5000)
