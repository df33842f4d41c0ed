"""The launcher on something that is no Linux: without its modules, its programs, its /proc and its socket options.

macOS itself is not run here, nor is Windows: every process of the test takes itself for one on macOS.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio as aredis

from services.launcher import session as own
from tests.support.forwarding_api import FakePod, ForwardingApi, served
from tests.support.launched import ROOT, alive, children_of, piped, port_told, sessions
from tests.support.shard import Shard, change, pod, talked
from tests.support.viewer_redis import viewer_redis
from tests.support.wait import until

# Python reads it before anything else, in every process that has its folder on the path.
ELSEWHERE = """
import io, builtins, os, socket, subprocess, sys, types
# What Linux alone has, and what the standard library wants of macOS.
sys.platform = "darwin"
sys.modules["_scproxy"] = types.SimpleNamespace(_get_proxy_settings=dict, _get_proxies=dict)
for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "SO_PEERCRED", "AF_PACKET", "AF_NETLINK"):
    if hasattr(socket, name):
        delattr(socket, name)
for name in ("pidfd_open", "setns", "unshare", "memfd_create", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pyroute2", "spwd"} or name.startswith("services.capture"):
            raise ModuleNotFoundError(f"{name} is not there: it is Linux's")

sys.meta_path.insert(0, Missing())
opened = io.open

def without_proc(file, *arguments, **named):
    if str(file).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", str(file))
    return opened(file, *arguments, **named)

io.open = builtins.open = without_proc
allowed = os.access
os.access = lambda path, *arguments, **named: str(path) != "/run" and allowed(path, *arguments, **named)
"""
# Where root has its sessions there. On this machine those of Linux are elsewhere: neither kind can tell whether the other lives.
SESSIONS = Path("/tmp")


@pytest.fixture(autouse=True)
def _there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "base", lambda: SESSIONS)


def elsewhere(folder: Path) -> dict[str, str]:
    """The environment of a process that is not on Linux; of programs there is only `ps`."""
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(ELSEWHERE)
    programs = folder / "bin"
    programs.mkdir()
    ps = shutil.which("ps")
    assert ps
    (programs / "ps").symlink_to(ps)
    return {"PYTHONPATH": f"{folder}/site:{ROOT}", "PATH": str(programs), "HOME": str(folder), "TMPDIR": str(folder)}


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`podloxx-launch open` that shows a pod, and the port of its page."""
    with viewer_redis(folder) as store:
        word = base64.b64encode(store.password.encode()).decode()
        async with aredis.Redis(port=store.port, username="aggregator", password=store.password) as redis:
            await Shard(redis).commit(change(1, talked(tx_bytes=1000)), who={1: pod("web")})
        fake = ForwardingApi({"redis-a": FakePod(store.port)}, secrets={"viewer.password": word})
        async with served(fake, folder):
            argv = [sys.executable, "-m", "services.launcher", "open", f"--kubeconfig={folder}/kubeconfig", "--port=0"]
            async with piped(*argv, "--no-browser", env=elsewhere(folder), cwd=folder) as process:
                yield process, await port_told(process, 30)


async def test_it_shows_a_cluster_where_nothing_of_linux_is_and_leaves_nothing(folder: Path) -> None:
    async with opened(folder) as (process, port):
        url = f"http://127.0.0.1:{port}/traffic/total"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            assert list(await answer.json()) == ["shop/web"]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            code = await process.wait()
        assert process.stderr is not None
        assert code == 0, (await process.stderr.read()).decode()
        assert process.pid not in sessions().values()


async def test_its_api_ends_with_a_launcher_that_was_killed(folder: Path) -> None:
    async with opened(folder) as (process, _):
        children = children_of(process.pid)
        assert children
        process.kill()
        await process.wait()
        await until(lambda: not any(map(alive, children)), "its API ends")
        # The next start removes what it left.
        assert process.pid in sessions().values()
        own.clean()
        assert process.pid not in sessions().values()
