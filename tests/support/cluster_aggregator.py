"""An aggregator's process that learns from a cluster, and what it says of pods' peers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.flows import peer_store, traffic
from services.flows.traffic import ROW_COUNTERS, Peer, Row
from tests.support.agents import NAMES
from tests.support.redis_server import RedisServer

_TX: Final = ROW_COUNTERS.index("tx_bytes")


@dataclass(frozen=True, slots=True)
class ClusterAggregator:
    """Starts the service with a kubeconfig; `arguments` are further ones."""

    redis: RedisServer
    kubeconfig: Path
    arguments: tuple[str, ...] = ()

    @contextmanager
    def running(self) -> Iterator[int]:
        """The process by its id, killed at the end; what it wrote is shown where the test fails."""
        argv = [
            *(sys.executable, "-m", "services.aggregator", "--lease-ttl-s=1"),
            *(f"--redis-url={self.redis.url}", f"--kubeconfig={self.kubeconfig}", *self.arguments),
        ]
        with tempfile.TemporaryFile() as log, subprocess.Popen(argv, stderr=log) as process:
            try:
                yield process.pid
                assert process.poll() is None, "it ended by itself"
            finally:
                process.kill()
                process.wait()
                log.seek(0)
                sys.stderr.write(log.read().decode())


async def now_s(redis: Any) -> int:
    """Redis's time, whole seconds."""
    return int((await redis.time())[0])


async def rows(redis: Any) -> list[Row]:
    """All rows of the store."""
    stored = await redis.hgetall(NAMES.totals)
    return [traffic.decode_row(int(name[4:]), value) for name, value in stored.items() if name.startswith(b"row:")]


async def peers(redis: Any, pod: str) -> list[Peer]:
    """The peers of the pods with a name."""
    named = [row for row in await rows(redis) if row.identity.pod == pod]
    return [peer for row in named for peer in peer_store.decode_peers(await redis.hgetall(NAMES.peers(row.number)))]


def sent(peer: Peer) -> int:
    """The bytes that the pod sent to a peer."""
    return int(peer.counts[_TX])
