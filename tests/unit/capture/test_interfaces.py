from __future__ import annotations

from ipaddress import ip_address

import pytest

from services.capture.interfaces import Link, NodeAddress, Route, Selection, selected
from services.runtime.errors import UsageError

AUTOMATIC = Selection()

# How the host sides of pods are called: CNI, kind of link, names.
STYLES = [
    ("Azure CNI", "veth", ["azv1a2b3c4d5e6"]),
    ("Calico, Canal", "veth", ["cali0123456789a"]),
    ("AWS VPC CNI", "veth", ["eni0123456789a"]),
    ("AWS VPC CNI, security groups", "veth", ["vlan0123456789a"]),
    ("OCI native", "veth", ["oci8d3f2a1b9c"]),
    ("Cilium", "veth", ["lxc0a1b2c3d4e5f", "lxc12"]),
    ("Cilium on netkit", "netkit", ["lxc0a1b2c3d4e5f"]),
    ("GKE", "veth", ["gke3f2a1b9c8d7", "veth5a3b1c9d"]),
    ("kubenet, flannel, kindnet, docker, podman …", "veth", ["veth5a3b1c9d", "vethe1f2a3b4", "veth0"]),
    ("OVN-Kubernetes", "veth", ["3f2a1b9c8d7e6f5"]),
    ("Antrea", "veth", ["coredns--a1b2c3", "web-0-9f8e7d"]),
    ("Weave", "veth", ["vethwepl1a2b3c4"]),
]


def names(links: list[Link]) -> list[str]:
    return [link.name for link in links]


def veth(index: int, name: str, peer_netns: int | None = 0, kind: str = "veth") -> Link:
    return Link(index, name, kind, peer_netns)


def subnet(index: int, address: str) -> NodeAddress:
    return NodeAddress(index, ip_address(address), alone=False)


def alone(index: int, address: str) -> NodeAddress:
    return NodeAddress(index, ip_address(address), alone=True)


@pytest.mark.parametrize(("kind", "style"), [style[1:] for style in STYLES], ids=[style[0] for style in STYLES])
def test_the_host_side_of_a_pod_is_found_whatever_it_is_called(kind: str, style: list[str]) -> None:
    node = [Link(1, "lo"), Link(2, "eth0"), Link(3, "cni0", "bridge"), Link(4, "flannel.1", "vxlan")]
    pods = [veth(10 + at, name, at, kind) for at, name in enumerate(style)]
    assert names(selected([*node, *pods], [Route(2, via=True, default=True)], [subnet(2, "192.0.2.7")], AUTOMATIC)) == (
        style
    )


@pytest.mark.parametrize("style", [style for _, _, found in STYLES for style in found])
def test_a_prefix_finds_every_naming_style(style: str) -> None:
    links = [veth(7, style), veth(8, "other0")]
    assert names(selected(links, [], [], Selection.parse(f"zzz|{style[:4]}", ""))) == [style]


def test_pods_come_ordered_by_index() -> None:
    links = [veth(9, "veth9"), veth(3, "veth3"), veth(5, "veth5")]
    assert names(selected(links, [], [], AUTOMATIC)) == ["veth3", "veth5", "veth9"]


def test_a_veth_whose_other_end_is_here_too_is_no_pod() -> None:
    assert selected([veth(5, "cilium_host", None), veth(6, "cilium_net", None)], [], [], AUTOMATIC) == []


def test_the_other_end_may_be_in_a_namespace_that_has_no_number_yet() -> None:
    assert names(selected([veth(5, "veth5", -1)], [], [], AUTOMATIC)) == ["veth5"]


@pytest.mark.parametrize("kind", ["", "bridge", "vlan", "vxlan", "tun", "bond", "macvlan", "ipvlan", "wireguard"])
def test_only_paired_links_are_found_without_being_named(kind: str) -> None:
    assert selected([Link(5, "veth5", kind, 0)], [], [], AUTOMATIC) == []


