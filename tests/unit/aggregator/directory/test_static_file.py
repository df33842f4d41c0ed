"""The address file: what it says, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.aggregator.directory import PodDetails
from services.aggregator.directory.static_file import StaticDirectory
from services.flows import address
from services.flows.address import Address
from services.flows.scope import Named, Place, Pod, Scope
from services.runtime.errors import UsageError
from tests.support.worlds import CONTENT, directory

WEB = Pod("shop/web", "shop", "web", Place("node-a", "eu-1a", "eu-1"), (("app", "web"),))


def ip(text: str) -> Address:
    return address.parse(text)


def test_a_pod_has_all_its_addresses_and_its_nodes_place() -> None:
    known = directory()
    assert known.pod(ip("10.1.0.2")) == WEB
    assert known.pod(ip("fd00:1::2")) == WEB
    assert known.pod(ip("10.1.0.9")) is None
    assert known.addresses(WEB) == {ip("10.1.0.2"), ip("fd00:1::2")}
    assert known.details(WEB) == PodDetails()
    assert len(known._pods) == 4


def test_a_pods_own_zone_goes_before_its_nodes() -> None:
    entry = {"namespace": "shop", "pod": "web", "node": "n", "zone": "z2"}
    known = StaticDirectory(
        {"version": 1, "addresses": {"10.0.0.1": entry}, "nodes": {"n": {"zone": "z1", "region": "r1"}}}, "f"
    )
    pod = known.pod(ip("10.0.0.1"))
    assert pod is not None
    assert pod.place == Place("n", "z2", "r1")


def test_each_address_of_a_pod_may_say_a_part_of_it() -> None:
    entries = {
        "10.0.0.1": {"namespace": "shop", "pod": "web", "labels": {"a": "1", "b": "2"}},
        "fd00::1": {"namespace": "shop", "pod": "web", "node": "n", "zone": "z", "labels": {"b": "3", "c": "4"}},
    }
    known = StaticDirectory({"version": 1, "addresses": entries}, "f")
    both = Pod("shop/web", "shop", "web", Place("n", "z"), (("a", "1"), ("b", "2"), ("c", "4")))
    assert [known.pod(ip(text)) for text in entries] == [both, both]


def test_services_nodes_gateways_and_ranges_are_found() -> None:
    known = directory(private_cidr="203.0.113.0/24, 2001:db8::/32")
    assert known.service(ip("10.96.0.10")) == Named("dns", "kube-system")
    assert known.service(ip("10.96.0.11")) is None
    assert known.node(ip("10.0.0.11")) == Named("node-a")
    assert known.node(ip("10.1.0.1")) is None
    assert known.node_gateway(ip("10.1.0.1")) == Named("node-a")
    assert known.node_gateway(ip("fd00:1::1")) == Named("node-a")
    assert known.in_cluster_range(ip("10.2.0.200"))
    assert known.in_cluster_range(ip("fd00:1::ffff"))
    assert not known.in_cluster_range(ip("10.3.0.1"))
    assert known.in_private_cidr(ip("203.0.113.7"))
    assert known.in_private_cidr(ip("2001:db8::7"))
    assert not known.in_private_cidr(ip("198.51.100.7"))
    assert not known.is_api_server(ip("10.96.0.10"))


def test_a_range_of_one_address_has_no_gateway() -> None:
    known = StaticDirectory({"version": 1, "nodes": {"n": {"pod_cidrs": ["255.255.255.255/32"]}}}, "f")
    assert known.in_cluster_range(ip("255.255.255.255"))
    assert known.node_gateway(ip("255.255.255.255")) is None


def test_the_most_specific_range_wins_whoever_wrote_it() -> None:
    known = directory(cidr="db=10.200.7.0/24:infra, six=2001:db8::/32:internet,one=10.200.7.9/32")
    assert known.user_cidr(ip("10.200.1.1")) == (Named("vpc-db"), Scope.PRIVATE)
    assert known.user_cidr(ip("10.200.7.1")) == (Named("db"), Scope.INFRA)
    assert known.user_cidr(ip("10.200.7.9")) == (Named("one"), Scope.PRIVATE)
    assert known.user_cidr(ip("2001:db8::1")) == (Named("six"), Scope.INTERNET)
    assert known.user_cidr(ip("10.201.0.1")) is None


@pytest.mark.parametrize(
    ("addresses", "node", "owner"),
    [
        (["10.1.0.2"], "node-a", "shop/web"),
        (["192.0.2.1", "fd00:1::2"], "node-a", "shop/web"),
        (["10.1.0.2", "10.1.0.3"], "node-a", None),
        (["10.1.0.2", "10.2.0.2"], "node-b", "data/db"),
        (["10.2.0.2"], "node-a", "data/db"),
        (["192.0.2.1"], "node-a", None),
        ([], "node-a", None),
    ],
)
def test_an_interface_is_the_one_pods_that_its_addresses_name(
    addresses: list[str], node: str, owner: str | None
) -> None:
    found = directory().owner(map(ip, addresses), node)
    assert (found.uid if found else None) == owner


def test_without_a_file_nobody_is_known() -> None:
    known = StaticDirectory.read("", private_cidr="10.0.0.0/8")
    assert known._pods == {}
    assert known.in_private_cidr(ip("10.1.0.2"))


def test_it_is_read_from_a_file(folder: Path) -> None:
    path = folder / "addresses.json"
    path.write_text(json.dumps(CONTENT))
    assert StaticDirectory.read(str(path))._pods == directory()._pods


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot read the address file {path}: No such file or directory"),
        ("{", "the address file {path} is not JSON: Expecting property name"),
        ("\xff", "the address file {path} is not JSON: 'utf-8' codec"),
        ("[" * 100_000, "the address file {path} is not JSON: it is nested too deeply"),
        ("[]", "the address file {path} is wrong at the top: expected an object"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(folder: Path, text: str | None, why: str) -> None:
    path = folder / "addresses.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as error:
        StaticDirectory.read(str(path))
    assert str(error.value).startswith(why.format(path=path))


POD = {"namespace": "shop", "pod": "web"}


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({}, "version: expected the number 1"),
        ({"version": 2}, "version: expected the number 1"),
        ({"version": True}, "version: expected the number 1"),
        (
            {"version": 1, "pods": {}},
            "pods: expected no such entry; there are addresses, cidrs, nodes, services, version",
        ),
        ({"version": 1, "addresses": []}, "addresses: expected an object"),
        ({"version": 1, "addresses": {"10.0.0": POD}}, "addresses.10.0.0: expected an IPv4 or IPv6 address"),
        ({"version": 1, "addresses": {"10.0.0.1": []}}, "addresses.10.0.0.1: expected an object"),
        (
            {"version": 1, "addresses": {"10.0.0.1": {"namespace": "shop"}}},
            "addresses.10.0.0.1.pod: expected a string that is not empty",
        ),
        (
            {"version": 1, "addresses": {"10.0.0.1": {**POD, "pod": ""}}},
            "addresses.10.0.0.1.pod: expected a string that is not empty",
        ),
        (
            {"version": 1, "addresses": {"10.0.0.1": {**POD, "zone": 1}}},
            "addresses.10.0.0.1.zone: expected a string",
        ),
        (
            {"version": 1, "addresses": {"10.0.0.1": {**POD, "labels": {"a": 1}}}},
            "addresses.10.0.0.1.labels: expected an object of strings",
        ),
        (
            {"version": 1, "addresses": {"10.0.0.1": POD, "::ffff:10.0.0.1": POD}},
            "addresses.::ffff:10.0.0.1: expected each address once",
        ),
        (
            {"version": 1, "addresses": {"10.0.0.1": {**POD, "node": "a"}, "fd00::1": {**POD, "node": "b"}}},
            "addresses.fd00::1.node: expected 'a' as at another address of pod shop/web",
        ),
        ({"version": 1, "nodes": {"a": []}}, "nodes.a: expected an object"),
        ({"version": 1, "nodes": {"a": {"zone": 7}}}, "nodes.a.zone: expected a string"),
        ({"version": 1, "nodes": {"a": {"addresses": "10.0.0.1"}}}, "nodes.a.addresses: expected a list of strings"),
        ({"version": 1, "nodes": {"a": {"addresses": ["x"]}}}, "nodes.a.addresses.x: expected an IPv4 or IPv6 address"),
        (
            {"version": 1, "nodes": {"a": {"pod_cidrs": ["10.0.0.1/24"]}}},
            "nodes.a.pod_cidrs.10.0.0.1/24: expected an address range, for example 10.0.0.0/8",
        ),
        ({"version": 1, "services": {"10.0.0.1": {}}}, "services.10.0.0.1.name: expected a string that is not empty"),
        ({"version": 1, "services": {"x": {"name": "dns"}}}, "services.x: expected an IPv4 or IPv6 address"),
        (
            {"version": 1, "cidrs": {"office": "10.0.0.0/99"}},
            "cidrs.office.cidr: expected an address range, for example 10.0.0.0/8",
        ),
        ({"version": 1, "cidrs": {"office": {}}}, "cidrs.office.cidr: expected a string that is not empty"),
        (
            {"version": 1, "cidrs": {"office": {"cidr": "10.0.0.0/8", "scope": "near"}}},
            "cidrs.office.scope: expected one of same-pod, same-node, ",
        ),
    ],
)
def test_a_wrong_file_is_named_with_the_place_and_what_belongs_there(content: dict[str, Any], where: str) -> None:
    with pytest.raises(UsageError) as error:
        StaticDirectory(content, "addresses.json")
    assert str(error.value).startswith(f"the address file addresses.json is wrong at {where}")


@pytest.mark.parametrize("section", ["addresses", "nodes", "services", "cidrs"])
def test_a_number_as_a_section_is_wrong(section: str) -> None:
    with pytest.raises(UsageError, match=f"is wrong at {section}: expected an object"):
        StaticDirectory({"version": 1, section: 7}, "addresses.json")


def test_nodes_have_a_place_also_for_pods_that_nobody_names() -> None:
    known = StaticDirectory({"version": 1, "nodes": {"n": {"zone": "z", "region": "r"}}}, "f")
    assert known.place("n") == Place("n", "z", "r")
    assert known.place("m") == Place("m")
