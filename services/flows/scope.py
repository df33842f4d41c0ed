"""The classification ladder: who is the peer, is it local, and which rule says so.

The first rule that matches decides. Known addresses come before ranges, because pods may sit in
carrier-grade NAT space and Services in public space.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from services.flows.address import Address, normal


class Scope(StrEnum):
    """Where a pod's peer is."""

    SAME_POD = "same-pod"
    SAME_NODE = "same-node"
    SAME_ZONE = "same-zone"
    CROSS_ZONE = "cross-zone"
    CROSS_REGION = "cross-region"
    CLUSTER = "cluster"
    SERVICE = "service"
    NODE = "node"
    INFRA = "infra"
    CLUSTER_UNRESOLVED = "cluster-unresolved"
    PRIVATE = "private"
    INTERNET = "internet"
    OTHER = "other"
    UNKNOWN = "unknown"


SCOPES: Final = tuple(Scope)


class Column(StrEnum):
    """What the dashboard sums scopes into; every scope is in exactly one."""

    LOCAL = "local"
    CROSS = "cross"
    PRIVATE = "private"
    INTERNET = "internet"
    OTHER = "other"


COLUMN_OF: Final = {
    Scope.SAME_POD: Column.LOCAL,
    Scope.SAME_NODE: Column.LOCAL,
    Scope.SAME_ZONE: Column.LOCAL,
    Scope.CROSS_ZONE: Column.CROSS,
    Scope.CROSS_REGION: Column.CROSS,
    Scope.CLUSTER: Column.LOCAL,
    Scope.SERVICE: Column.LOCAL,
    Scope.NODE: Column.LOCAL,
    Scope.INFRA: Column.LOCAL,
    Scope.CLUSTER_UNRESOLVED: Column.LOCAL,
    Scope.PRIVATE: Column.PRIVATE,
    Scope.INTERNET: Column.INTERNET,
    Scope.OTHER: Column.OTHER,
    Scope.UNKNOWN: Column.OTHER,
}


class Rule(StrEnum):
    """Which step of the ladder fired."""

    CLOUD_METADATA = "cloud-metadata"
    NODE_LOCAL_DNS = "node-local-dns"
    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    OWN_ADDRESS = "own-address"
    AMBIGUOUS_WINDOW = "ambiguous-window"
    POD_SAME_NODE = "pod-same-node"
    POD_SAME_ZONE = "pod-same-zone"
    POD_CROSS_ZONE = "pod-cross-zone"
    POD_CROSS_REGION = "pod-cross-region"
    POD = "pod"
    SERVICE = "service"
    API_SERVER = "api-server"
    NODE = "node"
    NODE_GATEWAY = "node-gateway"
    USER_CIDR = "user-cidr"
    CLUSTER_RANGE = "cluster-range"
    PRIVATE_RANGE = "private-range"
    PRIVATE_CIDR = "private-cidr"
    PUBLIC = "public"
    NOT_IP = "not-ip"
    MALFORMED = "malformed"
    FOLDED = "folded"
    AGENT_GAP = "agent-gap"
    HIDDEN_DATAPATH = "hidden-datapath"
    NO_SOCKET = "no-socket"
    SEEN_AT_SENDER = "seen-at-sender"


RULES: Final = tuple(Rule)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something runs; an empty string is "not known"."""

    node: str = ""
    zone: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as far as classification needs it."""

    uid: str
    namespace: str
    name: str
    place: Place = Place()
    labels: tuple[tuple[str, str], ...] = ()
    ingress: bool = False
    """Whether it brings traffic in from outside the cluster."""


@dataclass(frozen=True, slots=True)
class Named:
    """Anything else with a name: a Service, a node, a user's CIDR."""

    name: str
    namespace: str = ""


class Ambiguous(Exception):  # noqa: N818  # not an error: an answer that is no pod
    """More than one pod had the address within the window that is asked for."""


class World(Protocol):
    """Who owned which address at the time of the packets that are to be classified."""

    def pod(self, address: Address) -> Pod | None:
        """The pod that had `address`; raises Ambiguous where several had."""

    def service(self, address: Address) -> Named | None:
        """The Service with this cluster, external or load-balancer address."""

    def is_api_server(self, address: Address) -> bool:
        """Whether it is an endpoint of the API server."""

    def node(self, address: Address) -> Named | None:
        """The node with this address."""

    def node_gateway(self, address: Address) -> Named | None:
        """The node whose pod range has this address as its gateway."""

    def user_cidr(self, address: Address) -> tuple[Named, Scope] | None:
        """The user's most specific range that holds the address, with its scope."""

    def in_cluster_range(self, address: Address) -> bool:
        """Whether it lies in a pod or Service range."""

    def in_private_cidr(self, address: Address) -> bool:
        """Whether the user declared it private without a name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Scope, the rule that gave it, and the peer's identity where it has one."""

    scope: Scope
    rule: Rule
    peer: Pod | Named | None = None


