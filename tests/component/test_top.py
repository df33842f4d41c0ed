"""`podloxx-launch top` beside a page that runs: the API's own messages, in a terminal's lines."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as aredis

from tests.support.launched import ROOT, piped
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shard import Shard, change, peer, pod, talked


@pytest.fixture
async def page(redis_server: RedisServer, redis: aredis.Redis) -> AsyncIterator[Served]:
    """An API with two pods."""
    shard = Shard(redis)
    both = {1: pod("web"), 2: pod("db")}
    await shard.peers(1, peer("10.1.0.9", port=80))
    await shard.peers(2, peer("10.1.0.9", port=5432))
    await shard.commit(change(1, talked(tx_bytes=1000)), change(2, talked(tx_bytes=5000)), who=both)
    async with serving(redis_server) as served:
        await served.ready()
        yield served


async def ran(*arguments: str) -> tuple[int, str, str]:
    """Exit code and what was said."""
    argv = [sys.executable, "-m", "services.launcher", "top", *arguments]
    async with piped(*argv, cwd=ROOT) as process:
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_pods_of_a_page_are_ranked(page: Served) -> None:
    code, out, err = await ran(f"--url={page.url('')}", "--once")
    assert code == 0, err
    head, names, *found = out.strip().splitlines()
    assert head.startswith("2 of 2 pods")
    assert names.split()[0] == "pod"
    assert [line.split()[0] for line in found] == ["shop/db", "shop/web"]
    assert found[0].split()[-2:] == ["5.0", "kB"]


async def test_a_filter_leaves_what_fits(page: Served) -> None:
    code, out, _ = await ran(f"--url={page.url('')}", "--once", "--filter=-db")
    assert (code, [line.split()[0] for line in out.strip().splitlines()[2:]]) == (0, ["shop/web"])


async def test_ports_are_asked_for_where_the_filter_names_them(page: Served) -> None:
    code, out, err = await ran(f"--url={page.url('')}", "--once", "--filter=port:5432")
    assert (code, [line.split()[0] for line in out.strip().splitlines()[2:]]) == (0, ["shop/db"]), err


async def test_it_goes_on_until_its_time_is_over(page: Served) -> None:
    code, out, err = await ran(f"--url={page.url('')}", "--for=2.5s")
    assert code == 0, err
    assert out.count("2 of 2 pods") >= 2


async def test_a_page_that_wants_a_token_gets_it(redis_server: RedisServer, redis: aredis.Redis, folder: Path) -> None:
    await Shard(redis).commit(change(1, talked(tx_bytes=1000)), who={1: pod("web")})
    token = folder / "token"
    token.write_text("word")
    async with serving(redis_server, token_file=str(token)) as served:
        url = f"--url={served.url('')}"
        code, _, err = await ran(url, "--once")
        assert code == 1
        assert "HTTP 401" in err
        assert "--token-file" in err
        code, out, err = await ran(url, "--once", f"--token-file={token}")
        assert code == 0, err
        assert "shop/web" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--url=127.0.0.1"], "is no address of a page"),
        (["--url=http://127.0.0.1:1", "--once"], "cannot be reached"),
        (["--url=http://127.0.0.1:1", "--filter=port:80", "--once"], "cannot be reached"),
        (["--url=http://127.0.0.1:1", "--filter=ns:shop pod:web"], "there is no field pod:"),
        (["--url=http://127.0.0.1:1", "--token-file=/nowhere"], "cannot read --token-file /nowhere"),
    ],
)
async def test_what_is_wrong_is_told_in_a_sentence(arguments: list[str], sentence: str) -> None:
    code, _, err = await ran(*arguments)
    assert code in {1, 2}
    assert sentence in err
    assert "Traceback" not in err
