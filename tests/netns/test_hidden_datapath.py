"""Pods to which packets go past the node's ends of their links: what is seen, and what is known of the rest."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from services.aggregator.once import HOLD_US
from services.aggregator.totals import Totals
from services.capture.agent import Agent
from services.capture.fold import Folder
from services.capture.interfaces import LinkChange, LinkMonitor, Selection
from services.flows.coverage import InterfaceCoverage
from services.flows.traffic import ROW_COUNTERS
from services.runtime.clock import SystemClock
from tests.support import generators as frames
from tests.support.hidden_datapath import (
    API,
    API6,
    OPEN,
    OUTSIDE,
    OUTSIDE6,
    WEB,
    World,
    counters,
    world,
)
from tests.support.netns import Namespace
from tests.support.privileges import run_as
from tests.support.station import Batches, Station, inside
from tests.support.wait import until
from tests.support.watch import opened
from tests.support.worlds import directory

MEGABYTE = 1 << 20
SOURCES = ["ebpf", "tcx", "ring", "socket"]
FOUR = [ROW_COUNTERS.index(name) for name in ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")]
NAMES = {"web": "web", "api": "api", "open0": "open"}


@pytest.fixture
def place() -> Iterator[World]:
    with world() as one:
        yield one


@contextlib.asynccontextmanager
async def watching(kind: str, *, allowed: bool = True) -> AsyncIterator[Station]:
    """An agent on the pods' links, and totals; not `allowed` it may not ask about other namespaces."""
    totals = Totals(directory(), 1000)
    async with (
        LinkMonitor(Selection(names=("web0", "api0", "open0"))) as monitor,
        opened(10_000, kind=kind, namespace=None) as source,
    ):
        monitor._pod_side.allowed = allowed  # as at the kernel's first refusal
        agent = Agent(source, Folder(10_000), SystemClock(), Batches(totals, "boot-a").take, monitor.hidden)
        one = Station(monitor, agent, totals)
        await one.follow(LinkChange(monitor.links(), ()))
        yield one


def by_rule(one: Station, pod: str) -> dict[str, list[int]]:
    """What a pod's row has by rule: bytes and packets sent, and received."""
    found: dict[str, list[int]] = {}
    for number, row in one.totals.rows.by_number.items():
        if row.identity.pod == pod:
            for peer in one.totals.peers.of(number):
                sums = found.setdefault(peer.rule, [0] * 4)
                found[peer.rule] = [a + peer.counts[at] for a, at in zip(sums, FOUR, strict=True)]
    return found


def exchanged(one: Station, pod: str, peer: str, rule: str = "") -> list[int]:
    """What a pod's row has of a peer, by name or address."""
    [number] = [number for number, row in one.totals.rows.by_number.items() if row.identity.pod == pod]
    some = [
        entry
        for entry in one.totals.peers.of(number)
        if peer in (entry.name, entry.address) and (not rule or entry.rule == rule)
    ]
    assert not rule or {entry.what for entry in some} == {"pod"}
    return [sum(entry.counts[at] for entry in some) for at in FOUR]


def counted_once(one: Station) -> list[int]:
    """The cluster's totals, once nothing waits any more."""
    one.totals.settle(one.agent.clock.monotonic_us() + 2 * HOLD_US)
    assert one.totals.pending_bytes == 0
    return [sum(counts[at] for counts in one.totals.cluster.values()) for at in FOUR]


def row(one: Station, pod: str) -> list[int]:
    """What a pod's row has in all; the same as its peers have."""
    [found] = [row for row in one.totals.rows.by_number.values() if row.identity.pod == pod]
    sums = [sum(counts[at] for counts in found.totals.values()) for at in FOUR]
    assert sums == [sum(column) for column in zip(*by_rule(one, pod).values(), strict=True)]
    return sums


def sides(one: Station) -> dict[str, str | None]:
    found: dict[str, InterfaceCoverage] = {entry.interface: entry for entry in one.node.interfaces}
    return {name: entry.sides.value if entry.sides else None for name, entry in found.items()}


class Since:
    """What pods' own interfaces counted from now on."""

    def __init__(self, place: World) -> None:
        self._spaces = {"web": place.web, "api": place.api, "open0": place.open}
        self._before = {name: counters(space) for name, space in self._spaces.items()}

    def of(self, pod: str) -> list[int]:
        now = counters(self._spaces[pod])
        return [a - b for a, b in zip(now, self._before[pod], strict=True)]


async def exact(one: Station, since: Since, *pods: str) -> None:
    """Until each pod's row has what its own interface counted; for what passes later it takes another window."""

    async def are() -> bool:
        await one.flush()
        return all(row(one, pod) == since.of(pod) for pod in pods)

    await until(are, f"{pods} have what their interfaces counted")


def talk(place: World, *, rounds: int = 4) -> None:
    """TCP with offload between all of them, over both families, and datagrams."""
    for api, out in ((API, OUTSIDE), (API6, OUTSIDE6)):
        for at in range(rounds):
            frames.tcp(place.web, place.api, api, 5001, size=2 * MEGABYTE + at)
            frames.tcp(place.outside, place.api, api, 5002, size=MEGABYTE + at)
            frames.tcp(place.web, place.outside, out, 5003, size=MEGABYTE + at)
        with sink(place.api, api):
            frames.udp(place.web, api, 7000, count=50, size=700)
            frames.udp(place.outside, api, 7000, count=30, size=500)
    frames.tcp(place.open, place.outside, OUTSIDE, 5004, size=MEGABYTE)
    frames.tcp(place.web, place.open, OPEN, 5005, size=MEGABYTE)


