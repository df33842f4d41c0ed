"""Every rule of the ladder that a cluster can give, by an aggregator's process and a real API server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from services.flows import traffic
from services.flows.address import parse
from services.flows.delta import Kind
from services.flows.scope import Rule, Scope
from tests.support import generators as frames
from tests.support import kube_objects
from tests.support.agents import NAMES, ScriptedAgent, attachment, flow, window
from tests.support.aggregators import is_
from tests.support.api_server import ApiServer
from tests.support.capture_files import Record, pcap
from tests.support.cluster_aggregator import ClusterAggregator, now_s, peers, sent
from tests.support.kube_client import KubeClient
from tests.support.redis_server import RedisServer
from tests.support.wait import until

SOON_S: Final = 20.0
ME: Final = ("10.81.1.2", "fd81:0:0:1::2")
ARGUMENTS: Final = (
    "--cidr=office=203.0.113.0/24:internet,lab=203.0.113.128/25,office6=2001:db8:1::/48:internet,lab6=2001:db8:1:1::/64",
    "--private-cidr=198.18.0.0/15,2001:db8:2::/48",
)
PLACES: Final = {"n1": ("z1", "r1"), "n2": ("z1", "r1"), "n3": ("z2", "r1"), "n4": ("z1", "r2"), "n5": ("", "")}
PODS: Final = {
    "near": ("n1", ("10.81.1.3", "fd81:0:0:1::3")),
    "beside": ("n2", ("10.81.2.3", "fd81:0:0:2::3")),
    # In the space of carriers and of nobody's range: who is known comes before what is a range.
    "across": ("n3", ("100.64.7.3", "2606:4700::3")),
    "abroad": ("n4", ("10.81.4.3", "fd81:0:0:4::3")),
    "lost": ("n5", ("10.81.5.3", "fd81:0:0:5::3")),
}
Told = tuple[Scope, str, str]
OWN: Final = (Scope.SAME_POD, Rule.OWN_ADDRESS, "me")
EXPECTED: Final[dict[str, Told]] = {
    "169.254.169.254": (Scope.INFRA, Rule.CLOUD_METADATA, ""),
    "fd00:ec2::254": (Scope.INFRA, Rule.CLOUD_METADATA, ""),
    "169.254.20.10": (Scope.INFRA, Rule.NODE_LOCAL_DNS, ""),
    "0.0.0.0": (Scope.OTHER, Rule.UNSPECIFIED, ""),
    "::": (Scope.OTHER, Rule.UNSPECIFIED, ""),
    "127.0.0.1": (Scope.OTHER, Rule.LOOPBACK, ""),
    "::1": (Scope.OTHER, Rule.LOOPBACK, ""),
    "169.254.1.1": (Scope.OTHER, Rule.LINK_LOCAL, ""),
    "fe80::1": (Scope.OTHER, Rule.LINK_LOCAL, ""),
    "224.0.0.251": (Scope.OTHER, Rule.MULTICAST, ""),
    "ff02::fb": (Scope.OTHER, Rule.MULTICAST, ""),
    "255.255.255.255": (Scope.OTHER, Rule.BROADCAST, ""),
    ME[0]: OWN,
    ME[1]: OWN,
    "10.81.1.99": (Scope.CLUSTER_UNRESOLVED, Rule.AMBIGUOUS_WINDOW, ""),
    "fd81:0:0:1::99": (Scope.CLUSTER_UNRESOLVED, Rule.AMBIGUOUS_WINDOW, ""),
    PODS["near"][1][0]: (Scope.SAME_NODE, Rule.POD_SAME_NODE, "near"),
    PODS["near"][1][1]: (Scope.SAME_NODE, Rule.POD_SAME_NODE, "near"),
    PODS["beside"][1][0]: (Scope.SAME_ZONE, Rule.POD_SAME_ZONE, "beside"),
    PODS["beside"][1][1]: (Scope.SAME_ZONE, Rule.POD_SAME_ZONE, "beside"),
    PODS["across"][1][0]: (Scope.CROSS_ZONE, Rule.POD_CROSS_ZONE, "across"),
    PODS["across"][1][1]: (Scope.CROSS_ZONE, Rule.POD_CROSS_ZONE, "across"),
    PODS["abroad"][1][0]: (Scope.CROSS_REGION, Rule.POD_CROSS_REGION, "abroad"),
    PODS["abroad"][1][1]: (Scope.CROSS_REGION, Rule.POD_CROSS_REGION, "abroad"),
    PODS["lost"][1][0]: (Scope.CLUSTER, Rule.POD, "lost"),
    PODS["lost"][1][1]: (Scope.CLUSTER, Rule.POD, "lost"),
    "10.96.7.7": (Scope.SERVICE, Rule.SERVICE, "shop"),
    "fd96::77": (Scope.SERVICE, Rule.SERVICE, "shop"),
    "198.51.100.9": (Scope.SERVICE, Rule.SERVICE, "shop"),
    "2001:db8:9::9": (Scope.SERVICE, Rule.SERVICE, "shop"),
    "198.51.100.8": (Scope.SERVICE, Rule.SERVICE, "shop"),
    "10.80.0.5": (Scope.INFRA, Rule.API_SERVER, ""),
    "fd80::5": (Scope.INFRA, Rule.API_SERVER, ""),
    # A pod in its node's network has no address but the node's.
    "10.80.0.1": (Scope.NODE, Rule.NODE, "n1"),
    "fd80::1": (Scope.NODE, Rule.NODE, "n1"),
    "198.51.100.1": (Scope.NODE, Rule.NODE, "n1"),
    "10.81.1.1": (Scope.NODE, Rule.NODE_GATEWAY, "n1"),
    "fd81:0:0:1::1": (Scope.NODE, Rule.NODE_GATEWAY, "n1"),
    "203.0.113.1": (Scope.INTERNET, Rule.USER_CIDR, "office"),
    "203.0.113.129": (Scope.PRIVATE, Rule.USER_CIDR, "lab"),
    "2001:db8:1::1": (Scope.INTERNET, Rule.USER_CIDR, "office6"),
    "2001:db8:1:1::1": (Scope.PRIVATE, Rule.USER_CIDR, "lab6"),
    "10.81.1.250": (Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE, ""),
    "fd81:0:0:1::250": (Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE, ""),
    "10.96.200.200": (Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE, ""),
    "fd96::fffe": (Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE, ""),
    "10.200.0.1": (Scope.PRIVATE, Rule.PRIVATE_RANGE, ""),
    "172.16.9.9": (Scope.PRIVATE, Rule.PRIVATE_RANGE, ""),
    "192.168.9.9": (Scope.PRIVATE, Rule.PRIVATE_RANGE, ""),
    "100.65.1.1": (Scope.PRIVATE, Rule.PRIVATE_RANGE, ""),
    "fd99::1": (Scope.PRIVATE, Rule.PRIVATE_RANGE, ""),
    "198.18.1.1": (Scope.PRIVATE, Rule.PRIVATE_CIDR, ""),
    "2001:db8:2::1": (Scope.PRIVATE, Rule.PRIVATE_CIDR, ""),
    "1.1.1.1": (Scope.INTERNET, Rule.PUBLIC, ""),
    "2606:4700::1111": (Scope.INTERNET, Rule.PUBLIC, ""),
}
DATAGRAM: Final = frames.udp_datagram(40000, 9, b"")
WITHOUT_PEER: Final = {Kind.NOT_IP: Rule.NOT_IP, Kind.MALFORMED: Rule.MALFORMED, Kind.FOLDED: Rule.FOLDED}
OF_NO_CLUSTER: Final = {Rule.AGENT_GAP, Rule.HIDDEN_DATAPATH, Rule.NO_SOCKET, Rule.SEEN_AT_SENDER}
"""What an agent that was away leaves, and what no source saw: neither needs a directory."""


def test_no_rule_is_left_out() -> None:
    assert {rule for _, rule, _ in EXPECTED.values()} | {*WITHOUT_PEER.values()} == {*Rule} - OF_NO_CLUSTER


@pytest.fixture
async def began(redis: Any) -> int:
    """When all pods began, in Redis's seconds."""
    return await now_s(redis) - 300