@pytest.mark.parametrize("selection", [AUTOMATIC, Selection.parse("lxc", "")])
def test_ciliums_health_probe_is_no_pod(selection: Selection) -> None:
    assert names(selected([veth(5, "lxc_health"), veth(6, "lxc0a1b2c")], [], [], selection)) == ["lxc0a1b2c"]


# --- Nodes that are containers themselves


@pytest.mark.parametrize("selection", [AUTOMATIC, Selection.parse("eth|veth", "")])
def test_the_uplink_of_a_node_that_is_a_container_is_no_pod(selection: Selection) -> None:
    links = [veth(2, "eth0", 0), veth(7, "veth7", 1)]
    routes = [Route(2, via=True, default=True)]
    assert names(selected(links, routes, [subnet(2, "172.18.0.2")], selection)) == ["veth7"]


def test_an_uplink_with_a_default_route_needs_no_address_of_its_own() -> None:
    links = [veth(2, "eth0", 0), veth(7, "veth7", 1)]
    assert names(selected(links, [Route(2, default=True)], [], AUTOMATIC)) == ["veth7"]


def test_a_second_uplink_ends_where_the_first_one_does() -> None:
    links = [veth(2, "eth0", 0), veth(3, "eth1", 0), veth(7, "veth7", 1)]
    addresses = [subnet(2, "172.18.0.2"), subnet(3, "172.19.0.2")]
    assert names(selected(links, [Route(2, via=True, default=True)], addresses, AUTOMATIC)) == ["veth7"]


def test_a_link_of_the_nodes_own_network_that_leads_to_routers_is_an_uplink() -> None:
    links = [veth(2, "to-node-b", 0), veth(7, "veth7", 1)]
    routes = [Route(2, via=True)]
    assert names(selected(links, routes, [subnet(2, "192.168.70.1")], AUTOMATIC)) == ["veth7"]


def test_ptps_host_sides_carry_the_gateway_and_are_pods_all_the_same() -> None:
    links = [veth(2, "eth0", 0), veth(7, "veth7", 1), veth(8, "veth8", 2)]
    addresses = [subnet(2, "172.18.0.2"), *(alone(index, "10.1.0.1") for index in (7, 8))]
    addresses += [alone(7, "fd01::1"), subnet(7, "fe80::1")]
    routes = [
        Route(2, via=True, default=True),
        Route(7, host=ip_address("10.1.0.7")),
        Route(7, host=ip_address("fd01::1")),
    ]
    assert names(selected(links, routes, addresses, AUTOMATIC)) == ["veth7", "veth8"]


def test_a_gateway_with_a_network_is_no_uplink_either() -> None:
    links = [Link(2, "eth0"), veth(7, "veth7", 0)]
    routes = [Route(2, via=True, default=True), Route(7)]
    assert names(selected(links, routes, [subnet(7, "10.9.1.1")], AUTOMATIC)) == ["veth7"]


def test_a_pod_that_routes_for_others_is_a_pod() -> None:
    routes = [Route(7, host=ip_address("10.1.0.7")), Route(7, via=True)]
    assert names(selected([veth(7, "veth7")], routes, [alone(7, "10.1.0.1")], AUTOMATIC)) == ["veth7"]


# --- Addresses of pods


def test_routes_to_single_addresses_name_the_pods() -> None:
    routes = [
        Route(7, host=ip_address("10.1.0.7")),
        Route(8, host=ip_address("10.1.0.8")),
        Route(7, host=ip_address("fd01::7")),
        Route(7, host=ip_address("10.1.0.7")),
    ]
    found = selected([veth(7, "veth7"), veth(8, "veth8")], routes, [], AUTOMATIC)
    assert [link.addresses for link in found] == [
        (ip_address("10.1.0.7"), ip_address("fd01::7")),
        (ip_address("10.1.0.8"),),
    ]