def sink(space: Namespace, address: str) -> Any:
    return frames.udp_sink(space, address, 7000)


@pytest.mark.parametrize("kind", SOURCES)
def test_hidden_pods_are_marked_and_seen_and_hidden_is_what_their_interfaces_counted(place: World, kind: str) -> None:
    async def scenario() -> None:
        async with watching(kind) as one:
            since = Since(place)
            for _ in range(4):
                talk(place, rounds=1)
                await one.flush()
            await exact(one, since, "web", "api", "open0")
            assert sides(one) == {"web0": "egress-only", "api0": "egress-only", "open0": "both"}
            assert {row.identity.pod: row.identity.coverage for row in one.totals.rows.by_number.values()} == {
                "web": "egress-only",
                "api": "egress-only",
                "open0": "full",
            }
            assert "hidden-datapath" not in by_rule(one, "open0")
            assert one.node.unexplained_packets == 0
            for name, other in (("web", "api"), ("api", "web")):
                rules = by_rule(one, name)
                # What came from outside, nobody on the node sent.
                assert rules["hidden-datapath"][:2] == [0, 0]
                assert rules["hidden-datapath"][2] > (4 * MEGABYTE if name == "api" else 0)
                assert exchanged(one, name, other, "seen-at-sender")[2:] == exchanged(one, other, name)[:2]
            cluster = counted_once(one)
            assert cluster[:2] == [sum(row(one, pod)[at] for pod in ("web", "api", "open0")) for at in (0, 1)]
            # What pods got of each other counts where it was sent.
            of_pods = [by_rule(one, "web")["seen-at-sender"], by_rule(one, "api")["seen-at-sender"]]
            of_pods.append(exchanged(one, "open0", "web"))
            got = [row(one, pod) for pod in ("web", "api", "open0")]
            assert cluster[2:] == [sum(a[at] - b[at] for a, b in zip(got, of_pods, strict=True)) for at in (2, 3)]

    inside(place.node, scenario)


@pytest.mark.parametrize("kind", SOURCES)
def test_who_may_not_ask_takes_what_was_sent_on_the_node_and_says_egress_only(place: World, kind: str) -> None:
    async def scenario() -> None:
        async with watching(kind, allowed=False) as one:
            # Who receives a stream answers: by that it shows.

            def is_told() -> bool:
                talk(place, rounds=1)
                return sides(one)["api0"] == "egress-only" == sides(one)["web0"]

            await one.until(is_told, "it is known which sides are seen")
            await one.flush()
            first = exchanged(one, "web", "api")[:2]
            before = by_rule(one, "api").get("seen-at-sender", [0] * 4)
            talk(place, rounds=1)
            await one.flush()
            assert sides(one) == {"web0": "egress-only", "api0": "egress-only", "open0": "both"}
            rules = by_rule(one, "api")
            assert "hidden-datapath" not in rules
            sent = [a - b for a, b in zip(exchanged(one, "web", "api")[:2], first, strict=True)]
            assert [a - b for a, b in zip(rules["seen-at-sender"], before, strict=True)][2:] == sent
            assert sent[0] > 2 * MEGABYTE
            cluster = counted_once(one)
            assert cluster[:2] == [sum(row(one, pod)[at] for pod in ("web", "api", "open0")) for at in (0, 1)]
            of_web = exchanged(one, "open0", "web")
            of_others = [sum(row(one, pod)[at] for pod in ("web", "api")) for at in (2, 3)]
            mirrored = [sum(by_rule(one, pod)["seen-at-sender"][at] for pod in ("web", "api")) for at in (2, 3)]
            open_ = row(one, "open0")
            assert cluster[2:] == [
                others - same + opened - of
                for others, same, opened, of in zip(of_others, mirrored, open_[2:], of_web[2:], strict=True)
            ]

    inside(place.node, scenario)


NOT_ALLOWED = """
from services.capture.pod_side import PodSide
with PodSide() as one:
    print(one.counters([(2, 0)] * 40), one.addresses(0), one.allowed)
"""


def test_without_the_right_nobody_is_asked_twice(place: World) -> None:
    with place.node.entered():
        done = run_as(NOT_ALLOWED, "net_raw", "bpf", "perfmon")
    assert done.stdout.splitlines()[-1] == f"{[None] * 40} frozenset() False", done.stderr


def test_a_pods_own_interface_is_read_without_entering_its_namespace(place: World) -> None:
    async def scenario() -> None:
        async with LinkMonitor(Selection(names=("web0",))) as monitor:
            talk(place, rounds=1)
            [own] = monitor.own().values()
            assert own.four == counters(place.web)
            [link] = monitor.links()
            assert {str(one) for one in monitor.own_addresses(link)} >= {WEB, "fd00:1::2"}
            await monitor.counters()
            [hidden] = monitor.hidden().values()
            assert hidden.rx_bytes > 5000
            assert hidden.tx_bytes == 0

    inside(place.node, scenario)
