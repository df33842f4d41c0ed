"""The demo's miniature cluster as plain facts: nodes, pods, services, hosts outside.

The public addresses are of the documentation ranges (RFC 5737, RFC 3849), so that nobody's
real address ever shows up in a demo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

REGION: Final = "eu-1"
FABRIC_IPV4_PREFIX: Final = 30
FABRIC_IPV6_PREFIX: Final = 64
INTERFACE_PREFIX: Final = "veth"  # how the host side of every pod's link starts
INTERNET_ROLE: Final = "internet"


@dataclass(frozen=True, slots=True)
class DualStack:
    """One host's two addresses, in the text form that the kernel itself prints."""

    ipv4: str
    ipv6: str

    def both(self) -> tuple[str, str]:
        """IPv4, then IPv6."""
        return self.ipv4, self.ipv6


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node: its zone, its pods' ranges and its two links (other node, internet)."""

    name: str
    zone: str
    pod_ipv4: str  # CIDR
    pod_ipv6: str  # CIDR
    gateway: DualStack  # its bridge's addresses, the first of the pod ranges
    fabric: DualStack  # on the link to the other node
    uplink: DualStack  # on the link to the internet
    router: DualStack  # the internet's side of that link


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; `role` is its short name here, `name` the one that Kubernetes would show."""

    role: str
    name: str
    namespace: str
    node: str
    address: DualStack
    labels: Mapping[str, str]
    batch: bool = False  # comes and goes


@dataclass(frozen=True, slots=True)
class Service:
    """A cluster service: its virtual addresses live on every node."""

    name: str
    namespace: str
    address: DualStack


@dataclass(frozen=True, slots=True)
class Outsider:
    """Hosts behind the nodes' default routes."""

    name: str
    addresses: tuple[DualStack, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything there is; one value, made once."""

    nodes: tuple[NodeSpec, ...]
    pods: tuple[Pod, ...]
    services: tuple[Service, ...]
    outsiders: tuple[Outsider, ...]
    metadata: str  # the cloud's metadata address, on every node
    cidrs: Mapping[str, str]  # label -> CIDR

    def node(self, name: str) -> NodeSpec:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def pod(self, role: str) -> Pod:
        """The pod of that role."""
        return next(pod for pod in self.pods if pod.role == role)

    def service(self, name: str) -> Service:
        """The service of that name."""
        return next(service for service in self.services if service.name == name)

    def outside(self, name: str) -> DualStack:
        """The (first) address pair of the outside host `name`."""
        return next(host for host in self.outsiders if host.name == name).addresses[0]

    def fixed_pods(self) -> tuple[Pod, ...]:
        """The pods that stay for the whole session."""
        return tuple(pod for pod in self.pods if not pod.batch)


def _node(number: int, zone: str) -> NodeSpec:
    letter = "_ab"[number]
    return NodeSpec(
        name=f"node-{letter}",
        zone=zone,
        pod_ipv4=f"10.42.{number}.0/24",
        pod_ipv6=f"fd42:706c:78:{number}::/64",
        gateway=DualStack(f"10.42.{number}.1", f"fd42:706c:78:{number}::1"),
        fabric=DualStack(f"192.168.70.{number}", f"fd70:706c:78::{number}"),
        uplink=DualStack(f"192.168.7{number}.2", f"fd7{number}:706c:78::2"),
        router=DualStack(f"192.168.7{number}.1", f"fd7{number}:706c:78::1"),
    )


def _pod(role: str, name: str, namespace: str, node: str, host: int, *, batch: bool = False) -> Pod:
    number = "_ab".index(node[-1])
    app = role.rsplit("-", 1)[0] if role[-1].isdigit() else role
    return Pod(
        role=role,
        name=name,
        namespace=namespace,
        node=node,
        address=DualStack(f"10.42.{number}.{host}", f"fd42:706c:78:{number}::{host}"),
        labels={"app": app, "podloxx.demo/role": role},
        batch=batch,
    )


def _outsider(name: str, *pairs: tuple[str, str]) -> Outsider:
    return Outsider(name, tuple(DualStack(ipv4, ipv6) for ipv4, ipv6 in pairs))


def miniature_cluster() -> Topology:
    """Two nodes in two zones, eight pods, two services and what lies outside."""
    return Topology(
        nodes=(_node(1, "eu-1a"), _node(2, "eu-1b")),
        pods=(
            _pod("web-1", "web-6f5d8c9b7d-k2m8x", "shop", "node-a", 11),
            _pod("api-1", "api-59c7d6b8f4-t9wqz", "shop", "node-a", 12),
            _pod("cache", "cache-0", "data", "node-a", 13),
            _pod("dns", "coredns-76f75df574-8hlrv", "kube-system", "node-a", 14),
            _pod("job", "nightly-report-29117520-v6r2s", "jobs", "node-a", 15, batch=True),
            _pod("web-2", "web-6f5d8c9b7d-p7c4n", "shop", "node-b", 11),
            _pod("api-2", "api-59c7d6b8f4-d5xjh", "shop", "node-b", 12),
            _pod("database", "database-0", "data", "node-b", 13),
        ),
        services=(
            Service("kube-dns", "kube-system", DualStack("10.96.0.10", "fd96:706c:78::a")),
            Service("api", "shop", DualStack("10.96.14.20", "fd96:706c:78::e14")),
        ),
        outsiders=(
            _outsider("customers", *((f"203.0.113.{n}", f"2001:db8:c::{n}") for n in range(10, 15))),
            _outsider("payments", ("198.51.100.20", "2001:db8:20::20")),
            _outsider("object-store", ("198.51.100.40", "2001:db8:40::40")),
            _outsider("resolver", ("198.51.100.53", "2001:db8:53::53")),
            _outsider("vpc-database", ("10.200.3.15", "fd20:706c:78::15")),
        ),
        metadata="169.254.169.254",
        cidrs={"vpc": "10.200.0.0/16", "vpc-v6": "fd20:706c:78::/64"},
    )
