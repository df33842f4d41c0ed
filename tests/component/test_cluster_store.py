"""The Redis that is deployed to clusters starts with its configuration, and lets in just its users."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.flows.keys import Keys
from tests.support.wait import wait_until

FILES = Path(__file__).parents[2] / "k8s"
NAMES = Keys(0)


@pytest.fixture
def passwords(folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The port of a Redis as a pod would run it, and each user's password."""
    shutil.copytree(FILES, folder / "k8s", ignore=shutil.ignore_patterns("*.env*"))
    subprocess.run(["sh", str(folder / "k8s/make-secrets")], check=True)
    secret = dict(line.split("=", 1) for line in (folder / "k8s/base/redis.env").read_text().splitlines())
    for key in ("agent.acl", "aggregator.acl", "viewer.acl"):
        (folder / key).write_text(secret[key])
    objects = yaml.safe_load_all((FILES / "base/redis.yaml").read_text())
    [config] = [one["data"]["redis.conf"] for one in objects if one["kind"] == "ConfigMap"]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "redis.conf").write_text(
        config.replace("/etc/podloxx/users", str(folder))
        .replace("port 6379", f"port {port}")
        .replace("bind * -::*", "bind 127.0.0.1")
        .replace("dir /tmp", f"dir {folder}")
    )
    program = shutil.which("redis-server")
    assert program, "redis-server is not installed: run `make setup`"
    with (folder / "log").open("wb") as log, subprocess.Popen([program, folder / "redis.conf"], stdout=log) as process:
        try:
            wait_until(lambda: listens(port), "it listens")
            yield port, {user: secret[f"{user}.password"] for user in ("agent", "aggregator", "viewer")}
        finally:
            process.kill()


def listens(port: int) -> bool:
    """Whether somebody does at this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_its_users_get_in_and_may_what_they_need(passwords: tuple[int, dict[str, str]]) -> None:
    port, known = passwords
    clients = {user: redis.Redis(port=port, username=user, password=password) for user, password in known.items()}
    assert clients["agent"].xadd(NAMES.flows, {"seq": 1})
    assert clients["aggregator"].hset(NAMES.totals, "session", "1") == 1
    assert clients["viewer"].hgetall(NAMES.totals) == {b"session": b"1"}
    for user in known:
        with pytest.raises(redis.exceptions.NoPermissionError):
            clients[user].flushall()
        clients[user].close()


def test_nobody_else_gets_in(passwords: tuple[int, dict[str, str]]) -> None:
    port, known = passwords
    for user, password in ((None, None), ("viewer", known["agent"]), (None, known["agent"])):
        with (
            redis.Redis(port=port, username=user, password=password, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.exceptions.RedisError, match=r"(?i)auth|password"),
        ):
            client.ping()
