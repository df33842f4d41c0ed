"""What is found of a named Redis, each time a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as aredis

from services.launcher.store import RULES
from services.runtime import redis_client, store_check
from services.runtime.errors import UsageError
from services.runtime.findings import Finding, State
from services.runtime.settings import CommonSettings
from tests.support.redis_server import RedisServer


async def found(server: RedisServer, **settings: str) -> dict[str, Finding]:
    """The findings, by what they are about."""
    listed = await store_check.look(CommonSettings(redis_url=server.url, **settings))  # type: ignore[arg-type]
    return {one.about: one for one in listed}


async def user(redis: aredis.Redis, folder: Path, rules: str) -> dict[str, str]:
    """The settings of a user who may do what `rules` say."""
    await redis.execute_command("ACL", "SETUSER", "somebody", "on", ">secret", *rules.split())  # type: ignore[no-untyped-call]
    password = folder / "password"
    password.write_text("secret\n")
    return {"redis_user": "somebody", "redis_password_file": str(password)}


async def test_one_that_suits_is_fine_and_left_as_it_was(redis_server: RedisServer, redis: aredis.Redis) -> None:
    await redis.config_set("maxmemory", "64mb")
    await redis.config_set("maxmemory-policy", "noeviction")
    told = await found(redis_server)
    assert {one.state for one in told.values()} == {State.OK}, told
    assert told["store memory"].text == "at most 64 MiB, noeviction"
    assert told["store version"].text.count(".") == 2
    assert await redis.dbsize() == 0
    # Nor is anything added to what there is.
    await redis.xadd("podloxx:{0}:flows", {"a": "b"})
    assert {one.state for one in (await found(redis_server)).values()} == {State.OK}
    assert await redis.xlen("podloxx:{0}:flows") == 1


async def test_no_bound_no_wish_to_keep_all_and_a_disk(redis_server: RedisServer, redis: aredis.Redis) -> None:
    await redis.config_set("maxmemory", "0")
    await redis.config_set("save", "3600 1")
    told = await found(redis_server)
    assert told["store memory"].state is State.WARNING
    assert "maxmemory 512mb" in told["store memory"].mend
    assert told["store persistence"].state is State.WARNING
    assert "save 3600 1" in told["store persistence"].text
    await redis.config_set("save", "")
    await redis.config_set("maxmemory", "64mb")
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    told = await found(redis_server)
    assert (told["store memory"].state, told["store persistence"].state) == (State.WARNING, State.OK)
    assert "noeviction" in told["store memory"].mend


async def test_a_full_one_takes_nothing(redis_server: RedisServer, redis: aredis.Redis) -> None:
    await redis.config_set("maxmemory", "1")
    told = await found(redis_server)
    assert told["store space"].state is State.PROBLEM
    assert told["store rights"].state is State.OK


async def test_the_agents_user_has_all_rights_and_no_other(
    redis_server: RedisServer, redis: aredis.Redis, folder: Path
) -> None:
    told = await found(redis_server, **await user(redis, folder, RULES["agent"]))
    assert {one.state for one in told.values()} == {State.OK}, told
    assert "may not ask" in told["store memory"].text
    assert "may not ask" in told["store persistence"].text
    # Nobody is denied the version.
    assert told["store version"].text.count(".") == 2


async def test_what_a_user_may_not_do_is_named(redis_server: RedisServer, redis: aredis.Redis, folder: Path) -> None:
    told = await found(redis_server, **await user(redis, folder, RULES["viewer"]))
    assert told["store rights"].state is State.PROBLEM
    assert told["store rights"].text == "refused: XADD podloxx:{0}:flows"
    assert "+xadd" in told["store rights"].mend


async def test_a_key_of_another_kind_in_its_place(redis_server: RedisServer, redis: aredis.Redis) -> None:
    await redis.set("podloxx:{0}:applied", "x")
    told = await found(redis_server)
    assert told["store rights"].state is State.PROBLEM
    assert "WRONGTYPE" in told["store rights"].text or "wrong kind" in told["store rights"].text


async def test_a_wrong_password_and_nobody_there(redis_server: RedisServer, redis: aredis.Redis, folder: Path) -> None:
    settings = await user(redis, folder, RULES["agent"])
    (folder / "password").write_text("other")
    [store] = (await found(redis_server, **settings)).values()
    assert store.state is State.PROBLEM
    assert "--redis-password-file" in store.mend
    redis_server.stop()
    [store] = (await found(redis_server)).values()
    assert store.state is State.PROBLEM
    assert redis_server.url in store.text
    with pytest.raises(UsageError):
        await store_check.look(CommonSettings(redis_url="nonsense"))


@contextlib.asynccontextmanager
async def answering(path: Path, hello: bytes = b"", other: bytes = b"") -> AsyncIterator[CommonSettings]:
    """The settings of something that answers HELLO and all other commands with just these bytes."""
    ended: list[asyncio.Event] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = asyncio.Event()
        ended.append(end)
        while data := await reader.read(4096):
            writer.write(hello if b"HELLO" in data else other * data.count(b"*"))
        writer.close()
        await writer.wait_closed()
        end.set()

    async with await asyncio.start_unix_server(talk, path):
        yield CommonSettings(redis_url=f"unix://{path}")
        for end in ended:
            await end.wait()


async def test_one_that_never_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_check, "_ANSWER_S", 0.1)
    async with answering(folder / "silent.sock") as settings:
        [store] = await store_check.look(settings)
    assert store.state is State.PROBLEM
    assert "no answer within" in store.text


@pytest.mark.parametrize(
    ("hello", "state"),
    [
        (b"*2\r\n$7\r\nversion\r\n$5\r\n5.0.7\r\n", State.PROBLEM),
        (b"*2\r\n$7\r\nversion\r\n$4\r\nnext\r\n", State.WARNING),
    ],
)
async def test_an_old_one_and_one_of_another_kind(folder: Path, hello: bytes, state: State) -> None:
    # It knows nothing of configuration.
    async with answering(folder / "other.sock", hello, b"-ERR no such command\r\n") as settings:
        redis = redis_client.connect(settings)
        assert (await store_check._version(redis)).state is state
        assert {one.state for one in await store_check._bounds(redis)} == {State.OK}
        await redis.aclose()


async def test_one_from_before_the_client_s_first_word(folder: Path) -> None:
    async with answering(folder / "old.sock", b"-ERR unknown command `HELLO`\r\n", b"+OK\r\n") as settings:
        [store] = await store_check.look(settings)
    assert (store.state, store.mend) == (State.PROBLEM, "use Redis 6.2 or later")


def test_doctor_looks_where_it_is_told_to(redis_server: RedisServer, folder: Path) -> None:
    doctor = [sys.executable, "-m", "services.launcher", "doctor", "--port=0", "--json"]
    # A password that none but us may read.
    (folder / "password").write_text("")
    (folder / "password").chmod(0o600)
    given = [f"--redis-url={redis_server.url}", f"--redis-password-file={folder / 'password'}"]
    done = subprocess.run([*doctor, *given], capture_output=True, text=True, check=False)
    about = [one["about"] for one in json.loads(done.stdout)["findings"]]
    assert about.count("store") == about.count("store rights") == 1
    done = subprocess.run([*doctor, given[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--redis-url" in done.stderr
