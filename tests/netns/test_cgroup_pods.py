"""By control group, whatever interface a pod has or has not: its bytes are what was sent and received."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from services.flows.delta import Kind
from tests.support import generators as frames
from tests.support.group_station import GroupStation, group_station
from tests.support.group_talk import ended, group, listening, talk, talking, uid
from tests.support.hidden_datapath import API, API6, OUTSIDE, OUTSIDE6, counters, join, networks, world
from tests.support.netns import Namespace, namespaces, quiet, veth
from tests.support.station import inside

UID = uid(3)
POD_ADDRESS, NODE_ADDRESS, FAR = "10.77.0.2", "10.77.0.3", "10.77.0.1"
FRAME = 700 + 8 + 20 + 14


def mac(space: Namespace, interface: str) -> str:
    [found] = re.findall(r"link/ether (\S+)", space.run("ip", "-o", "link", "show", "dev", interface))
    return str(found)


def known(*ends: tuple[Namespace, str, str]) -> None:
    """Have all ends know each other's hardware addresses: nobody asks, so nothing else passes."""
    for space, interface, _ in ends:
        space.sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")
        for there, its, address in ends:
            if there is not space:
                space.ip(f"neigh replace {address} lladdr {mac(there, its)} dev {interface} nud permanent")


def datagrams(sender: tuple[Path, Namespace], receiver: tuple[Path, Namespace], address: str, count: int) -> None:
    taking = listening(*receiver, "udp", "AF_INET", "listen", address, "7001", str(count))
    talking(*sender, "udp", "AF_INET", "talk", address, "7001", str(count))
    ended(taking)


def counted(space: Namespace, interface: str) -> list[int]:
    found = space.counters(interface)
    return [found.tx_bytes, found.tx_packets, found.rx_bytes, found.rx_packets]


def test_a_macvlan_pod_of_which_the_node_has_no_interface() -> None:
    with namespaces("node", "pod", "far") as (node, pod, far):
        veth(node, "up0", far, f"{FAR}/24")
        node.ip(f"link add link up0 name plxmv0 netns {pod.name} type macvlan mode bridge")
        pod.ip("link set plxmv0 name eth0", f"addr add {POD_ADDRESS}/24 dev eth0", "link set eth0 up")
        known((pod, "eth0", POD_ADDRESS), (far, "eth0", FAR))

        async def scenario() -> None:
            with group("macvlan", f"pod{UID}", "2a" * 32) as mine, group("far") as other:
                async with group_station() as one:
                    before = counted(pod, "eth0")
                    await asyncio.to_thread(datagrams, (mine, pod), (other, far), FAR, 60)
                    await asyncio.to_thread(datagrams, (other, far), (mine, pod), POD_ADDRESS, 90)
                    await one.exact({UID: [60 * FRAME, 60, 90 * FRAME, 90]})
                    await asyncio.to_thread(talk, (pod, mine, POD_ADDRESS), (far, other, FAR))
                    now = counted(pod, "eth0")
                    await one.exact({UID: [a - b for a, b in zip(now, before, strict=True)]})

        inside(node, scenario)


