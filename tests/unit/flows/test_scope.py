"""Every rule of the ladder, both families, and their order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.flows.address import Address, parse
from services.flows.scope import (
    COLUMN_OF,
    Ambiguous,
    Column,
    Named,
    Place,
    Pod,
    Rule,
    Scope,
    classify,
    distance,
)

HERE = Place("node-a", "eu-1a", "eu-1")
ME = Pod("uid-me", "shop", "web", HERE)
OWN = frozenset({parse("10.1.0.2"), parse("fd00:1::2")})


@dataclass
class Known:
    """A world of plain dicts."""

    pods: dict[str, Pod] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)
    services: dict[str, Named] = field(default_factory=dict)
    api_servers: set[str] = field(default_factory=set)
    nodes: dict[str, Named] = field(default_factory=dict)
    gateways: dict[str, Named] = field(default_factory=dict)
    cidrs: dict[str, tuple[Named, Scope]] = field(default_factory=dict)
    ranges: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)

    def pod(self, address: Address) -> Pod | None:
        if str(address) in self.ambiguous:
            raise Ambiguous
        return self.pods.get(str(address))

    def service(self, address: Address) -> Named | None:
        return self.services.get(str(address))

    def is_api_server(self, address: Address) -> bool:
        return str(address) in self.api_servers

    def node(self, address: Address) -> Named | None:
        return self.nodes.get(str(address))

    def node_gateway(self, address: Address) -> Named | None:
        return self.gateways.get(str(address))

    def user_cidr(self, address: Address) -> tuple[Named, Scope] | None:
        return self.cidrs.get(str(address))

    def in_cluster_range(self, address: Address) -> bool:
        return str(address) in self.ranges

    def in_private_cidr(self, address: Address) -> bool:
        return str(address) in self.private


def world_with(address: str, what: str) -> Known:
    """A world in which `address` is one thing only."""
    named = Named("x")
    return {
        "pod": Known(pods={address: Pod("u", "ns", "p", HERE)}),
        "ambiguous": Known(ambiguous={address}),
        "service": Known(services={address: named}),
        "api": Known(api_servers={address}),
        "node": Known(nodes={address: named}),
        "gateway": Known(gateways={address: named}),
        "cidr": Known(cidrs={address: (named, Scope.PRIVATE)}),
        "range": Known(ranges={address}),
        "private": Known(private={address}),
        "": Known(),
    }[what]


@pytest.mark.parametrize(
    ("address", "what", "scope", "rule"),
    [
        ("169.254.169.254", "", Scope.INFRA, Rule.CLOUD_METADATA),
        ("fd00:ec2::254", "", Scope.INFRA, Rule.CLOUD_METADATA),
        ("169.254.20.10", "", Scope.INFRA, Rule.NODE_LOCAL_DNS),
        ("0.0.0.0", "", Scope.OTHER, Rule.UNSPECIFIED),
        ("::", "", Scope.OTHER, Rule.UNSPECIFIED),
        ("127.0.0.1", "", Scope.OTHER, Rule.LOOPBACK),
        ("::1", "", Scope.OTHER, Rule.LOOPBACK),
        ("169.254.1.1", "", Scope.OTHER, Rule.LINK_LOCAL),
        ("fe80::1", "", Scope.OTHER, Rule.LINK_LOCAL),
        ("224.0.0.251", "", Scope.OTHER, Rule.MULTICAST),
        ("ff02::1", "", Scope.OTHER, Rule.MULTICAST),
        ("255.255.255.255", "", Scope.OTHER, Rule.BROADCAST),
        ("10.1.0.2", "pod", Scope.SAME_POD, Rule.OWN_ADDRESS),
        ("fd00:1::2", "", Scope.SAME_POD, Rule.OWN_ADDRESS),
        ("10.1.0.3", "pod", Scope.SAME_NODE, Rule.POD_SAME_NODE),
        ("fd00:1::3", "pod", Scope.SAME_NODE, Rule.POD_SAME_NODE),
        ("10.1.0.3", "ambiguous", Scope.CLUSTER_UNRESOLVED, Rule.AMBIGUOUS_WINDOW),
        ("100.64.0.9", "pod", Scope.SAME_NODE, Rule.POD_SAME_NODE),
        ("34.118.224.1", "service", Scope.SERVICE, Rule.SERVICE),
        ("fd00:96::1", "service", Scope.SERVICE, Rule.SERVICE),
        ("10.0.0.10", "api", Scope.INFRA, Rule.API_SERVER),
        ("10.0.0.11", "node", Scope.NODE, Rule.NODE),
        ("fd00:2::11", "node", Scope.NODE, Rule.NODE),
        ("10.1.0.1", "gateway", Scope.NODE, Rule.NODE_GATEWAY),
        ("203.0.113.9", "cidr", Scope.PRIVATE, Rule.USER_CIDR),
        ("2001:db8::9", "cidr", Scope.PRIVATE, Rule.USER_CIDR),
        ("10.1.0.77", "range", Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE),
        ("10.9.9.9", "", Scope.PRIVATE, Rule.PRIVATE_RANGE),
        ("172.16.0.1", "", Scope.PRIVATE, Rule.PRIVATE_RANGE),
        ("192.168.1.1", "", Scope.PRIVATE, Rule.PRIVATE_RANGE),
        ("100.64.0.1", "", Scope.PRIVATE, Rule.PRIVATE_RANGE),
        ("fc00::1", "", Scope.PRIVATE, Rule.PRIVATE_RANGE),
        ("198.51.100.1", "private", Scope.PRIVATE, Rule.PRIVATE_CIDR),
        ("172.32.0.1", "", Scope.INTERNET, Rule.PUBLIC),
        ("100.128.0.1", "", Scope.INTERNET, Rule.PUBLIC),
        ("1.1.1.1", "", Scope.INTERNET, Rule.PUBLIC),
        ("2606:4700::1", "", Scope.INTERNET, Rule.PUBLIC),
    ],
)
def test_each_rule(address: str, what: str, scope: Scope, rule: Rule) -> None:
    verdict = classify(parse(address), ME, OWN, world_with(address, what))
    assert (verdict.scope, verdict.rule) == (scope, rule)


@pytest.mark.parametrize(
    ("there", "scope"),
    [
        (Place("node-a", "eu-1a", "eu-1"), Scope.SAME_NODE),
        (Place("node-b", "eu-1a", "eu-1"), Scope.SAME_ZONE),
        (Place("node-b", "eu-1b", "eu-1"), Scope.CROSS_ZONE),
        (Place("node-b", "us-1a", "us-1"), Scope.CROSS_REGION),
        (Place("node-b", "eu-1a", "us-1"), Scope.CROSS_REGION),
        (Place("node-b", "eu-1a", ""), Scope.SAME_ZONE),
        (Place("node-b", "", ""), Scope.CLUSTER),
        (Place("node-b", "", "eu-1"), Scope.CLUSTER),
        (Place("", "", ""), Scope.CLUSTER),
    ],
)
def test_distance_of_two_pods(there: Place, scope: Scope) -> None:
    assert distance(HERE, there)[0] is scope


def test_two_pods_of_unknown_nodes_are_not_on_the_same_node() -> None:
    assert distance(Place(), Place())[0] is Scope.CLUSTER


def test_another_address_of_the_same_pod_is_the_same_pod() -> None:
    verdict = classify(parse("10.1.0.9"), ME, OWN, Known(pods={"10.1.0.9": ME}))
    assert (verdict.scope, verdict.peer) == (Scope.SAME_POD, ME)


def test_a_mapped_address_gets_the_verdict_of_its_ipv4_address() -> None:
    world = world_with("10.1.0.3", "pod")
    assert classify(parse("::ffff:10.1.0.3"), ME, OWN, world).scope is Scope.SAME_NODE


def test_an_unknown_pod_still_gets_verdicts() -> None:
    assert classify(parse("10.1.0.3"), None, frozenset(), world_with("10.1.0.3", "pod")).scope is Scope.CLUSTER


@given(st.ip_addresses())
def test_every_address_gets_a_verdict(address: Address) -> None:
    verdict = classify(address, ME, OWN, Known())
    assert verdict.scope in Scope
    assert verdict.rule in Rule


def test_every_scope_is_in_one_of_five_columns() -> None:
    assert set(COLUMN_OF) == set(Scope)
    assert set(COLUMN_OF.values()) == set(Column)
