"""The coverage meter over real interfaces and every source."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from services.capture.links import LinkChange
from services.flows.coverage import Direction, Sides
from services.flows.delta import NOTHING, InterfaceCounters
from tests.support import generators as frames
from tests.support.netns import Namespace, namespaces, veth
from tests.support.station import hidden, inside, station
from tests.support.watch import HOST, POD

SOURCES = ["ebpf", "tcx", "ring", "socket"]
COUNT = 200
FROM_POD = [frames.ethernet(0x0800, frames.ipv4(POD, HOST, frames.UDP, frames.udp_datagram(1, 2, bytes(200))))] * COUNT
TO_POD = [frames.ethernet(0x0800, frames.ipv4(HOST, POD, frames.UDP, frames.udp_datagram(2, 1, bytes(500))))] * COUNT
Pair = tuple[Namespace, Namespace]


def packets(counters: InterfaceCounters) -> int:
    """Of both directions."""
    return counters.tx_packets + counters.rx_packets


@pytest.mark.parametrize("kind", SOURCES)
def test_all_of_it_is_covered_in_the_plain_case(quiet: Pair, kind: str) -> None:
    node, pod = quiet

    async def scenario() -> None:
        async with station(kind=kind) as one:
            for _ in range(3):
                frames.inject(pod, "eth0", FROM_POD)
                frames.inject(node, "veth0", TO_POD)
                frames.tcp(pod, node, HOST, 5001, size=2_000_000)
                await one.flush()
            await one.until(lambda: one.one.compared == one.one.counted, "all that was counted is captured")
            assert [one.one.sums.ratio(way) for way in Direction] == [1.0, 1.0]
            assert one.one.counted.tx_packets >= 3 * COUNT
            assert one.one.counted.rx_packets >= 3 * COUNT
            assert one.one.sides is Sides.BOTH
            assert one.node.unexplained_packets == 0
            assert not one.node.loss

    inside(node, scenario)


@pytest.mark.parametrize("kind", SOURCES)
def test_what_no_source_can_see_is_known_to_the_byte(quiet: Pair, kind: str) -> None:
    node, pod = quiet

    async def scenario() -> None:
        async with station(kind=kind) as one:
            with hidden(node, "veth0"):
                for _ in range(4):
                    sent = frames.inject(pod, "eth0", FROM_POD)
                    frames.inject(node, "veth0", TO_POD)
                    await one.flush()
            sums = one.one.sums
            assert one.one.sides is Sides.INGRESS_ONLY
            assert (sums.ratio(Direction.TRANSMIT), sums.ratio(Direction.RECEIVE)) == (0.0, 1.0)
            assert sums.unseen.tx_bytes == sums.uncovered.tx_bytes == sums.counted.tx_bytes
            assert sums.counted.tx_packets >= 4 * sent.packets
            assert one.node.unexplained_packets == 0
            [row] = one.totals.rows.by_number.values()
            assert row.identity.coverage == "ingress-only"

    inside(node, scenario)


@pytest.fixture
def around() -> Iterator[Pair]:
    """A pod that sends through `veth0` and receives through another link, as hidden datapaths have it."""
    with namespaces("node", "pod") as (node, pod):
        veth(node, "veth0", pod, f"{POD}/32")
        veth(node, "veth1", pod, pod_name="eth1")
        for key in ("all", "veth0", "veth1"):
            node.sysctl(f"net/ipv4/conf/{key}/rp_filter", "0")
        for key in ("all", "eth0", "eth1"):
            pod.sysctl(f"net/ipv4/conf/{key}/rp_filter", "0")
        node.ip(f"addr add {HOST}/32 dev lo", f"route add {POD}/32 dev veth1 src {HOST}")
        pod.ip(f"route add {HOST}/32 dev eth0 src {POD}")
        for there, link, here, peer, address in (
            (node, "veth1", pod, "eth1", POD),
            (pod, "eth0", node, "veth0", HOST),
        ):
            [mac] = re.findall(r"link/ether (\S+)", here.run("ip", "-o", "link", "show", "dev", peer))
            there.ip(f"neigh add {address} lladdr {mac} dev {link} nud permanent")
        yield node, pod


@pytest.mark.parametrize("kind", SOURCES)
def test_a_conversation_of_which_one_side_passes_elsewhere_shows(around: Pair, kind: str) -> None:
    node, pod = around

    async def scenario() -> None:
        async with station(kind=kind) as one:

            def is_told() -> bool:
                frames.tcp(pod, node, HOST, 5001, size=1_000_000)
                return one.one.sides is not None

            await one.until(is_told, "it is known which sides are seen")
            assert one.one.sides is Sides.EGRESS_ONLY
            assert one.one.sums.ratio(Direction.TRANSMIT) == 1.0
            assert one.one.sums.ratio(Direction.RECEIVE) is None
            [row] = one.totals.rows.by_number.values()
            assert row.identity.coverage == "egress-only"

    inside(node, scenario)


def test_what_the_kernel_dropped_is_missing_and_has_its_reason(quiet: Pair) -> None:
    node, pod = quiet

    async def scenario() -> None:
        async with station(kind="socket", receive_buffer_bytes=64 << 10) as one:
            frames.inject(pod, "eth0", FROM_POD[:10])
            await one.flush()
            # Nobody reads meanwhile, as this does not yield to the event loop.
            for _ in range(30):
                frames.inject(pod, "eth0", FROM_POD)
            await one.until(
                lambda: packets(one.one.sums.uncovered) == one.node.loss.get("kernel-drop"),
                "all that is missing has its reason",
            )
            sums = one.one.sums
            assert one.node.loss["kernel-drop"] > 1000
            assert sums.counted.tx_packets >= 30 * COUNT + 10
            assert packets(sums.captured) + one.node.loss["kernel-drop"] == packets(sums.counted)
            assert 0 < (sums.ratio(Direction.TRANSMIT) or 0) < 1
            assert sums.attach == NOTHING
            assert one.node.unexplained_packets == 0

    inside(node, scenario)


@pytest.mark.parametrize("kind", SOURCES)
def test_what_passed_before_the_source_was_in_place_is_missing_as_that(quiet: Pair, kind: str) -> None:
    node, pod = quiet

    async def scenario() -> None:
        async with station(kind=kind, attached=False) as one:
            counters = await one.monitor.counters()
            early = frames.inject(pod, "eth0", FROM_POD)
            await one.agent.follow(LinkChange(one.monitor.links(), ()), counters)
            late = frames.inject(pod, "eth0", FROM_POD)
            await one.flush()
            sums = one.one.sums
            assert (sums.attach.tx_packets, sums.attach.tx_bytes) == (early.packets, early.link_bytes)
            assert sums.uncovered == sums.attach
            assert sums.captured.tx_packets == late.packets
            assert one.node.unexplained_packets == 0

    inside(node, scenario)


def test_what_passed_between_two_agents_is_a_gap_and_not_uncovered(quiet: Pair) -> None:
    node, pod = quiet

    async def scenario() -> None:
        async with station() as first:
            frames.inject(pod, "eth0", FROM_POD)
            await first.flush()
            # Captured, but never told: as by an agent that is killed.
            missed = frames.inject(pod, "eth0", FROM_POD)
        async with station(boot="boot-b", totals=first.totals) as second:
            frames.inject(pod, "eth0", FROM_POD)
            await second.flush()
            assert second.one.boot == "boot-b"
            assert (second.one.gap.tx_packets, second.one.gap.tx_bytes) == (missed.packets, missed.link_bytes)
            assert second.node.sums.counted.tx_packets == 2 * COUNT
            assert second.node.sums.uncovered == NOTHING

    inside(node, scenario)


def test_an_interface_that_is_gone_keeps_its_last_state(quiet: Pair) -> None:
    node, pod = quiet

    async def scenario() -> None:
        async with station() as one:
            links = one.monitor.links()
            frames.inject(pod, "eth0", FROM_POD)
            await one.flush()
            node.ip("link del veth0")
            await one.agent.follow(LinkChange((), links), {})
            assert one.one.detached_us is not None
            assert one.one.sums.ratio(Direction.TRANSMIT) == 1.0
            await one.flush()
            assert one.one.counted.tx_packets == COUNT

    inside(node, scenario)
