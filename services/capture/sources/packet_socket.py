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
from services.capture.raw_flow import (
    ABOUT,
    ATTACHMENT,
    BYTE,
    DIRECTION_AT,
    KIND_AT,
    LOCAL_HI,
    LOCAL_LO,
    PACKETS,
    Direction,
    RawRows,
    columns_of,
)
from services.flows import address
from services.flows.address import Address
from services.flows.delta import Kind
from services.flows.table import group_columns, sum_by
from services.runtime.errors import PodloxxError, PrivilegeError

SOL_PACKET: Final = 263
_ETH_P_ALL: Final = 3
_SIOCGIFINDEX: Final = 0x8933
_SIOCGIFHWADDR: Final = 0x8927
_IFREQ: Final = Struct("=16si20x")
_HARDWARE: Final = Struct("=16sH22x")
"""The kernel's ifreq: an interface's name with its index, or with its link type."""
_SENDERS: Final = 16
"""Addresses told per attachment; a pod has a few, one that forwards or forges any number."""
_KIND_AND_DIRECTION: Final = BYTE | BYTE << (DIRECTION_AT - KIND_AT)
assert (Kind.IP, Direction.TX) == (0, 0)
_LINK_TYPES: Final = {1: LinkType.ETHERNET, 772: LinkType.ETHERNET, 65534: LinkType.RAW_IP}
"""By the kernel's ARPHRD number: Ethernet, loopback, and links without a header of their own."""


def unbound() -> socket.socket:
    """A packet socket to which nothing arrives before it is bound, so never a frame of another link."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def of_all_links() -> socket.socket:
    """A packet socket to which frames of every link arrive at once."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))


def link_type(link: Link) -> LinkType:
    """How the link's frames begin; raises OSError where it is gone, PodloxxError where they cannot be read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        _check_index(asking, link)
        answer = fcntl.ioctl(asking, _SIOCGIFHWADDR, _IFREQ.pack(link.name.encode(), 0))
    hardware = _HARDWARE.unpack(answer)[1]
    if hardware not in _LINK_TYPES:
        raise PodloxxError(
            f"cannot read the packets of {link.name}: its link type (ARPHRD {hardware}) is neither Ethernet "
            "nor plain IP. Leave it out of --interface and --interface-prefix."
        )
    return _LINK_TYPES[hardware]


def bind(packets: socket.socket, link: Link) -> None:
    """Have the link's frames arrive; raises OSError where it is gone."""
    # Bound without a protocol nothing arrives yet, so never a frame of another link.
    packets.bind((link.name, 0))
    _check_index(packets, link)
    packets.bind((link.name, _ETH_P_ALL))


def senders(rows: RawRows) -> dict[int, frozenset[Address]]:
    """Addresses from which each attachment's pod sent, those of most packets where there are many."""
    columns = columns_of(rows)
    about = columns[ABOUT]
    # Neither kind nor direction is set: IP that the pod sent.
    sent = np.flatnonzero(about >> KIND_AT & _KIND_AND_DIRECTION == 0)
    attachment, hi, lo = about[sent] & ATTACHMENT, columns[LOCAL_HI][sent], columns[LOCAL_LO][sent]
    first, inverse = group_columns([lo, attachment, hi])
    packets = sum_by(inverse, columns[PACKETS][sent], len(first)).astype(np.int64)
    attachment, hi, lo = attachment[first], hi[first], lo[first]
    order = np.lexsort((-packets, attachment))
    attachment, hi, lo = attachment[order], hi[order], lo[order]
    starts = np.searchsorted(attachment, attachment)
    found: dict[int, set[Address]] = {}
    for at in np.flatnonzero(np.arange(len(attachment)) - starts < _SENDERS):
        one = address.from_words(int(hi[at]), int(lo[at]))
        if not (one.is_unspecified or one.is_link_local or one.is_loopback):
            found.setdefault(int(attachment[at]), set()).add(one)
    return {number: frozenset(known) for number, known in found.items()}


def _check_index(asking: socket.socket, link: Link) -> None:
    # if_nametoindex would open a socket for each question.
    answer = fcntl.ioctl(asking, _SIOCGIFINDEX, _IFREQ.pack(link.name.encode(), 0))
    if _IFREQ.unpack(answer)[1] != link.index:
        raise OSError(errno.ENODEV, f"{link.name} is another interface by now")


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
