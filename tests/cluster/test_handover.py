"""An address that goes from one pod to another while nobody watches: no byte is ever the wrong pod's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import pytest

from services.flows.delta import Attachment
from services.flows.scope import Rule
from tests.support import kube_objects
from tests.support.agents import SECOND, ScriptedAgent, attachment, detached, flow, window
from tests.support.aggregators import applied, is_
from tests.support.api_server import ApiServer
from tests.support.cluster_aggregator import ClusterAggregator, now_s, peers, sent
from tests.support.kube_client import KubeClient, Object
from tests.support.redis_server import RedisServer
from tests.support.wait import until

SOON_S: Final = 20.0
ME: Final = ("10.81.1.2", "fd81:0:0:1::2")
HANDED: Final = ("10.81.9.9", "fd81:0:0:9::9")
LATER: Final = ("10.81.9.10", "fd81:0:0:9::10")
BEGAN: Final = -300
ENDED: Final = -60
BEGAN_AGAIN: Final = -30
"""When the first pod got the address and lost it, and when the second one got it, in seconds from now."""
PULLED: Final = -90
"""Since when the second pod was on its node, without an address, where its image had to be pulled."""
TALKS: Final = {-200: "first", -100: "first", -80: "first", -45: "", -20: "second", -10: "second"}
"""When somebody talked with the address, and who had it."""
UNDECIDED: Final = {Rule.AMBIGUOUS_WINDOW.value, Rule.CLUSTER_RANGE.value}
Told = dict[int, set[tuple[str, str]]]


@dataclass
class Play:
    """The pods, and the agents of their nodes."""

    admin: KubeClient
    redis: Any
    namespace: str
    now: int
    pods: dict[str, Object]
    mine: ScriptedAgent
    theirs: ScriptedAgent

    def point(self, owner: str) -> Attachment:
        """The second pod's interface has another number: the first one's ended with it."""
        return attachment(1 + (owner == "second"), *HANDED, interface=f"veth-{owner}")

    async def ask(self, at: int, port: int, peers: tuple[str, ...] = HANDED) -> None:
        """Somebody on another node sends to the address, to a port that tells when."""
        flows = [flow(1, peer, tx=port, port=port, local=local) for peer, local in zip(peers, ME, strict=True)]
        await self.mine.send(self.redis, self.mine.batch(window([attachment(1, *ME)], *flows, second=self.now + at)))

    async def talk(self, at: int, port: int = 0) -> None:
        """The same, seen at both ends."""
        port = port or -at
        second = self.now + at
        await self.ask(at, port)
        if owner := TALKS[at]:
            point = self.point(owner)
            flows = [
                flow(point.id, peer, tx=port, port=port, local=local) for peer, local in zip(ME, HANDED, strict=True)
            ]
            await self.theirs.send(self.redis, self.theirs.batch(window([point], *flows, second=second)))

    def end_first(self, *, deleted: bool) -> None:
        """The first pod's containers end."""
        began, ended = self.now + BEGAN, self.now + ENDED
        self.admin.set_status(self.pods["first"], kube_objects.lived(HANDED, from_s=began, to_s=ended))
        if deleted:
            self.admin.delete(self.pods["first"])

    async def detach_first(self) -> None:
        """Its interface ends, and its agent tells of that."""
        ended = self.now + ENDED
        gone = detached(self.point("first"), ended * SECOND)
        await self.theirs.send(self.redis, self.theirs.batch(window([gone], second=ended - 1)))

    def begin_second(self, *, at: int = BEGAN_AGAIN, pulled: bool = False) -> None:
        """Another pod has the address; where its image was `pulled` it has waited for that on its node."""
        status = kube_objects.lived(HANDED, from_s=self.now + at, container="containerd://2")
        if pulled:
            status["startTime"] = kube_objects.lived(HANDED, from_s=self.now + PULLED)["startTime"]
        self.admin.set_status(self.admin.create(kube_objects.pod(self.namespace, "second", node="n9")), status)

    async def told(self) -> Told:
        """Rules and names of what the one who talked with the address was told, by the port."""
        found: Told = {}
        for one in await peers(self.redis, "me"):
            assert sent(one) == one.port
            found.setdefault(one.port, set()).add((one.rule, one.name))
        return found

    async def knows(self, at: int) -> None:
        """Talk at a moment until it is known who had the address then."""
        ports = count(10_000)

        async def is_known() -> bool:
            await self.talk(at, next(ports))
            return any(TALKS[at] in {who for _, who in told} for told in (await self.told()).values())

        await until(is_known, f"it is known who had the address at {at}", SOON_S)

    async def all_told(self) -> bool:
        """Whether every batch is applied, and every talk has a verdict."""
        done = [await applied(self.redis, agent.boot) == agent.seq for agent in (self.mine, self.theirs)]
        return all(done) and {-at for at in TALKS} <= (await self.told()).keys()


