"""The API as a process: how it starts, what it says, how it ends."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aredis

from tests.support.redis_server import RedisServer
from tests.support.served import free_port
from tests.support.shard import Shard, change, pod, talked
from tests.support.wait import wait_until


class Process:
    """`python -m services.api`."""

    def __init__(self, *arguments: str) -> None:
        argv = [sys.executable, "-m", "services.api", "--log-format=json", *arguments]
        self.popen = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []

    def event(self, name: str) -> dict[str, Any]:
        """The next log line of an event."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line)
            if line.startswith("{") and (found := json.loads(line))["event"] == name:
                return dict(found)
        raise AssertionError(f"no {name} in {self.lines}")

    def ended(self) -> tuple[int, list[str]]:
        """Exit code, and what it wrote since."""
        _, rest = self.popen.communicate(timeout=15)
        return self.popen.returncode, rest.splitlines()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """What a test started; it is ended."""
    started: list[Process] = []
    yield started
    for one in started:
        one.popen.kill()
        one.popen.communicate()


def get(port: int, path: str) -> tuple[int, Any]:
    """Status and JSON of an answer; status 0 while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except OSError:
        return 0, None
    finally:
        connection.close()


async def test_it_serves_and_ends_in_order(
    redis_server: RedisServer, redis: aredis.Redis, folder: Path, processes: list[Process]
) -> None:
    shard = Shard(redis)
    await shard.commit(change(1, talked(tx_bytes=1000)), who={1: pod("web")})
    beat = folder / "beat"
    one = Process(f"--redis-url={redis_server.url}", "--port=0", f"--heartbeat-file={beat}")
    processes.append(one)
    url = one.event("listening")["url"]
    port = int(url.rpartition(":")[2])
    assert url == f"http://127.0.0.1:{port}"
    wait_until(lambda: get(port, "/readyz")[0] == 200, "it is ready")
    assert get(port, "/traffic/total")[1]["shop/web"]["transmitBytes"] == 1000
    wait_until(beat.exists, "it touches the heartbeat file")
    one.popen.send_signal(signal.SIGTERM)
    code, lines = one.ended()
    assert code == 0, lines
    assert json.loads(lines[-1])["event"] == "ended"
    assert get(port, "/healthz")[0] == 0


def test_a_port_that_is_taken(redis_server: RedisServer, processes: list[Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        processes.append(Process(f"--redis-url={redis_server.url}", f"--port={port}"))
        code, lines = processes[0].ended()
    assert code == 2
    assert lines[-1] == (f"api: port {port} on 127.0.0.1 is in use: end what uses it, or choose another with --port")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port=65536"], "--port 65536 is no port: they go from 0 to 65535"),
        (["--listen=127.0.0.1", "--token-file=/nowhere/token"], "cannot read --token-file"),
        (["--listen=0.0.0.0"], "give --token-file"),
        (["--listen=x"], "is no IP address"),
        (["--redis-url=ftp://x"], "is no Redis address"),
        (["--heartbeat-file=/nowhere/beat"], "cannot write --heartbeat-file"),
    ],
)
def test_what_is_wrong_ends_in_one_sentence(arguments: list[str], words: str, processes: list[Process]) -> None:
    processes.append(Process("--port=0", *arguments))
    code, lines = processes[0].ended()
    assert code == 2, lines
    assert words in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_an_address_of_another_machine(folder: Path, processes: list[Process]) -> None:
    (folder / "token").write_text("x")
    more = [f"--token-file={folder / 'token'}", "--allowed-hosts=a.example"]
    processes.append(Process("--listen=192.0.2.1", f"--port={free_port()}", *more))
    code, lines = processes[0].ended()
    assert (code, lines[-1]) == (2, "api: --listen 192.0.2.1 is no address of this machine")
