"""podloxx as `kubectl apply -k` brings it: what pods' own interfaces counted is told, over every way that pods talk."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final

import pytest
import yaml

from tests.support.kube_internet import NAME
from tests.support.kube_podloxx import ROOT, Podloxx
from tests.support.kube_work import CLIENT, FILE_BYTES, HTTP, IPERF
from tests.support.truth import interface_sums, peers_of, unwatched
from tests.support.wait import wait_until

# The first test may start the cluster, and waits until podloxx runs on it.
pytestmark = pytest.mark.timeout(300)

BULK: Final = 20_000_000
GREETINGS: Final = 1000
"""Bytes of IPv6's neighbour discovery that may pass between the reading of an interface's counters and its attachment."""
ZONE: Final = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Route:
    """Where the client finds a server of iperf3 and HTTP, and what is to be told of that."""

    address: str
    iperf: int
    http: int
    name: str
    verdict: tuple[str, str]
    server: str = ""
    """The pod that answers, where it sees the client's own address."""


class Work:
    """The pods that talk, and what podloxx tells of them."""

    def __init__(self, podloxx: Podloxx, namespace: str) -> None:
        self.podloxx = podloxx
        self.target = podloxx.target
        self.namespace = namespace
        self._pods = {
            one["metadata"]["name"]: one for one in self.target.get("pods", f"--namespace={namespace}")["items"]
        }

    def pod(self, name: str) -> str:
        return f"{self.namespace}/{name}"

    def ask(self, *command: str) -> str:
        """What a command of the client prints."""
        return self.target.exec(self.pod(CLIENT), *command)

    def address(self, name: str, family: int) -> str:
        """A pod's."""
        return _of(family, [one["ip"] for one in self._pods[name]["status"]["podIPs"]])

    def route(self, way: str, family: int) -> Route:
        """The way of this name: to a pod, by the Service `far`, by its node port, or out of the cluster."""
        if way in {"near pod", "far pod"}:
            pod = way.removesuffix(" pod")
            verdict = ("same-node", "pod-same-node") if pod == "near" else self._apart()
            return Route(self.address(pod, family), IPERF, HTTP, pod, verdict, pod)
        if way == "internet":
            return Route(_of(family, self.target.internet), IPERF, HTTP, "", ("internet", "public"))
        service = self.target.get("service", way, f"--namespace={self.namespace}")["spec"]
        if way == "far":
            return Route(_of(family, service["clusterIPs"]), IPERF, HTTP, "far", ("service", "service"), "far")
        ports = {one["name"]: one["nodePort"] for one in service["ports"]}
        node = self.target.get("node", self._node("far"))["status"]["addresses"]
        address = _of(family, [one["address"] for one in node if one["type"] == "InternalIP"])
        return Route(address, ports["iperf3"], ports["http"], self._node("far"), ("node", "node"))

    def _node(self, name: str) -> str:
        return str(self._pods[name]["spec"]["nodeName"])

    def _apart(self) -> tuple[str, str]:
        zones = {self.target.get("node", self._node(name))["metadata"]["labels"].get(ZONE) for name in ("near", "far")}
        if None in zones:
            return "cluster", "pod"
        return ("same-zone", "pod-same-zone") if len(zones) == 1 else ("cross-zone", "pod-cross-zone")

    def settle(self, *names: str) -> None:
        """Wait until all that these pods' own interfaces counted is told, and no more."""
        differing: dict[str, Any] = {}

        def exact() -> bool:
            total, missed = self.podloxx.get("/traffic/total"), unwatched(self.podloxx)
            lacks = {name: self._lacks(name, total) for name in names}
            differing.clear()
            differing.update((name, (lacks[name], missed.get(self.pod(name)))) for name in names)
            return all(
                told is not None and lacks in {0, told} and told <= GREETINGS for lacks, told in differing.values()
            )

        try:
            wait_until(exact, "what is told is what the interfaces counted", 20)
        except AssertionError as error:
            raise AssertionError(f"{error}: bytes not told, and bytes told as unwatched: {differing}") from None

    def _lacks(self, name: str, total: dict[str, Any]) -> int | None:
        if (told := total.get(self.pod(name))) is None:
            return None
        now = self.target.counters(self.pod(name))
        before = told["transmitStartBytes"] + told["receivedStartBytes"]
        return int(now.rx_bytes + now.tx_bytes - before - interface_sums(told))


def _of(family: int, addresses: Any) -> str:
    """The first address of a family."""
    return str(next(one for one in addresses if (":" in one) == (family == 6)))


@pytest.fixture
def working(work: str, deployed: Podloxx) -> Work:
    return Work(deployed, work)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", ["near pod", "far pod", "far", "far-node", "internet"])
