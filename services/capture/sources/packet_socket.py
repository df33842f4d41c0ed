"""Packet sockets on a node's links: opened, bound, and what their rows tell of pods."""

from __future__ import annotations

import errno
import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Final

import numpy as np

from services.capture.frames import LinkType
from services.capture.links import Link
from services.capture.raw_flow import Direction, RawRows
from services.flows import address
from services.flows.address import Address
from services.flows.delta import Kind
from services.flows.table import group, sum_by
from services.runtime.errors import PodloxxError, PrivilegeError

_ETH_P_ALL: Final = 3
_SIOCGIFINDEX: Final = 0x8933
_IFREQ: Final = Struct("=16si20x")
_SENDERS: Final = 16
"""Addresses told per attachment; a pod has a few, one that forwards or forges any number."""
_SENDER: Final = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("attachment", "<u4"), ("zero", "<u4")])
_LINK_TYPES: Final = {1: LinkType.ETHERNET, 772: LinkType.ETHERNET, 65534: LinkType.RAW_IP}
"""By the kernel's ARPHRD number: Ethernet, loopback, and links without a header of their own."""


def unbound() -> socket.socket:
    """A packet socket to which nothing arrives before it is bound, so never a frame of another link."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def link_type(packets: socket.socket, link: Link) -> LinkType:
    """How the link's frames begin; raises OSError where it is gone, PodloxxError where they cannot be read."""
    packets.bind((link.name, 0))
    if _index(packets, link.name) != link.index:
        raise OSError(errno.ENODEV, f"{link.name} is another interface by now")
    hardware = packets.getsockname()[3]
    if hardware not in _LINK_TYPES:
        raise PodloxxError(
            f"cannot read the packets of {link.name}: its link type (ARPHRD {hardware}) is neither Ethernet "
            "nor plain IP. Leave it out of --interface and --interface-prefix."
        )
    return _LINK_TYPES[hardware]


def bind(packets: socket.socket, link: Link) -> LinkType:
    """Have the link's frames arrive; raises as `link_type`."""
    found = link_type(packets, link)
    packets.bind((link.name, _ETH_P_ALL))
    return found


def senders(rows: RawRows) -> dict[int, frozenset[Address]]:
    """Addresses from which each attachment's pod sent, those of most packets where there are many."""
    sent = rows[(rows["kind"] == Kind.IP) & (rows["direction"] == Direction.TX)]
    keys = np.zeros(len(sent), _SENDER)
    keys["hi"], keys["lo"], keys["attachment"] = sent["local_hi"], sent["local_lo"], sent["attachment"]
    first, inverse = group(keys)
    unique, packets = keys[first], sum_by(inverse, sent["packets"], len(first))
    order = np.lexsort((-packets.astype(np.int64), unique["attachment"]))
    unique = unique[order]
    starts = np.searchsorted(unique["attachment"], unique["attachment"])
    found: dict[int, set[Address]] = {}
    for row in unique[np.arange(len(unique)) - starts < _SENDERS]:
        one = address.from_words(int(row["hi"]), int(row["lo"]))
        if not (one.is_unspecified or one.is_link_local or one.is_loopback):
            found.setdefault(int(row["attachment"]), set()).add(one)
    return {attachment: frozenset(known) for attachment, known in found.items()}


def _index(packets: socket.socket, name: str) -> int:
    """The index of an interface, without opening a socket for that as if_nametoindex does."""
    answer = fcntl.ioctl(packets, _SIOCGIFINDEX, _IFREQ.pack(name.encode(), 0))
    return int(_IFREQ.unpack(answer)[1])


@contextmanager
def translating() -> Iterator[None]:
    """Turn refusals of the kernel into sentences."""
    try:
        yield
    except PermissionError as error:
        raise PrivilegeError(
            "capturing needs the capability CAP_NET_RAW, which this process does not have: run it as root "
            "or grant that capability."
        ) from error
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise PrivilegeError(
                "capturing needs one open file per interface besides CAP_NET_RAW, and no more may be opened: "
                "raise the limit of open files (ulimit -n)."
            ) from error
        raise
