"""Aggregators as processes, and what they wrote into a shard."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.flows import history, keys, peer_store, traffic
from services.flows.keys import LEDGER, Keys
from services.flows.traffic import ROW_COUNTERS, Session
from tests.support.agents import NAMES, SHARDS, ScriptedAgent, attachment, flow, window
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.wait import until
from tests.support.worlds import CONTENT

WEB: Final = attachment(1, "10.1.0.2")
_TX: Final = ROW_COUNTERS.index("tx_bytes")


class Aggregators:
    """The service as processes of one shard."""

    def __init__(self, server: RedisServer | RedisCluster, folder: Path) -> None:
        (folder / "addresses.json").write_text(json.dumps(CONTENT))
        self.heartbeat = folder / "heartbeat"
        self._arguments = [
            f"--redis-url={server.url}",
            f"--directory-file={folder / 'addresses.json'}",
            f"--heartbeat-file={self.heartbeat}",
            "--lease-ttl-s=1",
        ]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.others: list[subprocess.Popen[bytes]] = []
        """Where nodes are divided over several shards, the owners of all but the one that is tested."""

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start one more."""
        argv = [sys.executable, "-m", "services.aggregator", *self._arguments, *more]
        self.processes.append(subprocess.Popen(argv, stderr=subprocess.PIPE))
        return self.processes[-1]

    def end(self) -> None:
        """Kill what still runs."""
        for process in (*self.processes, *self.others):
            process.kill()
            process.communicate()

    async def own_others(self, redis: Any) -> None:
        """Start owners of all shards but the one of `NAMES`, and of the ledger."""
        self._arguments.append(f"--shards={SHARDS}")
        names = [*map(Keys, range(SHARDS)), Keys(LEDGER)]
        await _all_begun(redis, names)
        for _ in names[1:]:
            self.start()
        self.others, self.processes = self.processes, []
        await until(lambda: _all_begun(redis, [one for one in names if one != NAMES]), "the others have begun", 30)
        await redis.delete(NAMES.lease)


async def _all_begun(redis: Any, names: Sequence[Keys]) -> bool:
    # Whoever looks is to find that one taken.
    await redis.set(NAMES.lease, "nobody", px=900)
    return all([await redis.hexists(one.totals, "session") for one in names])


async def begun(redis: Any, aggregators: Aggregators, size: int) -> ScriptedAgent:
    """Start an aggregator; the agent whose first batch, of `size` bytes, it has applied."""
    aggregators.start()
    agent = ScriptedAgent()
    await agent.send(redis, batch_of(agent, size))
    await until(lambda: applied(redis), "the first batch is applied")
    return agent


async def applied(redis: Any, boot: str = "boot-a") -> int:
    """The applied number of a boot id."""
    return int(await redis.hget(NAMES.applied, boot) or 0)


async def sent(redis: Any) -> int:
    """All tx bytes in the rows."""
    stored = await redis.hgetall(NAMES.totals)
    rows = [traffic.decode_row(int(f[4:]), value) for f, value in stored.items() if f.startswith(b"row:")]
    return sum(counts[_TX] for row in rows for counts in row.totals.values())


async def peers_sent(redis: Any, row: int = 1) -> int:
    """All tx bytes in a row's peers."""
    return sum(peer.counts[_TX] for peer in peer_store.decode_peers(await redis.hgetall(NAMES.peers(row))))


async def history_sent(redis: Any) -> int:
    """All tx bytes in the history."""
    buckets = [history.decode(value) for value in await redis.hvals(NAMES.history)]
    return sum(pair[0] for bucket in buckets for scopes in bucket.values() for pair in scopes.values())


async def ticks(redis: Any) -> list[traffic.Tick]:
    """The ticks of the store."""
    return [traffic.decode_tick(entry[keys.FIELD_TICK]) for _, entry in await redis.xrange(NAMES.ticks)]


async def ticked(redis: Any) -> int:
    """All tx bytes in the ticks."""
    changes = [change for tick in await ticks(redis) for change in tick.changes]
    return sum(counts[_TX] for change in changes for counts in change.added.values())


async def session(redis: Any) -> Session:
    """The stored session."""
    return traffic.decode_session(await redis.hget(NAMES.totals, "session"))


async def is_(value: Any, expected: object) -> bool:
    """Whether an awaited value is the expected one."""
    return bool(await value == expected)


def batch_of(agent: ScriptedAgent, size: int) -> Any:
    """A batch with `size` bytes sent to the internet."""
    return agent.batch(window([WEB], flow(1, "1.1.1.1", tx=size), second=agent.seq))
