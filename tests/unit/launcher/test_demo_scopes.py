"""What the demo shows: its directory is the aggregator's, and its traffic covers the scopes."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from services.aggregator.directory.static_file import StaticDirectory
from services.flows.scope import Rule, Scope, Verdict, classify
from services.launcher.demo.directory import static_directory
from services.launcher.demo.plan import family_of
from services.launcher.demo.topology import Pod, miniature_cluster
from services.launcher.demo.traffic import demo_plan

TOPOLOGY = miniature_cluster()
PLAN = demo_plan(TOPOLOGY, seed=1, started_s=0.0)
DIRECTORY = StaticDirectory(json.loads(static_directory(TOPOLOGY)), "the demo's directory")


def _verdict(pod: Pod, peer: str) -> Verdict:
    own = frozenset(ip_address(address) for address in pod.address.both())
    me = DIRECTORY.owner(own, pod.node)
    assert me is not None
    return classify(ip_address(peer), me, own, DIRECTORY)


def test_the_directory_knows_every_pod_by_either_address() -> None:
    for pod in TOPOLOGY.pods:
        for address in pod.address.both():
            owner = DIRECTORY.owner([ip_address(address)], pod.node)
            assert owner is not None
            assert (owner.namespace, owner.name) == (pod.namespace, pod.name)
            assert (owner.place.node, owner.place.region) == (pod.node, "eu-1")


@pytest.mark.parametrize("family", [4, 6])
def test_pods_talk_to_peers_of_every_kind_of_scope(family: int) -> None:
    scopes = {
        _verdict(pod, talk.target).scope
        for pod in TOPOLOGY.pods
        for talk in PLAN.parts[pod.role].talks
        if family_of(talk.target) == family
    }
    every_family = {Scope.SAME_NODE, Scope.CROSS_ZONE, Scope.SERVICE, Scope.PRIVATE, Scope.INTERNET}
    assert scopes == every_family | ({Scope.INFRA} if family == 4 else set())


def test_what_comes_from_a_nodes_proxy_is_the_nodes() -> None:
    dns = TOPOLOGY.pod("dns")
    own, other = (TOPOLOGY.node(name) for name in ("node-a", "node-b"))
    assert _verdict(dns, own.gateway.ipv4).rule == Rule.NODE_GATEWAY
    assert _verdict(dns, own.gateway.ipv6).rule == Rule.NODE_GATEWAY
    assert _verdict(dns, other.fabric.ipv4).rule == Rule.NODE
    assert _verdict(dns, other.fabric.ipv6).rule == Rule.NODE


def test_the_vpc_database_is_known_by_its_range() -> None:
    for address in TOPOLOGY.outside("vpc-database").both():
        assert _verdict(TOPOLOGY.pod("database"), address).rule == Rule.USER_CIDR


def test_no_peer_is_left_unresolved() -> None:
    for pod in TOPOLOGY.pods:
        for talk in PLAN.parts[pod.role].talks:
            assert _verdict(pod, talk.target).scope not in {Scope.UNKNOWN, Scope.CLUSTER_UNRESOLVED, Scope.OTHER}
