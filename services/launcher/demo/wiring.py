"""The links, addresses and routes of the demo's cluster, made over netlink."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from services.launcher.demo import namespaces
from services.launcher.demo.plan import family_of
from services.launcher.demo.topology import (
    FABRIC_IPV4_PREFIX,
    FABRIC_IPV6_PREFIX,
    INTERFACE_PREFIX,
    NodeSpec,
    Pod,
    Topology,
)
from services.runtime.errors import PodloxxError, PrivilegeError

BRIDGE: Final = "cni0"
POD_LINK: Final = "eth0"
UPLINK: Final = "eth0"
FABRIC: Final = "eth1"
_NODAD: Final = 0x02  # no duplicate-address detection: an address is usable at once
_OUR_KINDS: Final = frozenset({"bridge", "veth"})


class Wires:
    """Netlink in one namespace; `ipv6` says whether addresses of that family are set."""

    def __init__(self, route: IPRoute, *, ipv6: bool) -> None:
        self._route = route
        self._ipv6 = ipv6

    def up(self, link: str) -> None:
        """Switch the link on."""
        self._route.link("set", index=self._index(link), state="up")

    def bridge(self, link: str) -> None:
        """A bridge without ports yet."""
        # Without snooping a bridge floods neighbour discovery; with it, and no querier, it loses it.
        self._route.link("add", ifname=link, kind="bridge", br_mcast_snooping=0)

    def veth(self, link: str, other: str, other_namespace: str) -> None:
        """A pair with its far end born in the other namespace: it is never seen elsewhere."""
        with namespaces.opened(other_namespace) as fd:
            self._route.link("add", ifname=link, kind="veth", peer={"ifname": other, "net_ns_fd": fd})

    def enslave(self, link: str, bridge: str) -> None:
        """Make the link a port of the bridge."""
        self._route.link("set", index=self._index(link), master=self._index(bridge))

    def delete(self, link: str) -> None:
        """Delete the link if it is there."""
        for index in self._route.link_lookup(ifname=link):
            try:
                self._route.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:  # its other end went meanwhile, and it with that
                    raise

    def made_links(self) -> list[str]:
        """Names of the links of our kinds; a kernel may put tunnels of its own beside them."""
        return [
            str(link.get("ifname")) for link in self._route.get_links() if link.get(("linkinfo", "kind")) in _OUR_KINDS
        ]

    def address(self, link: str, address: str, prefix: int) -> None:
        """Add the address; one of IPv6 only where there is IPv6."""
        if family_of(address) == 4:
            self._route.addr("add", index=self._index(link), address=address, prefixlen=prefix)
        elif self._ipv6:
            self._route.addr(
                "add",
                index=self._index(link),
                address=address,
                prefixlen=prefix,
                flags=_NODAD,
            )

    def route(self, destination: str, gateway: str) -> None:
        """`destination` is a CIDR or `default`."""
        if family_of(gateway) == 4 or self._ipv6:
            self._route.route("add", dst=destination, gateway=gateway)

    def _index(self, link: str) -> int:
        found = self._route.link_lookup(ifname=link)
        if not found:
            raise PodloxxError(f"The demo's link {link} is gone: something else removed it.")
        return int(found[0])


@contextlib.contextmanager
def wires(namespace: str, *, ipv6: bool) -> Iterator[Wires]:
    """Netlink in `namespace`; kernel refusals become one sentence.

    PrivilegeError without CAP_NET_ADMIN, PodloxxError for what this kernel cannot do.
    """
    with namespaces.inside(namespace):
        try:
            with IPRoute() as route:
                yield Wires(route, ipv6=ipv6)
        except NetlinkError as error:
            if error.code == errno.EPERM:
                raise PrivilegeError(namespaces.PRIVILEGE_SENTENCE) from error
            raise PodloxxError(
                f"The kernel refused a part of the demo's network in {namespace}: {os.strerror(error.code)}. "
                "The demo needs bridge and veth links."
            ) from error


def prepare(namespace: str, *, forwards: bool, ipv6: bool) -> None:
    """Loopback up, and the settings that containers have too, before any link is there."""
    with namespaces.inside(namespace):
        namespaces.set_net("ipv4/ip_unprivileged_port_start", 0)  # pods serve port 53 without root
        namespaces.set_net("ipv4/ip_forward", int(forwards))
        for link in ("all", "default"):
            namespaces.set_net(f"ipv4/conf/{link}/rp_filter", 0)  # inherited from the host
            if ipv6:
                namespaces.set_net(f"ipv6/conf/{link}/disable_ipv6", 0)
                namespaces.set_net(f"ipv6/conf/{link}/accept_ra", 0)
                namespaces.set_net(f"ipv6/conf/{link}/accept_dad", 0)
                namespaces.set_net(f"ipv6/conf/{link}/forwarding", int(forwards))
    with wires(namespace, ipv6=ipv6) as wire:
        wire.up("lo")


def wire_node(namespace: str, node: NodeSpec, topology: Topology, *, ipv6: bool) -> None:
    """The bridge of the node's pods and the service addresses that its proxy answers on."""
    with wires(namespace, ipv6=ipv6) as wire:
        wire.bridge(BRIDGE)
        wire.up(BRIDGE)
        wire.address(BRIDGE, node.gateway.ipv4, _prefix(node.pod_ipv4))
        wire.address(BRIDGE, node.gateway.ipv6, _prefix(node.pod_ipv6))
        for address in _virtual(topology):
            wire.address("lo", address, 32 if family_of(address) == 4 else 128)


