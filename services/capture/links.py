"""Which of a node's network interfaces are pods'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.flows.address import Address
from services.runtime.errors import UsageError

_PAIRED: Final = frozenset({"veth", "netkit"})
"""Kinds of links of which one end lies in the node's namespace, and the other one in a pod's."""
_SINGLE: Final = _PAIRED | {"", "tun"}
"""Kinds that a prefix may name. All others (bridges, VLANs, tunnels …) show packets which
another link has shown already, so they would be counted twice."""
_NEVER: Final = frozenset({"lo", "lxc_health"})
"""No pods': the loopback link, and what Cilium probes the health of nodes through."""
_NAME: Final = re.compile(r"[^\s/:]{1,15}")
"""What the kernel takes for the name of an interface."""
_SHOWN: Final = 40
"""Interfaces that an error message lists."""


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface of the node.

    `kind` is the kernel's (`veth`, `netkit`, …, empty for a physical one). `peer_netns` is the
    node's number for the namespace of the other end, None where that is the node's own.
    `addresses` are the pod's, as far as routes to single addresses lead to this link.
    `pod_side` says from where the link is looked at: false for the node's end of a pod's link,
    where what the link receives is what the pod sends; true where the link's own traffic is
    meant, as for `--interface eth0`, so that what it sends is tx.
    """

    index: int
    name: str
    kind: str = ""
    peer_netns: int | None = None
    addresses: tuple[Address, ...] = ()
    up: bool = True
    pod_side: bool = False


@dataclass(frozen=True, slots=True)
class LinkChange:
    """Pod links that came and that went; those that went did so before the others came.

    `since_us` is when the first of it can have happened, on the monotonic clock; None for what
    was there at the start.
    """

    added: tuple[Link, ...]
    removed: tuple[Link, ...]
    since_us: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Where the node sends packets to: out of which link, and `via` another router or not.

    `host` is the destination where that is a single address; `default` is the route to
    everything else.
    """

    output: int
    via: bool = False
    default: bool = False
    host: Address | None = None


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """One of the node's own addresses, and the link that carries it.

    `alone` says that its prefix has the full length, so that it names no network on the link.
    """

    index: int
    address: Address
    alone: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """Which links to capture: those with a prefix or name, or where neither is given, found ones."""

    prefixes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, prefixes: str, names: str) -> Selection:
        """From the settings: `prefixes` as in `azv|veth|cali`, `names` separated by commas.

        Raises UsageError where a part cannot be the name of an interface or its beginning.
        """
        return cls(
            _parts(prefixes, "|", "--interface-prefix", "a list such as azv|veth|cali"),
            _parts(names, ",", "--interface", "a list such as eth0,veth1a2b3c"),
        )

    @property
    def automatic(self) -> bool:
        """Whether links are to be found by what they are."""
        return not self.prefixes and not self.names

    def check(self, links: Iterable[Link]) -> None:
        """Raise UsageError where a name is not among `links`."""
        known = sorted(link.name for link in links)
        for name in self.names:
            if name not in known:
                more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
                raise UsageError(
                    f"--interface: there is no interface {name} here; there are {', '.join(known[:_SHOWN])}{more}"
                )


def selected(
    links: Iterable[Link], routes: Sequence[Route], addresses: Sequence[NodeAddress], selection: Selection
) -> list[Link]:
    """The links to capture, by index, with the addresses of their pods."""
    links = list(links)
    uplinks = _uplinks(links, routes, addresses)
    pods = _pod_addresses(routes, addresses)
    chosen = []
    for link in sorted(links, key=lambda one: one.index):
        faces_pod = link.index not in uplinks and link.name not in _NEVER
        paired = link.kind in _PAIRED and link.peer_netns is not None
        if link.name in selection.names:
            pod_side = not (faces_pod and paired)
        elif faces_pod and (
            (selection.automatic and paired) or (link.kind in _SINGLE and link.name.startswith(selection.prefixes))
        ):
            pod_side = False
        else:
            continue
        chosen.append(replace(link, addresses=pods.get(link.index, ()), pod_side=pod_side))
    return chosen


def _uplinks(links: Sequence[Link], routes: Sequence[Route], addresses: Sequence[NodeAddress]) -> set[int]:
    """The links over which the node itself reaches others.

    A node that is a container has uplinks that look like pods' links: veths whose other end is
    elsewhere. Such a link carries a default route; or it carries an address of the node, and
    ends where another uplink ends or leads to further routers. An address alone proves nothing:
    the node's end of a pod's link often carries the pod's gateway.
    """
    default = {route.output for route in routes if route.default}
    outside = {link.peer_netns for link in links if link.index in default} - {None}
    to_routers = {route.output for route in routes if route.via}
    networks = {own.index for own in addresses if not own.alone and not own.address.is_link_local}
    return default | {
        link.index
        for link in links
        if link.index in networks and (link.peer_netns in outside or link.index in to_routers)
    }


def _pod_addresses(routes: Sequence[Route], addresses: Sequence[NodeAddress]) -> dict[int, tuple[Address, ...]]:
    # The kernel also makes a route to every address that the node itself has alone on a link.
    own = {one.address for one in addresses}
    found: dict[int, dict[Address, None]] = {}
    for route in routes:
        host = route.host
        if host is not None and not route.via and host not in own and not (host.is_link_local or host.is_multicast):
            found.setdefault(route.output, {})[host] = None
    return {index: tuple(pods) for index, pods in found.items()}


def _parts(text: str, separator: str, setting: str, example: str) -> tuple[str, ...]:
    if not text:
        return ()
    parts = tuple(text.split(separator))
    for part in parts:
        if not _NAME.fullmatch(part):
            raise UsageError(
                f"{setting}: {part!r} in {text!r} cannot be (the beginning of) an interface's name, which has "
                f"1 to 15 characters without blanks, slashes or colons; give {example}"
            )
    return parts