@pytest.mark.parametrize(
    "route",
    [
        Route(7, host=ip_address("10.1.0.1")),
        Route(7, host=ip_address("fe80::42")),
        Route(7, host=ip_address("169.254.1.1")),
        Route(7, host=ip_address("ff02::1")),
        Route(7, host=ip_address("10.200.0.9"), via=True),
        Route(7),
    ],
    ids=["the node's own", "link-local", "link-local IPv4", "multicast", "behind the pod", "a network"],
)
def test_other_routes_do_not(route: Route) -> None:
    assert selected([veth(7, "veth7")], [route], [alone(7, "10.1.0.1")], AUTOMATIC)[0].addresses == ()


# --- Names and prefixes


def test_prefixes_are_a_list() -> None:
    links = [veth(3, "azv1"), veth(4, "veth1"), veth(5, "cali1"), veth(6, "lxc1")]
    assert names(selected(links, [], [], Selection.parse("azv|veth|cali", ""))) == ["azv1", "veth1", "cali1"]


def test_a_prefix_needs_no_peer_but_never_takes_what_shows_packets_twice() -> None:
    links = [veth(3, "tap1", None, "tun"), Link(4, "tap2"), Link(5, "tap3", "bridge"), Link(6, "tap4", "vlan")]
    found = selected(links, [], [], Selection.parse("tap", ""))
    assert names(found) == ["tap1", "tap2"]
    assert not any(link.pod_side for link in found)


def test_the_loopback_link_has_no_prefix() -> None:
    assert selected([Link(1, "lo")], [], [], Selection.parse("l", "")) == []


def test_names_and_prefixes_add_up() -> None:
    links = [veth(3, "azv1"), Link(4, "eth0"), veth(5, "veth1")]
    assert names(selected(links, [], [], Selection.parse("azv", "eth0"))) == ["azv1", "eth0"]


@pytest.mark.parametrize("kind", ["", "bridge", "vxlan", "tun"])
def test_any_kind_may_be_named_and_its_own_traffic_is_meant(kind: str) -> None:
    (found,) = selected([Link(4, "some0", kind)], [], [], Selection.parse("", "some0"))
    assert found.pod_side


def test_a_named_host_side_is_still_looked_at_from_the_pod() -> None:
    links = [veth(2, "eth0", 0), veth(7, "veth7", 1)]
    routes = [Route(2, via=True, default=True)]
    found = selected(links, routes, [], Selection.parse("", "eth0,veth7"))
    assert [(link.name, link.pod_side) for link in found] == [("eth0", True), ("veth7", False)]


def test_nothing_given_means_finding() -> None:
    assert Selection.parse("", "").automatic
    assert not Selection.parse("veth", "").automatic
    assert not Selection.parse("", "eth0").automatic


@pytest.mark.parametrize("text", ["azv||cali", "|", "veth|", "a/b", "ve th", " veth", "veth\n", "a:b", "x" * 16])
def test_a_prefix_that_no_interface_can_have_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--interface-prefix: .* give a list such as azv\|veth\|cali$"):
        Selection.parse(text, "")


@pytest.mark.parametrize("text", ["eth0,", "eth0,,eth1", "eth0 eth1", "a/b", "x" * 16])
def test_a_name_that_no_interface_can_have_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--interface: "):
        Selection.parse("", text)


def test_the_longest_name_is_taken() -> None:
    assert Selection.parse("x" * 15, "y" * 15) == Selection(("x" * 15,), ("y" * 15,))


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"there is no interface nope0 here; there are eth0, lo$"):
        Selection.parse("", "eth0,nope0").check([Link(1, "lo"), Link(2, "eth0")])


def test_a_refusal_does_not_list_hundreds_of_interfaces() -> None:
    with pytest.raises(UsageError, match=r"veth139 and 160 more$"):
        Selection.parse("", "nope0").check([veth(at, f"veth{at}") for at in range(100, 300)])


def test_names_that_are_there_pass() -> None:
    Selection.parse("", "eth0").check([Link(1, "lo"), Link(2, "eth0")])