@pytest.fixture
async def play(admin: KubeClient, redis: Any, namespace: str) -> Play:
    """The first pod has the address."""
    now = await now_s(redis)
    pods = {}
    for number, name, ips in ((1, "me", ME), (9, "first", HANDED)):
        cidrs = [f"10.81.{number}.0/24", f"fd81:0:0:{number}::/64"]
        admin.create(kube_objects.node(f"n{number}", addresses=[f"10.80.0.{number}"], pod_cidrs=cidrs))
        pods[name] = admin.create(kube_objects.pod(namespace, name, node=f"n{number}"))
        admin.set_status(pods[name], kube_objects.lived(ips, from_s=now + BEGAN))
    agents = ScriptedAgent("n1", "boot-mine"), ScriptedAgent("n9", "boot-theirs")
    return Play(admin, redis, namespace, now, pods, *agents)


@pytest.fixture
def aggregator(api_server: ApiServer, redis_server: RedisServer) -> ClusterAggregator:
    return ClusterAggregator(redis_server, api_server.kubeconfig())


async def assert_own(play: Play) -> None:
    """What a pod's own interface saw is that pod's."""
    for name in ("first", "second"):
        ports = {one.port for one in await peers(play.redis, name) if one.port < 10_000}
        assert ports == {-at for at, owner in TALKS.items() if owner == name}


async def test_a_hand_over_that_was_watched_is_exact(play: Play, aggregator: ClusterAggregator) -> None:
    with aggregator.running():
        await play.knows(-200)
        play.end_first(deleted=True)
        for at in (-200, -100, -80):
            await play.talk(at)
        await play.detach_first()
        play.begin_second()
        await play.knows(-10)
        for at in (-45, -20, -10):
            await play.talk(at)
        await until(play.all_told, "all talks are told", SOON_S)
        told = await play.told()
        await assert_own(play)
    nobody = (Rule.CLUSTER_RANGE.value, "")
    for at, owner in TALKS.items():
        assert told[-at] == {(Rule.POD.value, owner) if owner else nobody}, at


@pytest.mark.parametrize("pulled", [False, True], ids=["quick", "pulled"])
@pytest.mark.parametrize("deleted", [False, True], ids=["finished", "deleted"])
async def test_a_hand_over_while_the_aggregator_is_dead_is_at_nobody_wrong(
    play: Play, aggregator: ClusterAggregator, deleted: bool, pulled: bool
) -> None:
    with aggregator.running():
        await play.knows(-200)
    play.end_first(deleted=deleted)
    play.begin_second(pulled=pulled)
    for at in TALKS:
        await play.talk(at)
        if at == -80:
            await play.detach_first()
    with aggregator.running():
        await until(play.all_told, "all talks are told", SOON_S)
        told = await play.told()
        await assert_own(play)
    for at, owner in TALKS.items():
        wrong = {(rule, name) for rule, name in told[-at] if name != owner and rule not in UNDECIDED}
        assert not wrong, (at, told)
    assert {name for at in (-20, -10) for _, name in told[-at]} == {"second"}


async def test_the_first_packets_of_the_next_pod_wait_until_it_is_known(
    play: Play, aggregator: ClusterAggregator
) -> None:
    with aggregator.running():
        await play.knows(-200)
        play.end_first(deleted=True)
        # Pods' events come in order: once this one is known, so is the end of the first.
        play.admin.create(kube_objects.pod(play.namespace, "later", node="n9", ips=LATER))
        sends = await now_s(play.redis) - play.now
        await play.ask(sends, 9, LATER)
        await until(lambda: has(play, 9), "they have their verdict")
        assert (await play.told())[9] == {(Rule.POD.value, "later")}
        await play.ask(sends, 7)
        await until(lambda: is_(applied(play.redis, play.mine.boot), play.mine.seq), "they are there")
        play.begin_second(at=sends)
        await until(lambda: has(play, 7), "they have their verdict")
        assert (await play.told())[7] == {(Rule.POD.value, "second")}


async def has(play: Play, port: int) -> bool:
    return port in await play.told()
