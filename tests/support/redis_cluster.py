"""A real Redis Cluster for a test: three masters on loopback, memory only."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any, Final

import redis

from tests.support.wait import wait_until

MASTERS: Final = 3
_SLOTS: Final = 16384
_BUS: Final = 10_000


class RedisCluster:
    """Its nodes, by the order in which they share the slots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports: list[int] = []
        self._processes: list[subprocess.Popen[bytes] | None] = []
        self._options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """What a service's --redis-url takes."""
        return f"redis-cluster://127.0.0.1:{self.ports[0]},127.0.0.1:{self.ports[1]}"

    def start(self, *options: str) -> None:
        """Start all, and wait until every slot has a node that answers; `options` are arguments of each redis-server."""
        self._options = options
        if known := bool(self.ports):
            self._processes = [process or self._node(number) for number, process in enumerate(self._processes)]
        else:
            self.ports = [_port() for _ in range(MASTERS)]
            self._processes = [self._node(number) for number in range(MASTERS)]
        try:
            for number in range(MASTERS):
                wait_until(lambda number=number: self._answers(number), f"node {number} answers")
            if not known:
                self._meet()
            wait_until(self._is_whole, "every slot is served")
        except BaseException:
            self.stop()
            raise

    def node_of(self, key: str) -> int:
        """Which node has a key."""
        with self.node(0) as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", key))
            ranges: Any = client.execute_command("CLUSTER SLOTS")
        [port] = [primary[1] for first, last, primary, *_ in ranges if first <= slot <= last]
        return self.ports.index(port)

    def kill(self, *numbers: int) -> None:
        """End nodes, all if none is named, without any chance to say goodbye."""
        for number in numbers or range(MASTERS):
            self._end(number, SIGKILL)

    def again(self, number: int) -> None:
        """Start a node that was killed; it has its slots, and nothing in them."""
        self._processes[number] = self._node(number)
        wait_until(self._is_whole, "every slot is served")

    def signal(self, number: int, what: Signals) -> None:
        """Send a node a signal."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(what)

    def move(self, key: str, to: int) -> None:
        """Give a key's slot, with all that is in it, to another node."""
        before = self.node_of(key)
        ids = [self._id(number) for number in range(MASTERS)]
        with self.node(before) as source, self.node(to) as target:
            slot = int(source.execute_command("CLUSTER", "KEYSLOT", key))
            target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[before])
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])
            while names := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.execute_command("MIGRATE", "127.0.0.1", self.ports[to], "", 0, 5000, "KEYS", *names)
            for number in (to, before, *range(MASTERS)):
                with self.node(number) as client:
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[to])

    def user(self, name: str, password: str, rules: str) -> None:
        """Give a user rights, with each node, since each has users of its own."""
        for number in range(MASTERS):
            with self.node(number) as client:
                client.execute_command("ACL", "SETUSER", name, "on", f">{password}", *rules.split())

    def forget_commands(self) -> None:
        """Count commands anew."""
        for number in range(MASTERS):
            with self.node(number) as client:
                client.config_resetstat()

    def commands(self, name: str) -> list[int]:
        """How often each node carried a command out."""
        found = []
        for number in range(MASTERS):
            with self.node(number) as client:
                stats: Any = client.info("commandstats")
                found.append(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)))
        return found

    def stop(self) -> None:
        """End all."""
        for number, process in enumerate(self._processes):
            if process is not None:
                self._end(number, SIGTERM)

    def _node(self, number: int) -> subprocess.Popen[bytes]:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed: run `make setup`"
        folder = self._folder / f"node-{number}"
        folder.mkdir(exist_ok=True)
        # A node that was killed finds in its file who it is and which slots it has.
        fixed = ["--port", str(self.ports[number]), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        cluster = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000"]
        with (folder / "redis.log").open("ab") as log:
            return subprocess.Popen([program, *fixed, *cluster, *self._options], stdout=log, cwd=folder)

    def _meet(self) -> None:
        for number in range(MASTERS):
            with self.node(number) as client:
                # Two nodes of one epoch would each think to be right.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", _ceiling(number), _ceiling(number + 1) - 1)
        with self.node(0) as client:
            for port in self.ports[1:]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", port)

    def _is_whole(self) -> bool:
        try:
            for number in range(MASTERS):
                with self.node(number) as client:
                    told = client.execute_command("CLUSTER INFO")
                    if told["cluster_state"] != "ok" or int(told["cluster_known_nodes"]) < MASTERS:
                        return False
        except redis.RedisError:
            return False
        return True

    def _id(self, number: int) -> str:
        with self.node(number) as client:
            found = client.execute_command("CLUSTER", "MYID")
            return found.decode() if isinstance(found, bytes) else str(found)

    def _answers(self, number: int) -> bool:
        try:
            with self.node(number) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def node(self, number: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(port=self.ports[number])

    def _end(self, number: int, what: Signals) -> None:
        process = self._processes[number]
        if process is not None:
            process.send_signal(what)
            process.wait()
            self._processes[number] = None


def _ceiling(number: int) -> int:
    """The first slot of a node."""
    return -(-number * _SLOTS // MASTERS)


def _port() -> int:
    """A free port whose bus port, ten thousand above, is free too."""
    while True:
        with socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + _BUS))
                return port


@contextlib.contextmanager
def running(folder: Path) -> Iterator[RedisCluster]:
    """A running one."""
    cluster = RedisCluster(folder)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
