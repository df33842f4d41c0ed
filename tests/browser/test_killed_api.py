"""The API is killed under an open dashboard, and comes back on its port."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import redis.asyncio as aredis
from playwright.async_api import Page, expect

from tests.support import dashboard
from tests.support.redis_server import RedisServer
from tests.support.shard import Shard, change, pod, talked


def started(server: RedisServer, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """The API as a process, once it listens; and its port."""
    argv = [sys.executable, "-m", "services.api", "--log-format=json", f"--redis-url={server.url}", f"--port={port}"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if (said := json.loads(line))["event"] == "listening":
            return process, int(said["url"].rpartition(":")[2])
    ended(process)
    raise AssertionError("it does not listen")


def ended(process: subprocess.Popen[str]) -> None:
    """Killed as by kill -9."""
    process.kill()
    process.communicate()


async def test_it_reconnects_by_itself_and_goes_on(page: Page, redis_server: RedisServer) -> None:
    async with aredis.Redis(unix_socket_path=str(redis_server.socket)) as redis:
        shard = Shard(redis)
        await shard.commit(change(1, talked(tx_bytes=5_000)), who={1: pod("web-1")})
        process, port = started(redis_server)
        try:
            await dashboard.opened(page, f"http://127.0.0.1:{port}/?q=web&sort=name")
            await expect(dashboard.row(page, "web-1").locator(".rate")).to_have_text("5.00 kB")
            ended(process)
            await expect(page.get_by_role("alert")).to_contain_text("Not connected to podloxx")
            await expect(page.locator(".page.stale")).to_be_visible()
            await dashboard.visible_row(page)
            await expect(page.locator(".banner")).to_contain_text(re.compile(r"Next attempt in \d+ s"))
            await shard.commit(change(2, talked(tx_bytes=7_000)), who={2: pod("web-2")})
            process, _ = started(redis_server, port)
            # It is not told: it tries again by itself.
            await expect(dashboard.row(page, "web-2").locator(".rate")).to_have_text("7.00 kB", timeout=20_000)
            await expect(page.locator(".banner")).to_have_count(0)
            assert await dashboard.query(page) == "?q=web&sort=name"
        finally:
            ended(process)