_METADATA: Final = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254")))
_NODE_LOCAL_DNS: Final = ipaddress.ip_address("169.254.20.10")
_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")
_SPECIAL: Final = frozenset(
    (
        Rule.CLOUD_METADATA,
        Rule.NODE_LOCAL_DNS,
        Rule.UNSPECIFIED,
        Rule.LOOPBACK,
        Rule.LINK_LOCAL,
        Rule.MULTICAST,
        Rule.BROADCAST,
    )
)
"""What an address of its own is to a pod as well."""
PRIVATE_RANGES: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)


def classify(address: Address, me: Pod | None, own: frozenset[Address], world: World) -> Verdict:
    """The verdict on a peer's address.

    `me` is the pod whose interface saw it (None: not known), `own` its addresses.
    """
    address = normal(address)
    found = resolve(address, world)
    if address in own or (me is not None and isinstance(found.peer, Pod) and found.peer.uid == me.uid):
        return itself(me, found)
    return seen_from(me.place if me else Place(), found)


def resolve(address: Address, world: World) -> Verdict:
    """The part of a verdict that is the same for all; where a pod has the address its scope is not."""
    return (
        _special(address)
        or _pod(address, world)
        or _known(address, world)
        or _range(address, world)
        or Verdict(Scope.INTERNET, Rule.PUBLIC)
    )


def is_special(rule: Rule) -> bool:
    """Whether what this rule says of an address is the same for who has it."""
    return rule in _SPECIAL


def itself(me: Pod | None, found: Verdict) -> Verdict:
    """The verdict of a pod on an address of its own, of which `resolve` found this."""
    return found if found.rule in _SPECIAL else Verdict(Scope.SAME_POD, Rule.OWN_ADDRESS, me)


def seen_from(here: Place, found: Verdict) -> Verdict:
    """The verdict of a pod that runs `here` on any other address, of which `resolve` found this."""
    return Verdict(*distance(here, found.peer.place), found.peer) if isinstance(found.peer, Pod) else found


def _special(address: Address) -> Verdict | None:
    if address in _METADATA:
        return Verdict(Scope.INFRA, Rule.CLOUD_METADATA)
    if address == _NODE_LOCAL_DNS:
        return Verdict(Scope.INFRA, Rule.NODE_LOCAL_DNS)
    for matches, rule in (
        (address.is_unspecified, Rule.UNSPECIFIED),
        (address.is_loopback, Rule.LOOPBACK),
        (address.is_link_local, Rule.LINK_LOCAL),
        (address.is_multicast, Rule.MULTICAST),
        (address == _BROADCAST, Rule.BROADCAST),
    ):
        if matches:
            return Verdict(Scope.OTHER, rule)
    return None


def _pod(address: Address, world: World) -> Verdict | None:
    try:
        peer = world.pod(address)
    except Ambiguous:
        return Verdict(Scope.CLUSTER_UNRESOLVED, Rule.AMBIGUOUS_WINDOW)
    return None if peer is None else Verdict(Scope.CLUSTER, Rule.POD, peer)


def distance(here: Place, there: Place) -> tuple[Scope, Rule]:
    """How far apart two pods run; a label that is missing on either side says `cluster`."""
    if here.node and here.node == there.node:
        return Scope.SAME_NODE, Rule.POD_SAME_NODE
    if here.region and there.region and here.region != there.region:
        return Scope.CROSS_REGION, Rule.POD_CROSS_REGION
    if not (here.zone and there.zone):
        return Scope.CLUSTER, Rule.POD
    if here.zone == there.zone:
        return Scope.SAME_ZONE, Rule.POD_SAME_ZONE
    return Scope.CROSS_ZONE, Rule.POD_CROSS_ZONE


def _known(address: Address, world: World) -> Verdict | None:
    if service := world.service(address):
        return Verdict(Scope.SERVICE, Rule.SERVICE, service)
    if world.is_api_server(address):
        return Verdict(Scope.INFRA, Rule.API_SERVER)
    if node := world.node(address):
        return Verdict(Scope.NODE, Rule.NODE, node)
    if node := world.node_gateway(address):
        return Verdict(Scope.NODE, Rule.NODE_GATEWAY, node)
    return None


def _range(address: Address, world: World) -> Verdict | None:
    if labelled := world.user_cidr(address):
        name, scope = labelled
        return Verdict(scope, Rule.USER_CIDR, name)
    if world.in_cluster_range(address):
        return Verdict(Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE)
    if any(address in network for network in PRIVATE_RANGES if network.version == address.version):
        return Verdict(Scope.PRIVATE, Rule.PRIVATE_RANGE)
    if world.in_private_cidr(address):
        return Verdict(Scope.PRIVATE, Rule.PRIVATE_CIDR)
    return None
