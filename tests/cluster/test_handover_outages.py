"""An address that goes from pod to pod while everything around fails: each byte is the right pod's, or nobody's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from services.flows.scope import Rule
from services.flows.traffic import Peer
from tests.support import kube_objects
from tests.support.agents import SECOND, ScriptedAgent, attachment, detached, flow, window
from tests.support.aggregators import applied
from tests.support.api_server import ApiServer
from tests.support.cluster_aggregator import ClusterAggregator, now_s, peers, rows, sent
from tests.support.kube_client import KubeClient, Object
from tests.support.redis_server import RedisServer
from tests.support.wait import until

pytestmark = pytest.mark.timeout(240)

ME: Final = ("10.81.1.2", "fd81:0:0:1::2")
HANDED: Final = ("10.81.9.9", "fd81:0:0:9::9")
TENURES: Final = 6
LASTS_S: Final = 20
BETWEEN_S: Final = 20
"""How long a pod has the address, and nobody after it."""
TALKS: Final = (3, 9, 15)
"""When somebody talks with the address, in seconds from the beginning of a tenure."""
UNDECIDED: Final = {Rule.AMBIGUOUS_WINDOW.value, Rule.CLUSTER_RANGE.value}
QUIET: Final = "nothing"
DEEDS: Final = (QUIET, "aggregator dies", "aggregator stops", "Redis stops", "API server stops", "API server restarts")
TOLD_S: Final = 60.0


@dataclass
class Stage:
    """One address and all that may fail; `owner` of a talk by its port, which tells when it was."""

    api: ApiServer
    admin: KubeClient
    server: RedisServer
    redis: Any
    namespace: str
    rng: random.Random
    began: int
    mine: ScriptedAgent = field(default_factory=lambda: ScriptedAgent("n1", "boot-mine"))
    theirs: ScriptedAgent = field(default_factory=lambda: ScriptedAgent("n9", "boot-theirs"))
    owner: dict[int, str] = field(default_factory=dict)
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    pid: int = 0

    def start_aggregator(self) -> None:
        """Start one, after the one before was ended."""
        self.running.close()
        self.pid = self.running.enter_context(ClusterAggregator(self.server, self.api.kubeconfig()).running())

    def from_s(self, tenure: int) -> int:
        """When a tenure begins."""
        return self.began + tenure * (LASTS_S + BETWEEN_S)

    def begin(self, tenure: int) -> Object:
        """The pod of a tenure gets the address."""
        made = self.admin.create(kube_objects.pod(self.namespace, f"p{tenure}", node="n9"))
        self.admin.set_status(made, kube_objects.lived(HANDED, from_s=self.from_s(tenure)))
        return made

    async def talk(self, tenure: int) -> None:
        """Somebody on another node and the pod talk: both see it, on interfaces that are told by number."""
        for at in TALKS:
            port = 1000 + 100 * tenure + at
            second = self.from_s(tenure) + at
            self.owner[port] = f"p{tenure}"
            asks = [flow(1, peer, tx=port, port=port, local=local) for peer, local in zip(HANDED, ME, strict=True)]
            await self.mine.send(self.redis, self.mine.batch(window([attachment(1, *ME)], *asks, second=second)))
            point = attachment(10 + tenure, *HANDED)
            hears = [
                flow(point.id, peer, tx=port, port=port, local=local) for peer, local in zip(ME, HANDED, strict=True)
            ]
            await self.theirs.send(self.redis, self.theirs.batch(window([point], *hears, second=second)))

    async def end(self, tenure: int, pod: Object) -> None:
        """The pod ends well or is deleted, and its interface with it."""
        ended = self.from_s(tenure) + LASTS_S
        self.admin.set_status(pod, kube_objects.lived(HANDED, from_s=self.from_s(tenure), to_s=ended))
        if self.rng.random() < 0.5:
            self.admin.delete(pod)
        gone = detached(attachment(10 + tenure, *HANDED), ended * SECOND)
        await self.theirs.send(self.redis, self.theirs.batch(window([gone], second=ended - 1)))

    async def play(self, tenure: int, deed: str) -> None:
        """A tenure from its beginning to its end, with something that fails meanwhile."""
        match deed:
            case "aggregator dies":
                self.running.close()
            case "aggregator stops":
                os.kill(self.pid, signal.SIGSTOP)
            case "API server restarts":
                self.api.restart()
        pod = self.begin(tenure)
        if deed in {QUIET, "Redis stops"}:
            await until(lambda: self._named(tenure), f"the aggregator knows p{tenure}", TOLD_S)
        with self._stopped(deed):
            await self.talk(tenure)
        if deed == "Redis stops":
            self.server.signal(signal.SIGSTOP)
            # Longer than the aggregator's lease.
            await asyncio.sleep(1.5)
            self.server.signal(signal.SIGCONT)
        await self.end(tenure, pod)
        match deed:
            case "aggregator dies":
                self.start_aggregator()
            case "aggregator stops":
                os.kill(self.pid, signal.SIGCONT)

    async def _named(self, tenure: int) -> bool:
        """Whether the pod's interface has the pod's name; its agent tells of it once more."""
        hello = window([attachment(10 + tenure, *HANDED)], second=self.from_s(tenure) + 1)
        await self.theirs.send(self.redis, self.theirs.batch(hello))
        await asyncio.sleep(0.1)
        return f"p{tenure}" in {row.identity.pod for row in await rows(self.redis)}

    @contextlib.contextmanager
    def _stopped(self, deed: str) -> Iterator[None]:
        """An API server that stands still, if that is the deed."""
        if deed != "API server stops":
            yield
            return
        self.api.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.api.signal(signal.SIGCONT)

    async def told(self) -> dict[int, list[Peer]]:
        """What the one who talked with the address was told, by the port."""
        found: dict[int, list[Peer]] = {}
        for one in await peers(self.redis, "me"):
            found.setdefault(one.port, []).append(one)
        return found

    async def all_told(self) -> bool:
        """Whether every batch is applied, and every byte of every talk is told."""
        done = [await applied(self.redis, agent.boot) == agent.seq for agent in (self.mine, self.theirs)]
        told = await self.told()
        return all(done) and {port: sum(map(sent, found)) for port, found in told.items()} == {
            port: len(HANDED) * port for port in self.owner
        }


@pytest.mark.parametrize("seed", [3, 6])
async def test_each_byte_is_the_right_pods_or_nobodys(
    api_server: ApiServer, admin: KubeClient, namespace: str, redis_server: RedisServer, redis: Any, seed: int
) -> None:
    rng = random.Random(seed)
    began = await now_s(redis) - TENURES * (LASTS_S + BETWEEN_S)
    for number in (1, 9):
        cidrs = [f"10.81.{number}.0/24", f"fd81:0:0:{number}::/64"]
        admin.create(kube_objects.node(f"n{number}", addresses=[f"10.80.0.{number}"], pod_cidrs=cidrs))
    me = admin.create(kube_objects.pod(namespace, "me", node="n1"))
    admin.set_status(me, kube_objects.lived(ME, from_s=began))
    deeds = [QUIET, *rng.sample(DEEDS, TENURES - 1)]
    print(f"seed {seed}: {deeds}")
    stage = Stage(api_server, admin, redis_server, redis, namespace, rng, began)
    with stage.running:
        stage.start_aggregator()
        for tenure, deed in enumerate(deeds):
            await stage.play(tenure, deed)
            if tenure == 0:
                await until(stage.all_told, "what was talked in peace is told", TOLD_S)
        await until(stage.all_told, "every byte is told", TOLD_S)
        told = await stage.told()
        heard = {f"p{tenure}": await peers(redis, f"p{tenure}") for tenure in range(TENURES)}
    for port, owner in stage.owner.items():
        # As long as nobody told its name, a pod is called after its interface.
        right = {owner, f"veth{10 + int(owner[1:])}"}
        wrong = [(one.rule, one.name) for one in told[port] if one.name not in right and one.rule not in UNDECIDED]
        assert not wrong, (port, owner, wrong)
    for tenure, around in enumerate(zip([QUIET, *deeds], deeds, strict=False)):
        # Of a pod whose end nobody saw it is not known how long it had the address.
        if set(around) <= {QUIET, "Redis stops"}:
            assert {one.name for at in TALKS for one in told[1000 + 100 * tenure + at]} == {f"p{tenure}"}
    for name, seen in heard.items():
        assert {one.port for one in seen} <= {port for port, owner in stage.owner.items() if owner == name}