def join_nodes(first: str, second: str, topology: Topology, *, ipv6: bool) -> None:
    """The routed link between the two nodes' namespaces."""
    one, other = topology.nodes
    with wires(first, ipv6=ipv6) as wire:
        wire.veth(FABRIC, FABRIC, second)
    for namespace, here, there in ((first, one, other), (second, other, one)):
        with wires(namespace, ipv6=ipv6) as wire:
            wire.up(FABRIC)
            wire.address(FABRIC, here.fabric.ipv4, FABRIC_IPV4_PREFIX)
            wire.address(FABRIC, here.fabric.ipv6, FABRIC_IPV6_PREFIX)
            wire.route(there.pod_ipv4, there.fabric.ipv4)
            wire.route(there.pod_ipv6, there.fabric.ipv6)


def join_internet(namespace: str, node: NodeSpec, internet: str, *, ipv6: bool) -> None:
    """The node's default route to the internet, and the internet's way back to its pods."""
    far = f"to-{node.name}"
    with wires(namespace, ipv6=ipv6) as wire:
        wire.veth(UPLINK, far, internet)
        wire.up(UPLINK)
        wire.address(UPLINK, node.uplink.ipv4, FABRIC_IPV4_PREFIX)
        wire.address(UPLINK, node.uplink.ipv6, FABRIC_IPV6_PREFIX)
    with wires(internet, ipv6=ipv6) as wire:
        wire.up(far)
        wire.address(far, node.router.ipv4, FABRIC_IPV4_PREFIX)
        wire.address(far, node.router.ipv6, FABRIC_IPV6_PREFIX)
        wire.route(node.pod_ipv4, node.uplink.ipv4)
        wire.route(node.pod_ipv6, node.uplink.ipv6)
    with wires(namespace, ipv6=ipv6) as wire:
        wire.route("default", node.router.ipv4)
        if ipv6:
            wire.route("::/0", node.router.ipv6)


def wire_internet(namespace: str, topology: Topology, *, ipv6: bool) -> None:
    """The public hosts' addresses, all in one namespace."""
    with wires(namespace, ipv6=ipv6) as wire:
        for host in topology.outsiders:
            for pair in host.addresses:
                wire.address("lo", pair.ipv4, 32)
                wire.address("lo", pair.ipv6, 128)


def plug_pod(namespace: str, node_namespace: str, pod: Pod, node: NodeSpec, link: str, *, ipv6: bool) -> None:
    """The pod's link to its node's bridge; `link` is the name of the node's side."""
    with wires(node_namespace, ipv6=ipv6) as wire:
        wire.veth(link, POD_LINK, namespace)
        wire.enslave(link, BRIDGE)
        wire.up(link)
    with wires(namespace, ipv6=ipv6) as wire:
        wire.up(POD_LINK)
        wire.address(POD_LINK, pod.address.ipv4, _prefix(node.pod_ipv4))
        wire.address(POD_LINK, pod.address.ipv6, _prefix(node.pod_ipv6))
        wire.route("default", node.gateway.ipv4)
        if ipv6:
            wire.route("::/0", node.gateway.ipv6)


def unplug_pod(node_namespace: str, link: str) -> None:
    """Delete the pod's link from the node's side; both ends go."""
    with wires(node_namespace, ipv6=False) as wire:
        wire.delete(link)


def strip(namespace: str) -> None:
    """Delete every link of the namespace, so that none outlives it while a process pins it."""
    with wires(namespace, ipv6=False) as wire:
        for link in wire.made_links():
            wire.delete(link)


def pod_link_name(session: str, role: str, generation: int) -> str:
    """The node's side of a pod's link: a new name each time the pod comes, as CNIs do."""
    digest = hashlib.sha256(f"{session}/{role}/{generation}".encode()).hexdigest()
    return f"{INTERFACE_PREFIX}{digest[:8]}"


def _virtual(topology: Topology) -> Iterator[str]:
    yield topology.metadata
    for service in topology.services:
        yield from service.address.both()


def _prefix(cidr: str) -> int:
    return int(cidr.partition("/")[2])
