"""An agent whose Redis does not answer goes on counting, and finds pods that come meanwhile."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from services.capture import publisher
from services.flows import keys, wire
from tests.support import generators as frames
from tests.support.netns import Namespace, namespaces, veth
from tests.support.redis_proxy import RedisProxy, Way
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

_TYPE: Final = 0x88B5


@dataclass
class Apart:
    """An agent of the node, and its way to Redis."""

    node: Namespace
    log: Path
    server: RedisServer
    proxy: RedisProxy

    def attached(self, interface: str) -> bool:
        """Whether it watches an interface."""
        told = [json.loads(line) for line in self.log.read_text().splitlines()]
        return any(one["event"] == "attached" and one["interface"] == interface for one in told)

    def sent(self) -> dict[str, int]:
        """Frames of our type by interface, in all batches that reached Redis, each once."""
        found: dict[str, int] = {}
        with redis.Redis(unix_socket_path=str(self.server.socket)) as client:
            entries: Any = client.xrange(keys.Keys(0).flows)
        batches = {batch.seq: batch for batch in (wire.decode(fields[keys.FIELD_BATCH]) for _, fields in entries)}
        for window in (window for batch in batches.values() for window in batch.windows):
            names = {one.id: one.interface for one in window.attachments}
            for row in window.flows[window.flows["port"] == _TYPE]:
                name = names[int(row["attachment"])]
                found[name] = found.get(name, 0) + int(row["tx_packets"])
        return found


@pytest.fixture
def apart(redis_server: RedisServer, folder: Path) -> Iterator[Apart]:
    with contextlib.ExitStack() as stack:
        [node] = stack.enter_context(namespaces("node"))
        proxy = stack.enter_context(RedisProxy(folder / "proxy.sock", redis_server.socket))
        flags = ("--node=a", f"--redis-url={proxy.url}", "--log-format=json", "--interface-prefix=veth")
        log = folder / "agent.log"
        with log.open("wb") as out:
            argv = node.command(sys.executable, "-m", "services.capture", *flags)
            process = stack.enter_context(subprocess.Popen(argv, stderr=out))
        stack.callback(process.kill)
        one = Apart(node, log, redis_server, proxy)
        wait_until(lambda: proxy.did["connected"], "it reached Redis")
        yield one


@pytest.mark.parametrize("way", [Way.STALL, Way.DEAF])
def test_pods_that_come_while_redis_does_not_answer_are_counted_at_once(apart: Apart, way: Way) -> None:
    with namespaces("pod") as (pod,):
        apart.proxy.set(way)
        wait_until(lambda: apart.proxy.did["stalled"] + apart.proxy.did["unanswered"], "the agent waits for Redis")
        for number in range(4):
            veth(apart.node, f"veth{number}", pod, pod_name=f"eth{number}")
            # Less than it takes until Redis is given up: else each of them might come just after that.
            most_s = 0.8 * publisher._ROUND_S
            wait_until(lambda number=number: apart.attached(f"veth{number}"), "it is watched", timeout_s=most_s)
            frames.inject(pod, f"eth{number}", [frames.ethernet(_TYPE, bytes(50))] * (number + 1))
        apart.proxy.set(Way.PASS)
        wanted = {f"veth{number}": number + 1 for number in range(4)}
        wait_until(lambda: apart.sent() == wanted, "all that passed meanwhile is sent", timeout_s=20)
