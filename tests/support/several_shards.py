"""A cluster whose nodes are divided over three shards: two agents, and what is in Redis of it."""

from __future__ import annotations

import subprocess
from typing import Any

from services.flows import keys, traffic
from services.flows.delta import Rows
from services.flows.keys import Keys, shard_of
from services.flows.traffic import Session
from tests.support.agents import ScriptedAgent, attachment, fields, flow, window
from tests.support.aggregators import Aggregators
from tests.support.wait import until

SHARDS = 3
WEB, DB = attachment(1, "10.1.0.2"), attachment(1, "10.2.0.2")
ROLES = (*map(Keys, range(SHARDS)), Keys(keys.LEDGER))


class Two:
    """An agent on each of two nodes, whose pods talk with each other."""

    def __init__(self, redis: Any, began: int = 0) -> None:
        """They begin to talk in a second of Redis's time."""
        self.redis, self.began = redis, began
        self.agents = {node: ScriptedAgent(node, f"boot-{node}") for node in ("node-a", "node-b")}
        self.sent = 0

    async def talk(self, size: int) -> None:
        """The one pod sends some to the other one, and a tenth of it to the internet; both agents tell."""
        to_db = flow(1, "10.2.0.2", tx=size), flow(1, "1.1.1.1", tx=size // 10)
        await self._tell("node-a", WEB, *to_db)
        await self._tell("node-b", DB, flow(1, "10.1.0.2", rx=size, local="10.2.0.2"))
        self.sent += size + size // 10

    async def greet(self) -> None:
        """Both agents tell of their interfaces, and the ledger knows them: of who was never heard nobody waits for reports."""
        for node, point in (("node-a", WEB), ("node-b", DB)):
            await self._tell(node, point)
        names = [f"sights:{agent.boot}" for agent in self.agents.values()]
        await until(lambda: self._known(names), "the ledger knows both interfaces")

    async def _known(self, names: list[str]) -> bool:
        return None not in await self.redis.hmget(Keys(keys.LEDGER).totals, names)

    async def applied(self) -> bool:
        """Whether all that was told is in the totals of its shard."""
        found = [
            await self.redis.hget(Keys(shard_of(node, SHARDS)).applied, agent.boot)
            for node, agent in self.agents.items()
        ]
        return [int(one or 0) for one in found] == [agent.seq for agent in self.agents.values()]

    async def again(self) -> None:
        """What is not applied is sent again, as agents do."""
        for node, agent in self.agents.items():
            names = Keys(shard_of(node, SHARDS))
            done = int(await self.redis.hget(names.applied, agent.boot) or 0)
            for batch in agent.sent[done:]:
                await self.redis.xadd(names.flows, fields(batch, done))

    async def _tell(self, node: str, point: Any, *rows: Rows) -> None:
        agent = self.agents[node]
        batch = agent.batch(window([point], *rows, second=self.began + agent.seq))
        await self.redis.xadd(Keys(shard_of(node, SHARDS)).flows, fields(batch))


async def sessions(redis: Any) -> list[Session]:
    """Of all shards and the ledger, as far as they have begun."""
    found = [await redis.hget(names.totals, "session") for names in ROLES]
    return [traffic.decode_session(one) for one in found if one is not None]


async def total(redis: Any) -> tuple[int, int]:
    """Bytes in the cluster's totals, and those that are not decided yet."""
    known = await sessions(redis)
    counts = [counts for one in known for counts in one.cluster.values()]
    return sum(one[0] + one[1] for one in counts), sum(one.pending_bytes for one in known)


async def all_own(redis: Any) -> bool:
    """Whether every shard and the ledger has an owner and a session."""
    return len(await sessions(redis)) == len(ROLES)


async def owners(redis: Any) -> list[bytes | None]:
    """The token of each one's owner."""
    return [await redis.get(names.lease) for names in ROLES]


async def taken_over(redis: Any, before: list[bytes | None]) -> bool:
    """Whether all have an owner, and not all the same one."""
    now = await owners(redis)
    return None not in now and now != before


def start(aggregators: Aggregators, number: int = len(ROLES)) -> list[subprocess.Popen[bytes]]:
    """So many more aggregators."""
    return [aggregators.start(f"--shards={SHARDS}") for _ in range(number)]


async def settled(two: Two) -> None:
    """Wait until the totals are what was sent."""
    await until(two.applied, "all batches are applied", timeout_s=20)
    await until(lambda: is_total(two, (two.sent, 0)), "the cluster's totals are what was sent", timeout_s=20)


async def is_total(two: Two, expected: tuple[int, int]) -> bool:
    """Whether the cluster's totals, and what is not decided yet, are so."""
    return await total(two.redis) == expected
