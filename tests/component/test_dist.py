"""What `make dist` packs is all that it takes besides a Python: it runs where nothing of ours is."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio as aredis

from tests.support.forwarding_api import FakePod, ForwardingApi, served
from tests.support.launched import ROOT, piped, port_told
from tests.support.shard import Shard, change, pod, talked
from tests.support.viewer_redis import viewer_redis


@pytest.fixture(scope="module")
def packed() -> Iterator[Path]:
    """The file."""
    environ = {**os.environ, "VENV": sys.prefix}  # noqa: TID251
    done = subprocess.run(
        ["bash", "scripts/build-dist"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    path = ROOT / done.stdout.split()[-2].rstrip(",")
    yield path
    path.unlink()


def nothing(folder: Path) -> dict[str, str]:
    """The environment of somebody who has nothing but the system's programs."""
    return {"HOME": str(folder), "PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"}


@pytest.mark.timeout(120)
def test_it_says_its_version(packed: Path, folder: Path) -> None:
    done = subprocess.run(
        [str(packed), "version"],
        cwd=folder,
        env=nothing(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("podloxx 0."), done.stderr
    assert os.access(packed, os.X_OK)


@pytest.mark.timeout(120)
async def test_it_shows_a_cluster(packed: Path, folder: Path) -> None:
    with viewer_redis(folder) as store:
        word = base64.b64encode(store.password.encode()).decode()
        async with aredis.Redis(port=store.port, username="aggregator", password=store.password) as redis:
            await Shard(redis).commit(change(1, talked(tx_bytes=1000)), who={1: pod("web")})
        fake = ForwardingApi({"redis-a": FakePod(store.port)}, secrets={"viewer.password": word})
        async with served(fake, folder):
            argv = [str(packed), "open", f"--kubeconfig={folder}/kubeconfig", "--port=0", "--no-browser"]
            async with piped(*argv, env=nothing(folder), cwd=folder) as process:
                port = await port_told(process, 60)
                url = f"http://127.0.0.1:{port}"
                async with aiohttp.ClientSession() as client:
                    async with client.get(f"{url}/traffic/total") as answer:
                        assert list(await answer.json()) == ["shop/web"]
                    async with client.get(f"{url}/") as answer:
                        assert answer.status == 200
                process.send_signal(signal.SIGINT)
                async with asyncio.timeout(30):
                    assert await process.wait() == 0
