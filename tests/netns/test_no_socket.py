"""By control group, what no socket had is the rest of what the pods' own interfaces counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from services.capture.fold import Folder
from services.capture.group_agent import GroupAgent
from services.capture.group_tree import GroupTree
from services.capture.interfaces import LinkMonitor, Selection
from services.capture.socketless import Socketless
from services.capture.sources.cgroup import CgroupSource, hierarchy
from services.flows.delta import Kind, Window
from services.flows.table import by_attachment
from services.runtime.clock import SystemClock
from tests.support import generators as frames
from tests.support.group_talk import ended, group, start
from tests.support.hidden_datapath import API, API6, OUTSIDE, OUTSIDE6, WEB, World, counters, world
from tests.support.netns import Namespace
from tests.support.station import inside
from tests.support.wait import until

UID = "7a0e2a34-6f0b-4f6e-9d3c-0a1b2c3d4e5f"
OTHER = "7b0e2a34-6f0b-4f6e-9d3c-0a1b2c3d4e5f"
MEGABYTE = 1 << 20


@pytest.fixture(params=[False, True], ids=["open datapath", "hidden datapath"])
def place(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(hidden=request.param) as one:
        yield one


class Agent:
    """A group agent in a node, and what it told."""

    def __init__(self, one: GroupAgent, told: list[Window]) -> None:
        self.one = one
        self.told = told

    def of(self, pod: str, *kinds: Kind) -> list[int]:
        """What was told of a pod, of some kinds of rows or of all."""
        sums = [0] * 4
        for window in self.told:
            for entry in window.attachments:
                if entry.pod_uid == pod:
                    rows = window.flows[window.flows["attachment"] == entry.id]
                    rows = rows[np.isin(rows["kind"], kinds)] if kinds else rows
                    found = by_attachment(rows).get(entry.id)
                    sums = [a + b for a, b in zip(sums, found.four, strict=True)] if found else sums
        return sums


@contextlib.asynccontextmanager
async def agent() -> AsyncIterator[Agent]:
    """One that follows the links of the namespace that the thread is in."""
    source = CgroupSource(10_000)
    told: list[Window] = []
    try:
        async with GroupTree(hierarchy()) as tree, LinkMonitor(Selection()) as monitor:
            yield Agent(GroupAgent(source, tree, Folder(10_000), SystemClock(), told.append, Socketless(monitor)), told)
    finally:
        await source.close()


def talking(where: Path, space: Namespace, *words: str) -> None:
    """Run a talk to its end."""
    ended(start(where, space, *words))


def listening(where: Path, space: Namespace, *words: str) -> subprocess.Popen[str]:
    """Run a listener until it is ready."""
    process = start(where, space, *words)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def talk(place: World, space: Namespace, mine: Path, other: Path, addresses: tuple[str, str], family: str) -> None:
    """A pod's container talks with somebody outside: TCP with offload and UDP, both ways."""
    own, outside = addresses
    for source, target, to, size in (
        ((other, place.outside), (mine, space), own, 4 * MEGABYTE),
        ((mine, space), (other, place.outside), outside, 3 * MEGABYTE),
    ):
        serving = listening(*target, "tcp", family, "listen", to, "5001", "0")
        talking(*source, "tcp", family, "talk", to, "5001", str(size))
        ended(serving)
        taking = listening(*target, "udp", family, "listen", to, "7001", "90")
        talking(*source, "udp", family, "talk", to, "7001", "90")
        ended(taking)


def unheard(place: World, space: Namespace, mine: Path, address: str) -> None:
    """What no socket has: ARP, a reset and errors of the kernel's, frames for somebody else."""
    name = {place.web.name: "web0", place.api.name: "api0"}[space.name]
    arp = frames.ethernet(0x0806, frames.arp_request(OUTSIDE, address))
    stray = frames.ethernet(0x0800, frames.ipv4(OUTSIDE, address, frames.UDP, frames.udp_datagram(1, 2, bytes(300))))
    frames.inject(place.node, name, [arp, stray, stray])
    # Nobody listens: the one outside answers with an error, the pod's kernel with a reset.
    talking(mine, space, "udp", "AF_INET", "talk", OUTSIDE, "7009", "1")
    with place.outside.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as out:
        assert out.connect_ex((address, 5999))


@pytest.mark.parametrize(
    ("family", "addresses"), [("AF_INET", (API, OUTSIDE)), ("AF_INET6", (API6, OUTSIDE6))], ids=["IPv4", "IPv6"]
)
def test_sockets_and_the_rest_are_what_the_pods_interface_counted(
    place: World, family: str, addresses: tuple[str, str]
) -> None:
    async def scenario() -> None:
        with group("pods", f"pod{UID}", "1a" * 32) as mine, group("other") as other:
            async with agent() as one:
                before = counters(place.api)
                await asyncio.to_thread(talk, place, place.api, mine, other, addresses, family)

                def since() -> list[int]:
                    return [a - b for a, b in zip(counters(place.api), before, strict=True)]

                talked = since()
                await one.one.cut()
                assert one.of(UID) == talked, "sockets had all of it"
                await asyncio.to_thread(unheard, place, place.api, mine, API)

                async def exact() -> bool:
                    await one.one.cut()
                    return one.of(UID) == since()

                await until(exact, "what was told of the pod is what its interface counted")
                assert one.of(UID, Kind.IP)[0] > talked[0]
                rest = one.of(UID, Kind.NO_SOCKET)
                # A reset; and ARP, two strays, a SYN and an error.
                assert (rest[1], rest[3]) == (1, 5)
                await one.one.cut()
                assert one.of(UID) == since(), "nothing is told twice"

    inside(place.node, scenario)


def test_the_rest_is_that_of_the_right_pod_whichever_of_its_containers_talked(place: World) -> None:
    async def scenario() -> None:
        with (
            group("pods", f"pod{UID}", "1a" * 32) as first,
            group("pods", f"pod{UID}", "1b" * 32) as second,
            group("pods", f"pod{OTHER}", "1c" * 32) as third,
            group("other") as other,
        ):
            async with agent() as one:
                spaces = {UID: place.api, OTHER: place.web}
                before = {uid: counters(space) for uid, space in spaces.items()}
                for mine, space, address in (
                    (first, place.api, API),
                    (third, place.web, WEB),
                    (second, place.api, API),
                ):
                    await asyncio.to_thread(talk, place, space, mine, other, (address, OUTSIDE), "AF_INET")
                    await asyncio.to_thread(unheard, place, space, mine, address)
                    await one.one.cut()

                async def exact() -> bool:
                    await one.one.cut()
                    return all(
                        one.of(uid) == [a - b for a, b in zip(counters(space), before[uid], strict=True)]
                        for uid, space in spaces.items()
                    )

                await until(exact, "each pod has what its interface counted")
                assert [one.of(uid, Kind.NO_SOCKET)[3] for uid in (UID, OTHER)] == [10, 5]

    inside(place.node, scenario)
