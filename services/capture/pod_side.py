"""Reads pods' own ends of links from the node's namespace, without entering theirs."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from struct import Struct
from types import TracebackType
from typing import Final, Self

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from services.capture.netlink import HostCounters, node_address
from services.flows.address import Address
from services.runtime.log import get_logger

_log = get_logger(__name__)
_HEADER: Final = Struct("=IHHII")
_LINK: Final = Struct("=BxHiII")
_ADDRESS: Final = Struct("=BBBBI")
_ATTRIBUTE: Final = Struct("=HH")
_NUMBER: Final = Struct("=HHi")
_STATS: Final = Struct("=QQQQ")
_ERROR: Final = Struct("=i")
_ERROR_TYPE, _DONE_TYPE, _NEWADDR, _GETADDR, _GETLINK = 2, 3, 20, 22, 18
_REQUEST, _DUMP = 0x1, 0x300
_STATS64, _LINK_TARGET, _ADDRESS_TARGET, _TYPE = 23, 46, 10, 0x3FFF
_SOL_NETLINK, _STRICT = 270, 12
"""Without strict checking a kernel tells the addresses of its own namespace, whichever it was asked for."""
_ANSWER_S: Final = 2.0
"""The kernel answers within microseconds; it never fails to."""
_MOST_BYTES: Final = 1 << 16
_AT_ONCE: Final = 32
"""Requests that are sent together: their answers, 4 kB each as the kernel counts them, fit into what a socket holds."""
Where = tuple[int, int | None]
"""A link by its index in a namespace, by the number that the node has for that; None: the node's own."""
_REFUSED: Final = frozenset({errno.EPERM, errno.EACCES})


class PodSide:
    """Asks the kernel about links in other namespaces, which takes CAP_NET_ADMIN; use as a context manager.

    `allowed` turns false at the first refusal, and nothing is asked from then on.
    """

    def __init__(self) -> None:
        self.allowed = True
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(_ANSWER_S)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)
        except OSError:
            # Before Linux 4.20, which does not tell other namespaces' addresses either.
            self._strict = False
        else:
            self._strict = True
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def counters(self, links: Sequence[Where]) -> list[HostCounters | None]:
        """The counters of links, in their order; None for one that is gone, and for all where nobody may ask."""
        found: list[HostCounters | None] = [None] * len(links)
        for at in range(0, len(links), _AT_ONCE):
            some = links[at : at + _AT_ONCE]
            first = self._number + 1
            for number, kind, message in self._ask([(_GETLINK, _link_body(*link), 0) for link in some]):
                if kind != _ERROR_TYPE:
                    found[at + number - first] = _counters(message)
        return found

    def addresses(self, netns: int) -> frozenset[Address]:
        """All addresses in a namespace but those of loopback; none where nobody may ask."""
        if not self._strict:
            return frozenset()
        body = _ADDRESS.pack(0, 0, 0, 0, 0) + _NUMBER.pack(8, _ADDRESS_TARGET, netns)
        found = set()
        parse = MarshalRtnl().parse
        for _, kind, message in self._ask([(_GETADDR, body, _DUMP)]):
            if kind == _NEWADDR:
                found |= {node_address(one).address for one in parse(message)}
        return frozenset(one for one in found if not one.is_loopback)

    def _ask(self, requests: Sequence[tuple[int, bytes, int]]) -> Iterator[tuple[int, int, bytes]]:
        """The messages of the answers, with their requests' numbers, and their types; nothing where nobody may ask.

        A request is its type, its body and its flags; they are numbered one after the other, and sent together.
        """
        if not self.allowed:
            return
        sent, waiting = [], {}
        for kind, body, flags in requests:
            self._number += 1
            waiting[self._number] = flags
            length = _HEADER.size + len(body)
            sent.append(_HEADER.pack(length, kind, _REQUEST | flags, self._number, 0) + body + bytes(-length % 4))
        try:
            self._socket.send(b"".join(sent))
            while waiting:
                data = self._socket.recv(_MOST_BYTES)
                for answer, number, message in _messages(data):
                    if number not in waiting:
                        continue
                    if answer == _ERROR_TYPE:
                        self._refused(-_ERROR.unpack_from(message, _HEADER.size)[0])
                    elif answer != _DONE_TYPE:
                        yield number, answer, message
                    if answer in {_ERROR_TYPE, _DONE_TYPE} or not waiting[number]:
                        del waiting[number]
        except OSError as error:
            _log.info("pod-side-not-read", error=str(error))

    def _refused(self, number: int) -> None:
        if number in _REFUSED and self.allowed:
            self.allowed = False
            _log.info("pod-side-not-allowed", needs="CAP_NET_ADMIN", consequence="pods' own counters are not known")


def _link_body(index: int, netns: int | None) -> bytes:
    body = _LINK.pack(0, 0, index, 0, 0)
    return body if netns is None else body + _NUMBER.pack(8, _LINK_TARGET, netns)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, number and bytes of each message."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, number, data[at : at + length]
        at += (length + 3) & ~3


def _counters(message: bytes) -> HostCounters | None:
    at = _HEADER.size + _LINK.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            return None
        if kind & _TYPE == _STATS64:
            rx_packets, tx_packets, rx_bytes, tx_bytes = _STATS.unpack_from(message, at + _ATTRIBUTE.size)
            return HostCounters(rx_bytes, rx_packets, tx_bytes, tx_packets)
        at += (length + 3) & ~3
    return None