@pytest.fixture
def cluster(admin: KubeClient, namespace: str, began: int) -> Iterator[None]:
    """What `EXPECTED` speaks of."""
    for name, (zone, region) in PLACES.items():
        number = name[1:]
        made = kube_objects.node(
            name,
            addresses=[f"10.80.0.{number}", f"fd80::{number}"],
            pod_cidrs=[f"10.81.{number}.0/24", f"fd81:0:0:{number}::/64"],
            external=[f"198.51.100.{number}"],
            zone=zone,
            region=region,
        )
        admin.create(made)
    twins = dict.fromkeys(("twin-a", "twin-b"), ("n1", ("10.81.1.99", "fd81:0:0:1::99")))
    for name, (node, ips) in {"me": ("n1", ME), **PODS, **twins}.items():
        admin.set_status(
            admin.create(kube_objects.pod(namespace, name, node=node)), kube_objects.lived(ips, from_s=began)
        )
    admin.create(kube_objects.pod(namespace, "proxy", node="n1", ips=["10.80.0.1", "fd80::1"], host_network=True))
    admin.create(
        kube_objects.service(
            namespace,
            "shop",
            cluster_ips=["10.96.7.7", "fd96::77"],
            external_ips=["198.51.100.9", "2001:db8:9::9"],
            balancers=["198.51.100.8"],
        )
    )
    slices = [
        admin.create(
            kube_objects.endpoint_slice(
                "default", f"plx-{family.lower()}", service="kubernetes", addresses=[one], family=family
            )
        )
        for family, one in (("IPv4", "10.80.0.5"), ("IPv6", "fd80::5"))
    ]
    yield
    for one in slices:
        admin.delete(one)


