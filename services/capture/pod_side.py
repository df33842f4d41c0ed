"""Reads pods' own ends of links from the node's namespace, without entering theirs."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
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

    def counters(self, index: int, netns: int | None) -> HostCounters | None:
        """The counters of a link by its index in a namespace of which the node has this number, None: its own.

        None where nobody may ask, or the link is gone.
        """
        body = _LINK.pack(0, 0, index, 0, 0)
        if netns is not None:
            body += _NUMBER.pack(8, _LINK_TARGET, netns)
        for kind, message in self._ask(_GETLINK, body, 0):
            if kind != _ERROR_TYPE:
                return _counters(message)
        return None

    def addresses(self, netns: int) -> frozenset[Address]:
        """All addresses in a namespace but those of loopback; none where nobody may ask."""
        if not self._strict:
            return frozenset()
        body = _ADDRESS.pack(0, 0, 0, 0, 0) + _NUMBER.pack(8, _ADDRESS_TARGET, netns)
        found = set()
        parse = MarshalRtnl().parse
        for kind, message in self._ask(_GETADDR, body, _DUMP):
            if kind == _NEWADDR:
                found |= {node_address(one).address for one in parse(message)}
        return frozenset(one for one in found if not one.is_loopback)

    def _ask(self, kind: int, body: bytes, flags: int) -> Iterator[tuple[int, bytes]]:
        """The messages of the answer, with their types; nothing where nobody may ask."""
        if not self.allowed:
            return
        self._number += 1
        try:
            self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._number, 0) + body)
            while True:
                data = self._socket.recv(_MOST_BYTES)
                for answer, number, message in _messages(data):
                    if number != self._number:
                        continue
                    if answer == _ERROR_TYPE:
                        self._refused(-_ERROR.unpack_from(message, _HEADER.size)[0])
                    elif answer != _DONE_TYPE:
                        yield answer, message
                    if answer in {_ERROR_TYPE, _DONE_TYPE} or not flags:
                        return
        except OSError as error:
            _log.info("pod-side-not-read", error=str(error))

    def _refused(self, number: int) -> None:
        if number in _REFUSED:
            self.allowed = False
            _log.info("pod-side-not-allowed", needs="CAP_NET_ADMIN", consequence="pods' own counters are not known")


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
