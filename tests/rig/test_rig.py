"""podloxx in containers, as a cluster would run it, shows what other containers talk."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tests.support import kube_objects
from tests.support.programs import TOOLS
from tests.support.rig import GREETINGS, Rig, addresses_of, container, docker
from tests.support.truth import lacking, peers_of, sent_within, wait_for_total
from tests.support.wait import wait_until

# The first test brings the rig up.
pytestmark = pytest.mark.timeout(300)

CAPABILITIES: Final = {"NET_RAW": 13, "PERFMON": 38, "BPF": 39}
HEADERS: Final = {4: 14 + 20 + 8, 6: 14 + 40 + 8}
INTERNET: Final = "198.51.100.7"


def send(rig: Rig, address: str, port: int, *, count: int, size: int) -> int:
    """Have the client send datagrams; the bytes that its interface counts for them."""
    rig.send("client", address, port, count=count, size=size)
    return count * (HEADERS[6 if ":" in address else 4] + size)


def settled(rig: Rig) -> dict[str, Any]:
    """The talkers' rows once the API has every byte of their interfaces, but what passed before it watched them."""

    def holds(pods: Any) -> bool:
        return lacking(rig.machine, rig.talkers(pods)) == rig.unwatched

    return rig.talkers(wait_for_total(rig, holds, "the API's sums are the kernel's"))


def counted_once(rig: Rig, scope: str) -> bool:
    """Whether the cluster's total has what was sent within a scope once, at its sender.

    A question to all neighbours, by which IPv6 finds one, has many receivers and no sender of that scope.
    """
    sent = sent_within(rig.get("/traffic/total"), scope)
    overview = rig.get("/traffic/overview")
    assert overview["loss"] == {}
    once = overview["clusterScopes"][scope]
    return bool(once["transmitBytes"] == sent and once["receivedBytes"] <= GREETINGS)


@pytest.mark.parametrize(
    ("service", "user", "capabilities"),
    [
        ("capture", 0, sum(1 << number for number in CAPABILITIES.values())),
        ("aggregator", 65532, 0),
        ("api", 65532, 0),
        ("redis", 65532, 0),
    ],
)
def test_a_container_has_just_the_rights_that_it_needs(rig: Rig, service: str, user: int, capabilities: int) -> None:
    lines = rig.run(service, "cat", "/proc/1/status").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == status["Gid"] == [str(user)] * 4
    assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {capabilities}
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]
    mounts = [line.split() for line in rig.run(service, "cat", "/proc/mounts").splitlines()]
    assert "ro" in next(fields[3] for fields in mounts if fields[1] == "/").split(",")


def test_the_agent_counts_in_the_kernel_and_misses_nothing(rig: Rig) -> None:
    [agent] = rig.get("/traffic/nodes").values()
    assert agent["source"] == "ebpf"
    assert rig.get("/traffic/overview")["loss"] == {}


