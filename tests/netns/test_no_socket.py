"""By control group, what no socket had is the rest of what the pods' own interfaces counted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.flows.delta import Kind
from tests.support import generators as frames
from tests.support.group_station import group_station
from tests.support.group_talk import group, talk, talking, uid
from tests.support.hidden_datapath import OUTSIDE, OUTSIDE6, World, counters, networks, world
from tests.support.netns import Namespace
from tests.support.station import inside
from tests.support.wait import until

UID, OTHER = uid(1), uid(2)
FOUR, SIX = networks()
WEB, API, API6 = f"{FOUR}.2", f"{FOUR}.3", f"{SIX}:3"


@pytest.fixture(params=[False, True], ids=["open datapath", "hidden datapath"])
def place(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(hidden=request.param, four=FOUR, six=SIX) as one:
        yield one


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


@pytest.mark.parametrize("addresses", [(API, OUTSIDE), (API6, OUTSIDE6)], ids=["IPv4", "IPv6"])
def test_sockets_and_the_rest_are_what_the_pods_interface_counted(place: World, addresses: tuple[str, str]) -> None:
    async def scenario() -> None:
        with group("pods", f"pod{UID}", "1a" * 32) as mine, group("other") as other:
            async with group_station() as one:
                before = counters(place.api)
                await asyncio.to_thread(talk, (place.api, mine, addresses[0]), (place.outside, other, addresses[1]))

                def since() -> list[int]:
                    return [a - b for a, b in zip(counters(place.api), before, strict=True)]

                talked = since()
                await one.agent.cut()
                assert one.of(UID) == talked, "sockets had all of it"
                await asyncio.to_thread(unheard, place, place.api, mine, API)

                async def exact() -> bool:
                    await one.agent.cut()
                    return one.of(UID) == since()

                await until(exact, "what was told of the pod is what its interface counted")
                assert one.of(UID, Kind.IP)[0] > talked[0]
                rest = one.of(UID, Kind.NO_SOCKET)
                # A reset; and ARP, two strays, a SYN and an error.
                assert (rest[1], rest[3]) == (1, 5)
                await one.agent.cut()
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
            async with group_station() as one:
                spaces = {UID: place.api, OTHER: place.web}
                before = {uid: counters(space) for uid, space in spaces.items()}
                for mine, space, address in (
                    (first, place.api, API),
                    (third, place.web, WEB),
                    (second, place.api, API),
                ):
                    await asyncio.to_thread(talk, (space, mine, address), (place.outside, other, OUTSIDE))
                    await asyncio.to_thread(unheard, place, space, mine, address)
                    await one.agent.cut()

                async def exact() -> bool:
                    await one.agent.cut()
                    return all(
                        one.of(uid) == [a - b for a, b in zip(counters(space), before[uid], strict=True)]
                        for uid, space in spaces.items()
                    )

                await until(exact, "each pod has what its interface counted")
                assert [one.of(uid, Kind.NO_SOCKET)[3] for uid in (UID, OTHER)] == [10, 5]

    inside(place.node, scenario)