def test_bytes_are_those_of_the_pods_own_interfaces(working: Work, way: str, family: int) -> None:
    if way == "internet" and not working.target.internet:
        pytest.skip("without an internet that is the tests' own")
    route = working.route(way, family)
    before = peers_of_client(working)
    iperf = ("iperf3", "--client", route.address, "--port", str(route.iperf), "--bytes", str(BULK), "--json")
    end = json.loads(working.ask(*iperf))["end"]
    url = f"http://{f'[{route.address}]' if family == 6 else route.address}:{route.http}/file"
    assert working.ask("curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", url) == str(FILE_BYTES)

    talked = [CLIENT, *([route.server] if route.server else [])]
    working.settle(*talked)
    peers = peers_of_client(working)
    for port in (route.iperf, route.http):
        peer = peers["tcp", port, route.address]
        assert (peer["name"], peer["scope"], peer["rule"]) == (route.name, *route.verdict)
    bulk, page = (grown(before, peers, ("tcp", port, route.address)) for port in (route.iperf, route.http))
    # What iperf3 says it sent it gave to its socket: at the end the server resets what is still in there.
    assert bulk["transmitBytes"] > end["sum_received"]["bytes"] >= BULK / 4
    assert page["receivedBytes"] > FILE_BYTES
    if route.server:
        theirs = peers_of(working.podloxx, working.pod(route.server))
        for port in (IPERF, HTTP):
            peer = theirs["tcp", port, working.address(CLIENT, family)]
            assert (peer["name"], peer["namespace"]) == (CLIENT, working.namespace)
            assert peer["scope"] == working.route(f"{route.server} pod", family).verdict[0]


def test_names_are_asked_for_through_a_service(working: Work) -> None:
    if not working.target.internet:
        pytest.skip("without an internet that is the tests' own")
    dns = working.target.get("service", "kube-dns", "--namespace=kube-system")["spec"]["clusterIP"]
    before = peers_of_client(working)
    name = f"far.{working.namespace}.svc.cluster.local"
    service = working.target.get("service", "far", f"--namespace={working.namespace}")["spec"]["clusterIP"]
    assert service in working.ask("drill", name, f"@{dns}")
    assert working.target.internet[0] in working.ask("drill", NAME, f"@{dns}")
    working.settle(CLIENT)
    peers = peers_of_client(working)
    told = peers["udp", 53, dns]
    assert (told["name"], told["namespace"], told["scope"]) == ("kube-dns", "kube-system", "service")
    asked = grown(before, peers, ("udp", 53, dns))
    assert (asked["transmitPackets"], asked["receivedPackets"]) == (2, 2)


def test_the_agents_cost_little_meanwhile(working: Work) -> None:
    began, before = time.monotonic(), used(working)
    route = working.route("far pod", 4)
    working.ask("iperf3", "--client", route.address, "--time", "5", "--bitrate", "500M")
    working.settle(CLIENT, "far")
    after, took = used(working), time.monotonic() - began
    limit = memory_limit()
    for node, (cpu, memory) in sorted(after.items()):
        share = (cpu - before[node][0]) / took
        print(
            f"\ncluster: the agent of {node} took {100 * share:.1f} % of a processor and {memory / 1e6:.0f} MB at most"
        )
        assert share < 0.5
        assert memory < limit


def peers_of_client(working: Work) -> dict[tuple[str, int, str], Any]:
    """The client's peers; none as long as it has not talked."""
    if working.pod(CLIENT) not in working.podloxx.get("/traffic/total"):
        return {}
    return peers_of(working.podloxx, working.pod(CLIENT))


def grown(before: dict[tuple[str, int, str], Any], after: dict[tuple[str, int, str], Any], key: Any) -> dict[str, int]:
    """What was added to a peer's counters."""
    old = before.get(key, {})
    names = ("transmitBytes", "receivedBytes", "transmitPackets", "receivedPackets")
    return {name: after[key][name] - old.get(name, 0) for name in names}


def used(working: Work) -> dict[str, tuple[float, float]]:
    """Processor seconds and the most bytes of memory of each node's agent."""
    nodes = working.podloxx.get("/traffic/nodes")
    return {name: (one["cpuSeconds"], one["memoryMaxBytes"]) for name, one in nodes.items()}


def memory_limit() -> int:
    """The bytes that the agent's container may take."""
    documents = yaml.safe_load_all((ROOT / "k8s/base/agent.yaml").read_text())
    [agent] = [one for one in documents if one["kind"] == "DaemonSet"]
    limit = agent["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert limit.endswith("Mi"), limit
    return int(limit.removesuffix("Mi")) << 20
