"""Reads links, routes, addresses and counters of this network namespace from the kernel."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from services.capture.links import Link, NodeAddress, Route
from services.flows import address
from services.runtime.errors import PodloxxError

_RTM_NEWLINK: Final = 16
_RTM_DELLINK: Final = 17
_RTMGRP_LINK: Final = 1
_IFF_UP: Final = 1
_NLM_F_DUMP_INTR: Final = 0x10
_IFLA_STATS_LINK_64_MASK: Final = 1
_RTN_UNICAST: Final = 1
_RTM_F_CLONED: Final = 0x200
_BITS: Final[Mapping[int, int]] = {socket.AF_INET: 32, socket.AF_INET6: 128}
_DUMP_TRIES: Final = 5
_MAX_ROUTES: Final = 20_000
"""Routes that are looked at: a node that carries the Internet's table has a million, and reading
them would take half a minute of processor time."""
_EVENT_BUFFER_BYTES: Final = 4 << 20
"""Room for about a thousand events; SO_RCVBUF gives less where net.core.rmem_max is lower."""

Message = Any
"""A decoded message of pyroute2, which has no types; it does not leave this module."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A link as the kernel described it, and what tells it from a later one with its index."""

    link: Link
    mac: str
    peer_index: int | None

    def is_replaced_by(self, other: Seen) -> bool:
        """Whether `other`, of the same index, must be another link."""
        both_paired = self.peer_index is not None and other.peer_index is not None
        return (
            self.link.kind != other.link.kind
            or self.mac != other.mac
            or (both_paired and self.peer_index != other.peer_index)
        )


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link appeared or changed, or is gone."""

    seen: Seen
    gone: bool


@dataclass(frozen=True, slots=True)
class HostCounters:
    """The kernel's 64-bit counters of an interface, as the interface sees them."""

    rx_bytes: int
    rx_packets: int
    tx_bytes: int
    tx_packets: int


def subscribe() -> socket.socket:
    """A non-blocking socket from which events about links can be read."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    events.setblocking(False)
    events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _EVENT_BUFFER_BYTES)
    events.bind((0, _RTMGRP_LINK))
    return events


def decode_events(data: bytes) -> list[LinkEvent]:
    """The events in one datagram."""
    return [
        LinkEvent(_seen(message), message["header"]["type"] == _RTM_DELLINK)
        for message in MarshalRtnl().parse(data)
        # A bridge announces its ports, and that a port left it, in messages of its own family.
        if message["header"]["type"] in {_RTM_NEWLINK, _RTM_DELLINK} and message["family"] == socket.AF_UNSPEC
    ]


async def read_links() -> list[Seen]:
    """Every link; raises PodloxxError where the kernel gives none."""
    return [_seen(message) for message in await _dump(lambda route: route.get_links())]


async def read_routes() -> list[Route]:
    """The routes of all tables, of both families, without those to the node itself."""
    found: list[Route] = []
    for family in _BITS:
        for message in await _dump(partial(_ask_routes, family), _MAX_ROUTES):
            if message["family"] == family and message["type"] == _RTN_UNICAST:
                found.extend(_routes(message))
    return found


async def read_addresses() -> list[NodeAddress]:
    """The node's own addresses."""
    messages = await _dump(lambda route: route.get_addr())
    return [node_address(message) for message in messages if message["family"] in _BITS]


def node_address(message: Message) -> NodeAddress:
    """What a message of the kernel's tells of one address."""
    # On a point-to-point link IFA_ADDRESS is the other end's.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return NodeAddress(message["index"], address.parse(text), message["prefixlen"] == _BITS[message["family"]])


async def read_counters() -> dict[int, HostCounters]:
    """The counters of every interface by index."""
    messages = await _dump(lambda route: route.stats("dump", filter_mask=_IFLA_STATS_LINK_64_MASK))
    found = {}
    for message in messages:
        stats = message.get_attr("IFLA_STATS_LINK_64")
        found[message["ifindex"]] = HostCounters(
            stats["rx_bytes"], stats["rx_packets"], stats["tx_bytes"], stats["tx_packets"]
        )
    return found


async def _ask_routes(family: int, route: Any) -> AsyncIterator[Message]:
    answer: AsyncIterator[Message] = await route.route("dump", family=family)
    return answer


async def _dump(
    request: Callable[[Any], Awaitable[AsyncIterator[Message]]], at_most: int | None = None
) -> list[Message]:
    """All messages of the answer, of one moment where the kernel manages that."""
    with _translating():
        for _ in range(_DUMP_TRIES):
            async with AsyncIPRoute() as route:
                messages = await _collect(await request(route), at_most)
            if not any(message["header"]["flags"] & _NLM_F_DUMP_INTR for message in messages):
                break
    return messages


async def _collect(answer: AsyncIterator[Message], at_most: int | None) -> list[Message]:
    messages: list[Message] = []
    async for message in answer:
        messages.append(message)
        if len(messages) == at_most:
            break
    return messages


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise PodloxxError(
            f"cannot read this machine's network interfaces over netlink: {error}. "
            "A sandbox may forbid it; run capture in the host's network namespace without one."
        ) from error


def _seen(message: Message) -> Seen:
    return Seen(
        Link(
            index=message["index"],
            name=message.get_attr("IFLA_IFNAME") or "",
            kind=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
            peer_netns=message.get_attr("IFLA_LINK_NETNSID"),
            up=bool(message["flags"] & _IFF_UP),
        ),
        mac=message.get_attr("IFLA_ADDRESS") or "",
        peer_index=message.get_attr("IFLA_LINK") or None,
    )


def _routes(message: Message) -> Iterator[Route]:
    """One per link that the route leads to."""
    # Exceptions to routes, such as a discovered MTU, come along as routes to single addresses.
    if message["flags"] & _RTM_F_CLONED:
        return
    length = message["dst_len"]
    host = address.parse(message.get_attr("RTA_DST")) if length == _BITS[message["family"]] else None
    hops = message.get_attr("RTA_MULTIPATH") or ()
    outputs = [(hop["oif"], hop) for hop in hops] or [(message.get_attr("RTA_OIF"), message)]
    for output, hop in outputs:
        if output is not None:
            via = bool(hop.get_attr("RTA_GATEWAY") or hop.get_attr("RTA_VIA"))
            yield Route(output, via=via, default=length == 0, host=host)
