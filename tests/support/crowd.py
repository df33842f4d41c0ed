"""Thousands of pods that talk all the time, as an aggregator would tell of them: the API's side of a large cluster."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from services.flows import keys, traffic
from services.flows.scope import Scope
from services.flows.traffic import Identity, RowChange, Tick
from tests.support.shard import NAMES, SECOND, Shard, counts, report

_SCOPES: Final = (Scope.SAME_ZONE, Scope.SERVICE, Scope.INTERNET)
PARTS: Final = 4
"""Ticks in a second; each is about every fourth node."""


@dataclass
class Crowd:
    """`pods` on `nodes`, all of which change once a second."""

    redis: Any
    pods: int
    nodes: int
    padding: str = ""
    """What is added to every pod's name."""
    epoch: int = 7
    n: int = 1
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def identity(self, number: int) -> Identity:
        """As pods of a Deployment look like."""
        owner = f"service-{number // 5}"
        name = f"{owner}-{number * 7919 % 0xFFFF:08x}f{self.padding}-{number % 100_000:05d}"
        namespace, node = f"team-{number % 40}", f"ip-10-0-{self._node(number)}.internal"
        labels = (
            ("app", owner),
            ("pod-template-hash", f"{number // 5:010x}"),
            ("team", namespace),
            ("tier", "backend"),
        )
        return Identity(
            uid=f"00000000-0000-4000-8000-{number:012d}",
            namespace=namespace,
            pod=name,
            node=node,
            zone=f"eu-central-1{'abc'[self._node(number) % 3]}",
            region="eu-central-1",
            ip=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            ips=(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",),
            interface=f"eni{number:011x}",
            owner_kind="Deployment",
            owner_name=owner,
            labels=labels,
            started_us=1_700_000_000 * SECOND,
        )

    async def begin(self) -> None:
        """The session and its first tick."""
        shard = Shard(self.redis, self.epoch)
        await shard.commit(
            who={number: self.identity(number) for number in range(1, self.pods + 1)}, nodes=self._reports()
        )
        self.n = shard.n

    async def tick(self, part: int, *, parts: int = PARTS) -> tuple[int, int]:
        """One commit of the `part`th of `parts` nodes; its number and its time."""
        self.n += 1
        seconds, micros = await self.redis.time()
        tick = Tick(
            epoch=self.epoch,
            n=self.n,
            at_us=int(seconds) * SECOND + int(micros),
            changes=tuple(
                self._change(number) for number in range(1, self.pods + 1) if self._node(number) % parts == part
            ),
            nodes=tuple(one for at, one in enumerate(self._reports()) if at % parts == part),
        )
        await self.redis.xadd(NAMES.ticks, {keys.FIELD_TICK: traffic.encode_tick(tick)}, id=tick.id)
        return tick.n, tick.at_us

    def _node(self, number: int) -> int:
        return number % self.nodes

    def _reports(self) -> list[Any]:
        return [
            report(f"ip-10-0-{node}.internal", source="tcx", attachments=self.pods // self.nodes)
            for node in range(self.nodes)
        ]

    def _change(self, number: int) -> RowChange:
        sent, received = self.chance.randrange(200_000), self.chance.randrange(2_000_000)
        one = counts(tx_bytes=sent, rx_bytes=received, tx_packets=sent // 500, rx_packets=received // 1000, tx_syns=3)
        return RowChange(number, SECOND, {scope: list(one) for scope in _SCOPES})
