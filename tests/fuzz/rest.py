"""The API under schemathesis: requests after services/api/openapi.json, and what those must not be."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import redis.asyncio as aredis

from services.flows.scope import Scope
from tests.support.redis_server import RedisServer
from tests.support.served import serving
from tests.support.shard import Shard, change, peer, pod, report, talked

_CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
_CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
)


async def filled(redis: aredis.Redis) -> Shard:
    """A shard of two pods that talked, with peers and an agent."""
    shard = Shard(redis)
    await shard.peers(1, peer("1.1.1.1", Scope.INTERNET, tx_bytes=500))
    await shard.commit(
        change(1, talked(tx_bytes=1000, tx_packets=2)),
        who={1: pod("web", ip="10.1.0.2", ips=("10.1.0.2",)), 2: pod("db", "data", "node-b")},
        nodes=(report(), report("node-b")),
    )
    return shard


def fuzzed(seconds: int) -> tuple[int, str]:
    """Requests made, and what broke; empty where nothing did."""
    with tempfile.TemporaryDirectory(prefix="podloxx-fuzz-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            return asyncio.run(_fuzzed(server, seconds, folder))
        finally:
            server.stop()


async def _fuzzed(server: RedisServer, seconds: int, folder: str) -> tuple[int, str]:
    redis = aredis.Redis(unix_socket_path=server.url.removeprefix("unix://"))
    await filled(redis)
    async with serving(server) as api:
        await api.ready()
        argv = [
            str(Path(sys.executable).parent / "st"),
            "--no-color",
            f"--config-file={_CONFIG}",
            "run",
            api.url("/openapi.json"),
        ]
        argv += [f"--max-time={seconds}", f"--checks={','.join(_CHECKS)}"]
        # A handshake without a WebSocket is an error that the page does not list.
        argv += ["--exclude-path=/traffic/ws", "--continue-on-failure"]
        argv += ["--warnings=off", "--max-examples=1000000", "--workers=1"]
        # It remembers what it did in the folder where it runs.
        done = await asyncio.to_thread(subprocess.run, argv, cwd=folder, capture_output=True, text=True, check=False)
        assert (await api.ask("/readyz")).status == 200
    await redis.aclose()
    return _requests(done.stdout), "" if done.returncode == 0 else done.stdout[-6000:] + done.stderr[-2000:]


def _requests(said: str) -> int:
    return sum(int(one.replace(",", "")) for one in re.findall(r"([\d,]+) generated", said))
