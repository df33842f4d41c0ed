"""The network of a cluster of the tests: two dual-stack nodes, a control plane and a pretended internet on one switch."""

from __future__ import annotations

from typing import Final

from tests.support import netns
from tests.support.kube_site import Site, host_link

NODES: Final = (1, 2)
SERVICES: Final = ("10.96.0.0/16", "fd96::/112")
CONTROL: Final = ("10.80.0.1", "fd80::1")
INTERNET: Final = ("198.51.100.7", "2001:db8::7")
"""What the pretended internet answers at."""
_GATEWAY: Final = ("10.80.0.2", "fd80::2")
_CLUSTER: Final = ("10.80.0.0/15", "fd80::/15")
"""Nodes and pods: what nodes forward without translating the sender."""


def node_ips(number: int) -> tuple[str, str]:
    return f"10.80.0.1{number}", f"fd80::1{number}"


def pod_ranges(number: int) -> tuple[str, str]:
    return f"10.81.{number}.0/24", f"fd81:0:0:{number}::/64"


def host_ips(site: Site) -> tuple[str, str]:
    """The control plane's address for the machine, and the machine's; by the name, so that clusters do not collide."""
    third, fourth = bytes.fromhex(site.name[-4:])
    base = f"100.127.{third}."
    return f"{base}{fourth & 0xFE}", f"{base}{fourth | 1}"


def make(site: Site) -> None:
    """Make all of it.

    The switch has a namespace of its own: frames that a bridge forwards pass the firewall of its namespace, and the
    machine's may drop them (a container engine's does).
    """
    for label in ("switch", "control", "internet", *(f"n{number}" for number in NODES)):
        space = site.space(label)
        netns.run("ip", "netns", "add", space.name)
        space.ip("link set lo up")
    site.space("switch").ip("link add br0 type bridge", "link set br0 up")
    _control(site)
    _internet(site)
    for number in NODES:
        _node(site, number)


def _plug(site: Site, label: str, addresses: tuple[str, str]) -> None:
    """A link `eth0` into the switch."""
    switch, space = site.space("switch"), site.space(label)
    switch.ip(f"link add {label} type veth peer name eth0 netns {space.name}", f"link set {label} master br0 up")
    ipv4, ipv6 = addresses
    space.ip(f"addr add {ipv4}/24 dev eth0", f"addr add {ipv6}/64 dev eth0 nodad", "link set eth0 up")


def _control(site: Site) -> None:
    _plug(site, "control", CONTROL)
    space, link = site.space("control"), host_link(site.name)
    inner, outer = host_ips(site)
    netns.run("ip", "link", "add", link, "type", "veth", "peer", "name", "machine", "netns", space.name)
    netns.run("ip", "addr", "add", f"{outer}/31", "dev", link)
    netns.run("ip", "link", "set", link, "up")
    space.ip(f"addr add {inner}/31 dev machine", "link set machine up", *map(_to_pods, NODES), *map(_to_pods6, NODES))


def _internet(site: Site) -> None:
    _plug(site, "internet", _GATEWAY)
    ipv4, ipv6 = INTERNET
    site.space("internet").ip(f"addr add {ipv4}/32 dev lo", f"addr add {ipv6}/128 dev lo nodad")


def _node(site: Site, number: int) -> None:
    label = f"n{number}"
    _plug(site, label, node_ips(number))
    space = site.space(label)
    others = [one for one in NODES if one != number]
    routes = [f"route add default via {gateway}" for gateway in _GATEWAY]
    space.ip(*routes, *map(_to_pods, others), *map(_to_pods6, others))
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        space.sysctl(key, "1")
    # A pod that asks a Service and is answered by its neighbour on the bridge gets the answer back translated.
    for key in ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"):
        space.sysctl(key, "1")
    for program, inside, cluster in zip(("iptables", "ip6tables"), pod_ranges(number), _CLUSTER, strict=True):
        rule = f"-t nat -A POSTROUTING -s {inside} ! -d {cluster} -j MASQUERADE"
        space.run(program, *rule.split())


def _to_pods(number: int) -> str:
    return f"route add {pod_ranges(number)[0]} via {node_ips(number)[0]}"


def _to_pods6(number: int) -> str:
    return f"route add {pod_ranges(number)[1]} via {node_ips(number)[1]}"
