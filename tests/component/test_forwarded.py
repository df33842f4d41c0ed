"""A session's store through a port-forward: proven by its own Redis, and shown by an API on this machine."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher import forwarded
from services.launcher.run import Wanted
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.redis_client import StoreError
from tests.support.forwarding_api import FakePod, ForwardingApi, served
from tests.support.viewer_redis import Redis, viewer_redis
from tests.support.wait import until


@pytest.fixture
def store(folder: Path) -> Iterator[Redis]:
    with viewer_redis(folder) as one:
        yield one


def kept(folder: Path, word: str) -> Path:
    """A file with a password, in a folder as a session's."""
    path = folder / "viewer.password"
    path.write_text(word)
    return path


async def test_the_sessions_own_redis_answers_with_what_it_was_asked(store: Redis, folder: Path) -> None:
    await forwarded._answers(forwarded.Forwarded(store.port, kept(folder, store.password)))


async def test_another_sessions_redis_is_no_answer(store: Redis, folder: Path) -> None:
    with pytest.raises(StoreError, match="asking Redis: Redis refused"):
        await forwarded._answers(forwarded.Forwarded(store.port, kept(folder, "another_word")))


async def test_somebody_else_who_listens_there_is_no_answer(folder: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(PodloxxError):
            await forwarded._answers(forwarded.Forwarded(port, kept(folder, "word")))


async def test_the_way_tells_in_a_file_why_it_is_interrupted(store: Redis, folder: Path) -> None:
    fake = ForwardingApi({"redis-a": FakePod(store.port)})
    told: list[str] = []
    async with served(fake, folder) as api:
        word = kept(folder, store.password)
        async with forwarded.way(api, "podloxx", word, asyncio.Event(), told.append) as forward:
            assert forward.problem == ""
            # That it is open is said only after it was not.
            assert told == []
            fake.pods = {}
            await forward.end()
            await until(lambda: told, "it tells")
            assert "no pod of redis in namespace podloxx is Ready" in (folder / forwarded.WAY_FILE).read_text()
            fake.pods = {"redis-b": FakePod(store.port)}
            await until(lambda: len(told) > 1, "it tells")
            assert told[1] == "the way into the cluster is open again"
            assert (folder / forwarded.WAY_FILE).read_text() == ""


async def test_a_way_that_does_not_open_is_an_error_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarded, "_READY_S", 1.5)
    async with served(ForwardingApi({"redis-a": FakePod(None)}), folder) as api:
        with pytest.raises(
            PodloxxError, match=r"connection refused.*Next: see whether `kubectl -n podloxx port-forward"
        ):
            async with forwarded.way(api, "podloxx", kept(folder, "word"), asyncio.Event(), print):
                pass


async def test_only_the_viewer_reads_through_it(folder: Path) -> None:
    with pytest.raises(KeyError):
        forwarded.Forwarded(1, folder).settings("agent")


async def test_the_password_is_the_namespaces(folder: Path) -> None:
    fake = ForwardingApi(secrets={"viewer.password": base64.b64encode(b"word").decode()})
    async with served(fake, folder) as api:
        assert await forwarded.password(api, "podloxx") == "word"
        fake.secrets = {"something": "else"}
        with pytest.raises(PodloxxError, match="the Secret redis in namespace podloxx is not podloxx's"):
            await forwarded.password(api, "podloxx")
        fake.secrets = None
        with pytest.raises(UsageError, match="podloxx does not run in the namespace podloxx: `podloxx-launch start`"):
            await forwarded.password(api, "podloxx")


async def test_a_rig_leaves_no_process_and_no_file(store: Redis, folder: Path) -> None:
    word = base64.b64encode(store.password.encode()).decode()
    fake = ForwardingApi({"redis-a": FakePod(store.port)}, secrets={"viewer.password": word})
    wanted = Wanted(0, "127.0.0.1", browser=False, for_s=None, verbose=False, store_memory="", api={}, aggregator={})
    async with served(fake, folder) as api:
        async with forwarded.rig(api, "podloxx", wanted, asyncio.Event(), print) as one:
            where = one.session.folder
            assert (where / "viewer.password").stat().st_mode & 0o077 == 0
            child = await one.service("api", {"listen": "127.0.0.1", "port": 0, **one.way})
        assert child.process.returncode is not None
        assert not where.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(child.process.pid, 0)
