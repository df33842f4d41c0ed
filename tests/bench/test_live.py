"""The WebSocket hub: 1,000 clients of one API process, 5,000 pods of which each changes once a second."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis.asyncio as aredis

from tests.bench.report import Report
from tests.bench.test_memory import Process
from tests.support.crowd import PARTS, Crowd
from tests.support.redis_server import RedisServer
from tests.support.served import free_port

_ROOT: Final = Path(__file__).parents[2]
_CLIENTS: Final = 1000
_NODES: Final = 100
_WARM_UP_S: Final = 5
_SECONDS: Final = 20

pytestmark = pytest.mark.timeout(300)


class Load:
    """The clients, in a process of their own."""

    def __init__(self, port: int, clients: int) -> None:
        argv = [sys.executable, "-m", "tests.support.live_load", str(port), str(clients)]
        self.popen = subprocess.Popen(argv, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    async def ask(self, command: str) -> Any:
        """What it answers to a command."""
        return json.loads(await asyncio.to_thread(self._ask, command))

    def _ask(self, command: str) -> str:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(command + "\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline()

    def end(self) -> None:
        """End it."""
        self.popen.kill()
        self.popen.communicate()


def _started(argv: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(argv, cwd=_ROOT, stderr=subprocess.PIPE, text=True)


@asynccontextmanager
async def serving(pods: int) -> AsyncIterator[tuple[Process, int, Crowd]]:
    """A store with so many pods and an API process over it, which has read them."""
    with tempfile.TemporaryDirectory(prefix="plx") as name:
        server = RedisServer(Path(name))
        server.start()
        redis = aredis.Redis.from_url(server.url)
        crowd = Crowd(redis, pods, _NODES)
        await crowd.begin()
        port = free_port()
        argv = [
            sys.executable,
            "-m",
            "services.api",
            f"--port={port}",
            f"--redis-url={server.url}",
            "--max-clients=2000",
        ]
        api = _started(argv)
        try:
            assert api.stderr is not None
            await asyncio.to_thread(next, (line for line in api.stderr if "totals-read" in line))
            yield Process(api.pid), port, crowd
        finally:
            api.terminate()
            api.communicate(timeout=20)
            await redis.aclose()
            server.stop()


async def talk(crowd: Crowd, stop: asyncio.Event, told: list[tuple[int, int]]) -> None:
    """Ticks four times a second, as agents report at different moments of it."""
    part = 0
    due = time.monotonic()
    while not stop.is_set():
        told.append(await crowd.tick(part % PARTS))
        part, due = part + 1, due + 1 / PARTS
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def measured(pods: int, clients: int) -> dict[str, Any]:
    """What the clients saw, and what the API took."""
    async with serving(pods) as (api, port, crowd):
        load, stop = Load(port, clients), asyncio.Event()
        told: list[tuple[int, int]] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(talk(crowd, stop, told))
                await asyncio.sleep(_WARM_UP_S)
                alone_mb, alone_ns = api.resident_mb(), api.own_ns()
                await asyncio.sleep(_WARM_UP_S)
                alone = (api.own_ns() - alone_ns) / 1e9 / _WARM_UP_S
                began = time.monotonic()
                first = await load.ask("connect")
                connected_s = time.monotonic() - began
                await asyncio.sleep(_WARM_UP_S)
                await load.ask("begin")
                told.clear()
                own_ns, began = api.own_ns(), time.monotonic()
                await asyncio.sleep(_SECONDS)
                busy = (api.own_ns() - own_ns) / 1e9 / (time.monotonic() - began)
                with_mb = api.resident_mb()
                seen = await load.ask("report")
                stop.set()
        finally:
            load.end()
    assert not seen["closed"], seen["closed"][:3]
    return {
        "alone": alone,
        "busy": busy,
        "kb": (with_mb - alone_mb) * 1024 / clients,
        "mb": with_mb,
        "connected_s": connected_s,
        "snapshot_kb": statistics.median(first["snapshots"]) / 1e3,
        "delta_kb": statistics.median(size for *_, size in seen["came"]) / 1e3,
        "hz": len(seen["came"]) / clients / _SECONDS,
        "delays": delays(told, seen["came"], clients),
    }


def delays(told: list[tuple[int, int]], came: list[tuple[int, float, int, int]], clients: int) -> list[float]:
    """Seconds from each tick's commit to each client's first message that has it; clients' last ticks are on their way."""
    of: list[list[tuple[int, float]]] = [[] for _ in range(clients)]
    for number, at, seq, _ in came:
        of[number].append((seq, at))
    assert all(of), "every client heard of something"
    found = []
    latest = told[-1][1] / 1e6 - 3
    for messages in of:
        seqs = [seq for seq, _ in messages]
        for n, at_us in told:
            if at_us / 1e6 > latest:
                continue
            place = bisect_left(seqs, n)
            found.append(messages[place][1] - at_us / 1e6 if place < len(messages) else 60.0)
    return sorted(found)


def at(part: float, ordered: list[float]) -> float:
    """A quantile."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def test_many_clients(report: Report) -> None:
    rows = []
    for pods, clients in ((5_000, 1), (5_000, 100), (5_000, _CLIENTS), (10_000, _CLIENTS)):
        one = await measured(pods, clients)
        p50, p99, most = at(0.5, one["delays"]), at(0.99, one["delays"]), one["delays"][-1]
        rows.append(
            (
                f"{pods:,}",
                f"{clients:,}",
                f"{one['hz']:.2f}",
                f"{one['snapshot_kb']:.0f}",
                f"{one['delta_kb']:.0f}",
                f"{one['alone']:.2f}",
                f"{one['busy']:.2f}",
                f"{one['mb']:.0f}",
                f"{one['kb']:.0f}",
                f"{one['connected_s']:.1f}",
                f"{p50:.2f}",
                f"{p99:.2f}",
                f"{most:.2f}",
            )
        )
        if (pods, clients) == (5_000, _CLIENTS):
            report.goal("1,000 clients, 5,000 pods: seconds to deliver, 99th percentile", p99, at_most=1.5)
    report.table(
        "One API process and its WebSocket clients",
        (
            *("pods", "clients", "messages a second to each", "snapshot kB", "delta kB"),
            *("processors without clients", "processors", "resident MB", "kB a client"),
            *("s until all had a snapshot", "delay p50 s", "p99", "maximum"),
        ),
        rows,
    )