@pytest.mark.usefixtures("cluster")
async def test_each_peer_has_its_scope_rule_and_name(
    api_server: ApiServer, redis_server: RedisServer, redis: Any
) -> None:
    mine = attachment(1, *ME)
    sizes = count(1000, 100)
    flows = {one: flow(1, one, tx=next(sizes), local=ME[parse(one).version == 6], port=9) for one in EXPECTED}
    others = [flow(1, "::", tx=next(sizes), kind=kind, port=0) for kind in WITHOUT_PEER]
    agent = ScriptedAgent(node="n1")
    # What nobody owns waits for a moment: so long ago it has waited.
    batch = agent.batch(window([mine], *flows.values(), *others, second=await now_s(redis) - 20))
    with ClusterAggregator(redis_server, api_server.kubeconfig(), ARGUMENTS).running():
        await agent.send(redis, batch)
        wanted = len(EXPECTED) + len(WITHOUT_PEER)

        async def all_told() -> bool:
            return len(await peers(redis, "me")) >= wanted

        await until(all_told, "all peers have their verdicts", SOON_S)
        found = await peers(redis, "me")
    told = {one.address: (one.scope, one.rule, one.name) for one in found if one.kind == Kind.IP}
    assert told == EXPECTED
    assert {one.address: sent(one) for one in found if one.address} == {
        one: int(row["tx_bytes"][0]) for one, row in flows.items()
    }
    assert {one.kind: one.rule for one in found if one.kind != Kind.IP} == WITHOUT_PEER
    assert all(one.scope is Scope.UNKNOWN for one in found if one.kind != Kind.IP)


def recorded(at_s: int) -> bytes:
    """A file with a packet to every peer, one without any, and one that is cut."""
    packets = []
    for one in EXPECTED:
        six = parse(one).version == 6
        ip = frames.ipv6(ME[1], one, 17, DATAGRAM) if six else frames.ipv4(ME[0], one, 17, DATAGRAM)
        packets.append(frames.ethernet(0x86DD if six else 0x0800, ip))
    packets.append(frames.ethernet(0x0806, frames.arp_request(ME[0], "10.81.1.1")))
    packets.append(frames.ethernet(0x0800, b"\x45\x00"))
    return pcap(Record((at_s * 1000 + at) * 1000, packet) for at, packet in enumerate(packets))


@pytest.mark.usefixtures("cluster")
async def test_recorded_packets_have_the_same_verdicts(
    api_server: ApiServer, redis_server: RedisServer, redis: Any, folder: Path
) -> None:
    (folder / "pods.pcap").write_bytes(recorded(await now_s(redis) - 20))
    (folder / "local").write_text("\n".join(ME))
    capture = [
        *(sys.executable, "-m", "services.capture", f"--redis-url={redis_server.url}", "--node=n1", "--capture=pcap"),
        *(f"--pcap-files={folder}/pods.pcap", f"--pcap-local-file={folder}/local"),
    ]
    with ClusterAggregator(redis_server, api_server.kubeconfig(), ARGUMENTS).running():
        # It ends when everything is in the totals.
        await asyncio.to_thread(subprocess.run, capture, check=True, timeout=40)
        await until(lambda: is_(_settled(redis), 0), "nothing waits any more", SOON_S)
        found = await peers(redis, "me")
    assert {one.address: (one.scope, one.rule, one.name) for one in found if one.kind == Kind.IP} == EXPECTED


async def _settled(redis: Any) -> int:
    """Bytes without a verdict."""
    return traffic.decode_session(await redis.hget(NAMES.totals, "session")).pending_bytes