def test_what_is_served_is_what_was_talked(rig: Rig) -> None:
    """What tests/e2e/test_local.py asserts of namespaces, here of containers and other people's programs."""
    got = [rig.run("client", "curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", url) for url in URLS]
    assert got == ["3000000", "3000000"]
    for server, address in (("10.90.1.53", "10.90.1.10"), ("fd90::1:53", "10.90.1.10")):
        answer = rig.run("client", "drill", "-p", "5353", "web.shop.example", f"@{server}")
        assert address in answer
    bulk = {
        address: json.loads(rig.run("client", "iperf3", "--client", address, "--bytes", "20M", "--json"))["end"]
        for address in ("10.90.2.30", "fd90::2:30")
    }
    sent = send(rig, "10.90.1.10", 9000, count=500, size=700)
    sent6 = send(rig, "fd90::1:10", 9001, count=300, size=900)
    settled(rig)
    peers = peers_of(rig, "shop/client")
    assert peers["udp", 9000, "10.90.1.10"]["transmitBytes"] == sent
    assert peers["udp", 9000, "10.90.1.10"]["transmitPackets"] == 500
    assert peers["udp", 9001, "fd90::1:10"]["transmitBytes"] == sent6
    told = {key: (peer["name"], peer["scope"], peer["rule"]) for key, peer in peers.items()}
    for address in ("10.90.1.10", "fd90::1:10"):
        assert told["tcp", 8080, address] == ("web", "same-node", "pod-same-node")
        assert peers["tcp", 8080, address]["receivedBytes"] > 3_000_000
    for address in ("10.90.1.53", "fd90::1:53"):
        assert told["udp", 5353, address] == ("dns", "same-node", "pod-same-node")
    for address, end in bulk.items():
        assert told["tcp", 5201, address] == ("bulk", "same-zone", "pod-same-zone")
        # What iperf3 says it sent it gave to its socket: at the end the server resets what is still in there.
        assert peers["tcp", 5201, address]["transmitBytes"] > end["sum_received"]["bytes"] >= 10_000_000
    mirrored = peers_of(rig, "shop/bulk")
    for client, server in (("10.90.1.20", "10.90.2.30"), ("fd90::1:20", "fd90::2:30")):
        here, there = peers["tcp", 5201, server], mirrored["tcp", 5201, client]
        assert (there["receivedBytes"], there["transmitBytes"]) == (here["transmitBytes"], here["receivedBytes"])
    wait_until(lambda: counted_once(rig, "same-zone"), "the cluster's total has each byte once")


URLS: Final = ("http://10.90.1.10:8080/page", "http://[fd90::1:10]:8080/page")


def test_near_and_far_are_told_apart_to_the_byte(rig: Rig) -> None:
    # A port for each test: a pod's peers are told apart by it.
    sent = {
        ("udp", 9100, "10.90.3.40"): (send(rig, "10.90.3.40", 9100, count=50, size=1000), "cross-zone"),
        ("udp", 9100, "fd90::3:40"): (send(rig, "fd90::3:40", 9100, count=60, size=1000), "cross-zone"),
        ("udp", 9100, "10.1.2.3"): (send(rig, "10.1.2.3", 9100, count=70, size=500), "private"),
        ("udp", 9100, INTERNET): (send(rig, INTERNET, 9100, count=90, size=300), "internet"),
    }
    settled(rig)
    peers = peers_of(rig, "shop/client")
    assert {key: (peers[key]["transmitBytes"], peers[key]["scope"]) for key in sent} == sent


def test_a_container_that_comes_later_has_its_pods_name(rig: Rig) -> None:
    options = ("--network", "podloxx-rig_pods", "--ip", "10.90.3.77", "--cap-drop", "ALL", "--stop-signal", "KILL")
    docker("run", "--detach", "--rm", "--name", "podloxx-rig-late-1", *options, TOOLS, "sleep", "600")
    try:
        pod = kube_objects.pod("shop", "late", node="rig-3", ips=addresses_of(container("late")))
        rig.create(pod)
        docker("exec", container("late"), "curl", "-sS", "-o", "/dev/null", URLS[0])

        def told(pods: Any) -> bool:
            return "shop/late" in pods and pods["shop/late"]["scopes"]["cross-zone"]["receivedBytes"] > 3_000_000

        wait_for_total(rig, told, "what it got is told under its pod's name")
    finally:
        docker("rm", "--force", container("late"))
        rig.as_admin(lambda admin: admin.delete(pod))


def test_a_killed_aggregator_loses_nothing(rig: Rig) -> None:
    settled(rig)
    docker("kill", "--signal", "KILL", container("aggregator"))
    sent = send(rig, "10.90.1.10", 9200, count=1000, size=900)
    docker("start", container("aggregator"))

    def booked() -> bool:
        peer = peers_of(rig, "shop/client").get(("udp", 9200, "10.90.1.10"))
        return peer is not None and peer["transmitBytes"] == sent

    wait_until(booked, "what was sent without an aggregator is in the totals", timeout_s=30)
    settled(rig)
