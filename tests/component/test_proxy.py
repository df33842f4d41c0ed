"""A cluster behind an HTTP proxy: every request and the port-forward's upgrade go through its CONNECT."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio as aredis

from tests.support.connect_proxy import ConnectProxy, proxying
from tests.support.forwarding_api import FakePod, ForwardingApi, listening
from tests.support.launched import PROGRAM, ROOT, piped, port_told
from tests.support.shard import Shard, change, pod, talked
from tests.support.viewer_redis import viewer_redis

NAME = "lab.plx.invalid"
USER = "anna:s3cret"


@contextlib.asynccontextmanager
async def opening(kubeconfig: Path, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`podloxx-launch open`, on its way."""
    argv = [str(PROGRAM), "open", f"--kubeconfig={kubeconfig}", "--port=0", "--no-browser"]
    around = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(kubeconfig.parent), **environ}
    async with piped(*argv, cwd=ROOT, env=around) as process:
        yield process


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[ForwardingApi]:
    """A cluster whose Redis has a pod."""
    with viewer_redis(folder) as one:
        word = base64.b64encode(one.password.encode()).decode()
        async with aredis.Redis(port=one.port, username="aggregator", password=one.password) as redis:
            await Shard(redis).commit(change(1, talked(tx_bytes=1000)), who={1: pod("web")})
        yield ForwardingApi({"redis-a": FakePod(one.port)}, secrets={"viewer.password": word})


@pytest.mark.parametrize("user", ["", USER])
async def test_a_cluster_is_shown_through_it(store: ForwardingApi, folder: Path, user: str) -> None:
    async with listening(store, folder, NAME) as kubeconfig:
        async with proxying(ConnectProxy({f"{NAME}:6443": store.port}, user)) as through:
            named = f"http://{user}@127.0.0.1:{through.port}" if user else f"http://127.0.0.1:{through.port}"
            async with opening(kubeconfig, HTTPS_PROXY=named) as process:
                url = f"http://127.0.0.1:{await port_told(process, 30)}/traffic/total"
                async with aiohttp.ClientSession() as client, client.get(url) as answer:
                    assert list(await answer.json()) == ["shop/web"]
                process.send_signal(signal.SIGINT)
                _, err = await asyncio.wait_for(process.communicate(), 30)
                assert process.returncode == 0, err.decode()
        assert set(through.asked) == {f"CONNECT {NAME}:6443"}
        assert store.asked


@pytest.mark.parametrize(
    ("user", "refusal", "sentence"),
    [
        (USER, "", "407 Proxy Authentication Required"),
        ("", "403 Forbidden by policy", "403 Forbidden by policy"),
    ],
)
async def test_one_that_refuses_is_named(folder: Path, user: str, refusal: str, sentence: str) -> None:
    api = ForwardingApi()
    async with (
        listening(api, folder, NAME) as kubeconfig,
        proxying(ConnectProxy({f"{NAME}:6443": api.port}, user, refusal)) as through,
    ):
        named = f"http://bert:w0rd@127.0.0.1:{through.port}"
        async with opening(kubeconfig, HTTPS_PROXY=named) as process:
            _, err = await asyncio.wait_for(process.communicate(), 30)
    said = err.decode()
    assert process.returncode == 1
    assert f"the proxy http://127.0.0.1:{through.port} (HTTPS_PROXY) does not let us through: {sentence}. " in said
    assert "w0rd" not in said
    assert "Traceback" not in said


async def test_one_that_is_away_is_named_and_no_proxy_goes_past_it(folder: Path) -> None:
    async with listening(ForwardingApi(), folder, NAME) as kubeconfig:
        async with opening(kubeconfig, HTTPS_PROXY="http://127.0.0.1:1") as process:
            _, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 1
        assert (
            f"https://{NAME}:6443 is asked through a proxy, and the proxy http://127.0.0.1:1 (HTTPS_PROXY)"
            in err.decode()
        )
        async with opening(kubeconfig, HTTPS_PROXY="http://127.0.0.1:1", NO_PROXY=f".other,{NAME}") as process:
            _, err = await asyncio.wait_for(process.communicate(), 30)
        # Nobody knows the name, so it was not reached; but nobody asked the proxy.
        assert "cannot be reached: Cannot connect to host" in err.decode()
        assert "the proxy" not in err.decode()