def test_pods_and_daemons_in_the_nodes_network_have_what_they_sent_and_received() -> None:
    with namespaces("node", "far") as (node, far):
        veth(node, "up0", far, f"{FAR}/24")
        node.ip(f"addr add {NODE_ADDRESS}/24 dev up0")
        known((node, "up0", NODE_ADDRESS), (far, "eth0", FAR))

        async def scenario() -> None:
            with (
                group("hostpods", f"pod{UID}", "2b" * 32) as pod,
                group("system", "plxdaemon.service") as daemon,
                group("far") as other,
            ):
                async with group_station() as one:
                    before = counted(node, "up0")
                    for mine, sent, received in ((pod, 60, 90), (daemon, 50, 70)):
                        await asyncio.to_thread(datagrams, (mine, node), (other, far), FAR, sent)
                        await asyncio.to_thread(datagrams, (other, far), (mine, node), NODE_ADDRESS, received)
                    truth = {
                        UID: [60 * FRAME, 60, 90 * FRAME, 90],
                        "plxdaemon.service": [50 * FRAME, 50, 70 * FRAME, 70],
                    }
                    await one.exact(truth)
                    for mine in (pod, daemon):
                        await asyncio.to_thread(talk, (node, mine, NODE_ADDRESS), (far, other, FAR))
                    whole = [a - b for a, b in zip(counted(node, "up0"), before, strict=True)]
                    await one.agent.cut()
                    both = [a + b for a, b in zip(one.of(UID), one.of("plxdaemon.service"), strict=True)]
                    assert both == whole
                    assert one.of(UID)[0] > 3 << 20 < one.of("plxdaemon.service")[0]

        inside(node, scenario)


async def verdicts(one: GroupStation) -> set[tuple[object, ...]]:
    """What is said of a pod's peers."""
    await one.agent.cut()
    [number] = [number for number, row in one.totals.rows.by_number.items() if row.identity.pod == "api"]
    return {
        (peer.address, peer.protocol, peer.port, peer.server, peer.scope, peer.rule, peer.counts[0] > 0)
        for peer in one.totals.peers.of(number)
    }


def test_verdicts_are_the_same_on_a_hidden_datapath_as_on_an_open_one() -> None:
    found = []
    for hides in (False, True):
        with world(hidden=hides) as place:

            async def scenario() -> set[tuple[object, ...]]:
                with group("alike", f"pod{UID}", "2c" * 32) as mine, group("other") as other:
                    async with group_station() as one:
                        before = counters(place.api)
                        for own, out in ((API, OUTSIDE), (API6, OUTSIDE6)):
                            await asyncio.to_thread(talk, (place.api, mine, own), (place.outside, other, out))
                        now = counters(place.api)
                        await one.exact({UID: [a - b for a, b in zip(now, before, strict=True)]})
                        return await verdicts(one)

            found.append(inside(place.node, scenario))
    assert found[0] == found[1]
    assert {(rule, port) for _, _, port, _, _, rule, _ in found[0]} >= {("public", 5001), ("public", 7001)}


def test_pods_that_come_and_go_with_one_address_each_have_what_is_theirs() -> None:
    four, six = networks()
    uids = [uid(16 + number) for number in range(3)]
    with namespaces("node", "out") as (node, out):
        join(node, "out0", out, OUTSIDE, OUTSIDE6)
        node.sysctl("net/ipv4/ip_forward", "1")

        async def lived(one: GroupStation, at: int, other: Path) -> list[int]:
            """A pod's life; what its interface counted in it."""
            with namespaces("pod") as (pod,), group("turns", f"pod{uids[at]}", f"{at:02x}" * 32) as mine:
                quiet(pod)
                pod.sysctl("net/ipv6/conf/default/disable_ipv6", "0")
                join(node, "pod0", pod, f"{four}.3", f"{six}:3")
                node.sysctl("net/ipv6/conf/pod0/disable_ipv6", "1")
                pod.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
                await one.look()
                await asyncio.to_thread(talk, (pod, mine, f"{four}.3"), (out, other, OUTSIDE))
                frames.inject(
                    node, "pod0", [frames.ethernet(0x0806, frames.arp_request(OUTSIDE, f"{four}.3"))] * (at + 1)
                )
                now = list(counters(pod))
                await one.exact({uids[at]: now})
                assert one.of(uids[at], Kind.NO_SOCKET)[3] >= at + 1
            await one.look()
            return now

        async def scenario() -> None:
            with group("other") as other:
                async with group_station() as one:
                    truth = {uids[at]: await lived(one, at, other) for at in range(len(uids))}
                    await one.agent.cut()
                    assert {uid: one.of(uid) for uid in uids} == truth

        inside(node, scenario)
