"""The plan of the demo's traffic: complete, possible, and the same after its way as JSON."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from services.launcher.demo.directory import static_directory
from services.launcher.demo.plan import (
    Part,
    Plan,
    PlanError,
    Serve,
    Talk,
    decode,
    encode,
    family_of,
    only_ipv4,
)
from services.launcher.demo.topology import INTERNET_ROLE, Topology, miniature_cluster
from services.launcher.demo.traffic import demo_plan

TOPOLOGY = miniature_cluster()
PLAN = demo_plan(TOPOLOGY, seed=1, started_s=0.0)


def _transport(kind: str) -> str:
    return "udp" if kind in {"dns", "bulk-udp", "proxy-udp"} else "tcp"


def _addresses_of(role: str, topology: Topology) -> set[str]:
    """Every address that the process of `role` may use in its namespace."""
    if role == INTERNET_ROLE:
        return {a for host in topology.outsiders for pair in host.addresses for a in pair.both()}
    for node in topology.nodes:
        if node.name == role:
            virtual = {a for service in topology.services for a in service.address.both()}
            return virtual | {topology.metadata}
    return set(topology.pod(role).address.both())


def test_every_role_has_a_part() -> None:
    roles = {pod.role for pod in TOPOLOGY.pods} | {node.name for node in TOPOLOGY.nodes}
    assert set(PLAN.parts) == roles | {INTERNET_ROLE}


@pytest.mark.parametrize("role", sorted(PLAN.parts))
def test_a_part_uses_only_addresses_of_its_own(role: str) -> None:
    part = PLAN.parts[role]
    used = {address for serve in part.serves for address in serve.addresses}
    used |= {source for talk in part.talks for source in talk.sources}
    assert used <= _addresses_of(role, TOPOLOGY)


def test_every_talk_has_a_server_of_its_kind() -> None:
    served = {
        (address, serve.port, _transport(serve.kind))
        for part in PLAN.parts.values()
        for serve in part.serves
        for address in serve.addresses
    }
    asked = {(talk.target, talk.port, _transport(talk.kind)) for part in PLAN.parts.values() for talk in part.talks}
    assert asked <= served


def test_every_proxy_has_a_backend_that_serves() -> None:
    served = {
        (address, serve.port) for part in PLAN.parts.values() for serve in part.serves for address in serve.addresses
    }
    proxies = [s for part in PLAN.parts.values() for s in part.serves if s.backends]
    assert {proxy.kind for proxy in proxies} == {"proxy-tcp", "proxy-udp"}
    for proxy in proxies:
        assert {(backend, proxy.backend_port) for backend in proxy.backends} <= served


def test_no_two_servers_of_a_process_share_a_port() -> None:
    for part in PLAN.parts.values():
        taken = [(a, s.port, _transport(s.kind)) for s in part.serves for a in s.addresses]
        assert len(taken) == len(set(taken))


def test_each_kind_is_spoken_over_both_families() -> None:
    spoken = {(talk.kind, family_of(talk.target)) for part in PLAN.parts.values() for talk in part.talks}
    kinds = {"http", "dns", "cache", "database", "bulk-tcp", "bulk-udp"}
    assert spoken == {(kind, family) for kind in kinds for family in (4, 6)}


def test_sources_are_of_the_targets_family() -> None:
    for part in PLAN.parts.values():
        for talk in part.talks:
            assert {family_of(source) for source in talk.sources} <= {family_of(talk.target)}


def test_nobody_waits_for_the_batch_job() -> None:
    gone = {a for pod in TOPOLOGY.pods if pod.batch for a in pod.address.both()}
    targets = {talk.target for part in PLAN.parts.values() for talk in part.talks}
    assert gone
    assert not gone & targets


def test_addresses_are_written_as_the_kernel_prints_them() -> None:
    written = {talk.target for part in PLAN.parts.values() for talk in part.talks}
    written |= {a for pod in TOPOLOGY.pods for a in pod.address.both()}
    written |= {a for node in TOPOLOGY.nodes for a in (*node.gateway.both(), *node.uplink.both())}
    assert {str(ip_address(address)) for address in written} == written


def test_pods_and_gateways_lie_in_their_nodes_ranges() -> None:
    for node in TOPOLOGY.nodes:
        four, six = ip_network(node.pod_ipv4), ip_network(node.pod_ipv6)
        assert node.gateway.both() == (str(four[1]), str(six[1]))
        for pod in TOPOLOGY.pods:
            inside = ip_address(pod.address.ipv4) in four, ip_address(pod.address.ipv6) in six
            assert inside == ((True, True) if pod.node == node.name else (False, False))


def test_the_plan_survives_its_way_as_json() -> None:
    assert decode(encode(PLAN)) == PLAN


def test_without_ipv6_no_such_address_is_left() -> None:
    plan = only_ipv4(PLAN)
    left = [t.target for part in plan.parts.values() for t in part.talks]
    left += [a for part in plan.parts.values() for s in part.serves for a in s.addresses]
    left += [b for part in plan.parts.values() for s in part.serves for b in s.backends]
    left += [a for part in plan.parts.values() for t in part.talks for a in t.sources]
    assert left
    assert {family_of(address) for address in left} == {4}


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(PlanError, match="no part for the role 'nobody'"):
        PLAN.part("nobody")


SMALL = Plan(
    seed=1,
    started_s=0.0,
    names={"a.example": ("192.0.2.1", "2001:db8::1")},
    parts={"web": Part((Serve("http", ("192.0.2.1",), 80),), (Talk("dns", "192.0.2.1", 53, 1.0, 0),))},
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seed": 1', '"seed": "one"'),
        ('"seed": 1, ', ""),
        ('"kind": "http"', '"kind": "gopher"'),
        ('"port": 80', '"port": "80"'),
        ('"rate": 1.0', '"rate": "much"'),
        ('"addresses": ["192.0.2.1"]', '"addresses": "192.0.2.1"'),
        ('"web": {', '"web": 3, "x": {'),
        ('["192.0.2.1", "2001:db8::1"]', '["192.0.2.1"]'),
        ("}", ""),
    ],
)
def test_a_broken_plan_is_a_plan_error(old: str, new: str) -> None:
    text = encode(SMALL).decode()
    assert old in text
    with pytest.raises(PlanError):
        decode(text.replace(old, new))


def test_the_directory_names_every_pod_node_and_service() -> None:
    directory = json.loads(static_directory(TOPOLOGY))
    assert directory["version"] == 1
    assert directory["addresses"]["fd42:706c:78:2::13"] == {
        "namespace": "data",
        "pod": "database-0",
        "node": "node-b",
        "zone": "eu-1b",
        "region": "eu-1",
        "labels": {"app": "database", "podloxx.demo/role": "database"},
    }
    assert len(directory["addresses"]) == 2 * len(TOPOLOGY.pods)
    assert directory["nodes"]["node-a"] == {
        "addresses": ["192.168.70.1", "fd70:706c:78::1", "192.168.71.2", "fd71:706c:78::2"],
        "zone": "eu-1a",
        "region": "eu-1",
        "pod_cidrs": ["10.42.1.0/24", "fd42:706c:78:1::/64"],
    }
    assert directory["services"]["10.96.0.10"] == {"namespace": "kube-system", "name": "kube-dns"}
    assert directory["cidrs"]["vpc"] == {"cidr": "10.200.0.0/16", "scope": "private"}
