"""What `podloxx-launch local` serves is what was sent, and comes soon enough."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from services.capture.sources.cgroup import hierarchy
from tests.support import cgroups, generators
from tests.support.launched import Launched, launched
from tests.support.netns import Namespace, namespaces, veth
from tests.support.truth import assert_counted_once, peers_of, sums_are_the_kernels, wait_for_total

ONE, TWO = "10.77.1.2", "10.77.2.2"
ONE6, TWO6 = "fd77:1::2", "fd77:2::2"
DIRECTORY = {
    "version": 1,
    "addresses": {
        ONE: {"namespace": "shop", "pod": "web", "node": "here"},
        ONE6: {"namespace": "shop", "pod": "web", "node": "here"},
        TWO: {"namespace": "shop", "pod": "api", "node": "here"},
        TWO6: {"namespace": "shop", "pod": "api", "node": "here"},
    },
    "nodes": {"here": {"addresses": ["10.77.0.1"], "zone": "z", "region": "r", "pod_cidrs": ["10.77.1.0/24"]}},
}


@pytest.fixture
def node() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """A node that routes between two pods, dual stack."""
    with namespaces("node", "one", "two") as (node, one, two):
        node.sysctl("net/ipv4/ip_forward", "1")
        node.sysctl("net/ipv6/conf/all/forwarding", "1")
        for number, (pod, name) in enumerate(((one, "veth1"), (two, "veth2")), 1):
            veth(node, name, pod, f"10.77.{number}.2/24", f"fd77:{number}::2/64")
            # Without an address of its own on the link the node could not ask for its neighbour.
            for address in (f"10.77.{number}.1/24", f"fd77:{number}::1/64 nodad", "fe80::1/64 nodad"):
                node.ip(f"addr add {address} dev {name}")
            pod.ip(f"route add default via 10.77.{number}.1", f"route add ::/0 via fd77:{number}::1")
        yield node, one, two


def test_what_is_served_is_what_was_sent(node: tuple[Namespace, Namespace, Namespace], folder: Path) -> None:
    here, one, two = node
    (folder / "addresses.json").write_text(json.dumps(DIRECTORY))
    arguments = ["local", "--node=here", f"--directory={folder / 'addresses.json'}"]
    with launched(*arguments, inside=here) as podloxx:
        wait_for_total(podloxx, lambda _: podloxx.get("/traffic/overview")["nodesReporting"] == 1, "the agent reports")
        with generators.udp_sink(two, TWO, 9000), generators.udp_sink(two, TWO6, 9001):
            sent = generators.udp(one, TWO, 9000, count=500, size=700)
            sent6 = generators.udp(one, TWO6, 9001, count=300, size=900)
        talked = generators.tcp(one, two, TWO, 9002, size=3_000_000)
        total = wait_for_total(
            podloxx,
            lambda pods: len(pods) == 2 and sums_are_the_kernels(podloxx, here, pods),
            "the API's sums are the kernel's",
        )
        web, api = total["shop/web"], total["shop/api"]
        assert web["scopes"]["same-node"]["transmitBytes"] > sent.link_bytes + sent6.link_bytes + talked.client_bytes
        assert api["scopes"]["same-node"]["receivedBytes"] == web["scopes"]["same-node"]["transmitBytes"]
        by_port = peers_of(podloxx, "shop/web")
        assert by_port["udp", 9000, TWO]["transmitBytes"] == sent.link_bytes
        assert by_port["udp", 9000, TWO]["transmitPackets"] == sent.packets
        assert by_port["udp", 9001, TWO6]["transmitBytes"] == sent6.link_bytes
        assert by_port["tcp", 9002, TWO]["name"] == "api"
        assert by_port["tcp", 9002, TWO]["rule"] == "pod-same-node"
        assert_counted_once(podloxx, total)


def test_without_a_directory_interfaces_are_the_pods(node: tuple[Namespace, Namespace, Namespace]) -> None:
    here, one, two = node
    with launched("local", "--interface-prefix=nothing|veth", inside=here) as podloxx:
        # A pod is known by the addresses it sends from.
        generators.tcp(one, two, TWO, 9000, size=1000)
        total = wait_for_total(podloxx, lambda pods: len(pods) == 2 and pods["local/veth2"]["ip"], "both are seen")
        generators.tcp(one, two, TWO, 9000, size=1000)
        total = wait_for_total(
            podloxx, lambda pods: "same-node" in pods["local/veth1"]["scopes"], "they are told from strangers"
        )
        assert total["local/veth1"]["ip"] == ONE


def test_a_pod_that_comes_later_is_seen(node: tuple[Namespace, Namespace, Namespace]) -> None:
    here, one, _ = node
    with launched("local", inside=here) as podloxx, namespaces("late") as (late,):
        veth(here, "veth9", late, "10.77.9.2/24")
        here.ip("addr add 10.77.9.1/24 dev veth9")
        late.ip("route add default via 10.77.9.1")
        with generators.udp_sink(one, ONE, 9000):
            # The link may be attached only after the first of them.
            wait_for_total(
                podloxx,
                lambda pods: "local/veth9" in pods or not generators.udp(late, ONE, 9000, count=1, size=100).packets,
                "the new pod is there",
            )


async def test_a_packet_is_on_the_page_soon(node: tuple[Namespace, Namespace, Namespace]) -> None:
    here, one, two = node
    with launched("local", inside=here) as podloxx, here.entered():
        delays = await _delays(podloxx, one, two, times=12)
    print(f"packet to message: median {statistics.median(delays):.2f} s, maximum {max(delays):.2f} s")
    assert statistics.median(delays) <= 1.5
    assert max(delays) <= 2.5


async def _delays(podloxx: Launched, one: Namespace, two: Namespace, times: int) -> list[float]:
    delays: list[float] = []
    with generators.udp_sink(two, TWO, 9000):
        generators.udp(one, TWO, 9000, count=1, size=100)
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(f"http://127.0.0.1:{podloxx.port}/traffic/ws?v=1") as socket,
        ):
            seen = 0
            for turn in range(times):
                # Another phase of the flush interval each time.
                quiet = asyncio.get_running_loop().time() + 0.3 + turn * 0.09
                while asyncio.get_running_loop().time() < quiet:
                    seen = max(seen, await _total(socket, quiet))
                sent = await asyncio.to_thread(generators.udp, one, TWO, 9000, count=10, size=1000)
                at = time.monotonic()
                while (total := await _total(socket, asyncio.get_running_loop().time() + 5)) < seen + sent.link_bytes:
                    assert time.monotonic() - at < 10, "the packets were never shown"
                delays.append(time.monotonic() - at)
                seen = total
    return delays


async def _total(socket: aiohttp.ClientWebSocketResponse, until: float) -> int:
    """The sum over all rows of the next message; 0 where none comes in time."""
    try:
        async with asyncio.timeout_at(until):
            message = json.loads((await socket.receive()).data)
    except TimeoutError:
        return 0
    await socket.send_json({"ack": message["seq"]})
    return int(message["tot"][-1])


def test_by_control_group_a_container_and_a_unit_have_rows_without_a_link_of_theirs(
    node: tuple[Namespace, Namespace, Namespace],
) -> None:
    here, one, two = node
    groups = f"plx-{os.getpid()}"
    container, unit = f"{groups}/{'cd' * 32}", f"{groups}/plxtalk.service"
    for name in (container, unit):
        cgroups.make(name.split("/", 1)[0], name.split("/", 1)[1])
    try:
        with launched("local", "--capture=cgroup", inside=here) as podloxx:
            with generators.udp_sink(two, TWO, 9000), generators.udp_sink(two, TWO, 9001):
                # The first talks from a namespace of its own, the other one from the node's.
                talk_in_group(container, one, TWO, 9000, 40)
                talk_in_group(unit, here, TWO, 9001, 30)
            total = wait_for_total(
                podloxx, lambda pods: {"local/cdcdcdcdcdcd", "local/plxtalk.service"} <= pods.keys(), "both have rows"
            )
            # 500 bytes, and the headers of UDP, IP and Ethernet.
            assert total["local/cdcdcdcdcdcd"]["transmitBytes"] == 40 * 542
            assert total["local/cdcdcdcdcdcd"]["ip"] == ONE
            assert total["local/plxtalk.service"]["transmitBytes"] == 30 * 542
            assert total["local/plxtalk.service"]["ip"] == ""
    finally:
        cgroups.remove(groups)


def talk_in_group(group: str, namespace: Namespace, target: str, port: int, count: int) -> None:
    """Datagrams of 500 bytes from a process of a control group."""
    code = (
        "import socket, sys\nopen(sys.argv[1], 'w').write('0')\n"
        "one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for _ in range(int(sys.argv[4])):\n    one.sendto(bytes(500), (sys.argv[2], int(sys.argv[3])))\n"
    )
    entrance = str(hierarchy() / group / "cgroup.procs")
    with namespace.entered():
        subprocess.run([sys.executable, "-c", code, entrance, target, str(port), str(count)], check=True, timeout=30)
