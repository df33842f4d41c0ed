"""What a frame's headers say, whatever its bytes are."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from services.flows.address import MAPPED_PREFIX
from services.flows.delta import Kind, Malformed
from services.flows.protocols import SCTP, TCP, UDP

Buffer: TypeAlias = bytes | bytearray | memoryview


class LinkType(IntEnum):
    """How a frame begins; the numbers are those of pcap files."""

    NULL = 0
    """Four bytes with the address family in the byte order of the machine that captured."""
    ETHERNET = 1
    RAW_IP = 101
    """No link header: the version nibble tells IPv4 from IPv6."""
    LOOP = 108
    """As NULL, in network byte order."""
    LINUX_SLL = 113
    IPV4 = 228
    IPV6 = 229
    LINUX_SLL2 = 276


class Frame(NamedTuple):
    """The outermost IP header of a frame, or why there is none.

    Addresses are 128-bit numbers, IPv4 mapped. Ports are 0 where the protocol has none and in
    fragments after the first. `code` is the EtherType of what is not IP or the number of the
    `Malformed`. `header_bytes` are link, network and transport headers together.
    """

    kind: Kind
    protocol: int = 0
    source: int = 0
    destination: int = 0
    source_port: int = 0
    destination_port: int = 0
    syn: bool = False
    code: int = 0
    header_bytes: int = 0


_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_TAGS: Final = frozenset((0x8100, 0x88A8, 0x9100))
_MOST_TAGS: Final = 4
_FIRST_ETHERTYPE: Final = 0x0600
"""Smaller values are 802.3 lengths."""
_LEAST_IPV4: Final = 20
_IPV6_BYTES: Final = 40
_MOST_EXTENSIONS: Final = 8
_FRAGMENT: Final = 44
_EXTENSIONS: Final = {
    0: (8, 8),  # hop-by-hop
    43: (8, 8),  # routing
    _FRAGMENT: (8, 0),
    51: (8, 4),  # authentication
    60: (8, 8),  # destination options
    135: (8, 8),  # mobility
    139: (8, 8),  # HIP
    140: (8, 8),  # Shim6
}
"""By protocol number: a header's least bytes, and those that each unit of its length field adds."""
_SYN_ACK: Final = 0x12
_SYN: Final = 0x02
_LEAST_TRANSPORT: Final = {TCP: 20, UDP: 8, SCTP: 12}
"""Header bytes of the protocols with ports."""
_MAPPED: Final = MAPPED_PREFIX
# AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 to 30 on the BSDs.
_FAMILIES: Final = {2: _IPV4, 10: _IPV6, 24: _IPV6, 28: _IPV6, 30: _IPV6}

_H: Final = Struct("!H").unpack_from
_HH: Final = Struct("!HH").unpack_from
_I4: Final = Struct("!BxHxxHxBxxII").unpack_from
_I6: Final = Struct("!BxxxHBxQQQQ").unpack_from


def parse(frame: Buffer, link: LinkType = LinkType.ETHERNET) -> Frame:
    """The frame's headers; never raises. Judges by the bytes that were captured."""
    if link == LinkType.ETHERNET:
        if len(frame) < 14:
            return _malformed(Malformed.TRUNCATED_LINK)
        ethertype: int = _H(frame, 12)[0]
        if ethertype == _IPV4:
            return _ipv4(frame, 14)
        return _network(frame, 14, ethertype)
    return _OTHER_LINKS[link](frame)


def _network(frame: Buffer, at: int, ethertype: int) -> Frame:
    tags = 0
    while ethertype in _TAGS:
        if tags == _MOST_TAGS:
            return _malformed(Malformed.VLAN_DEPTH)
        if len(frame) < at + 4:
            return _malformed(Malformed.TRUNCATED_VLAN)
        ethertype = _H(frame, at + 2)[0]
        at += 4
        tags += 1
    if ethertype == _IPV4:
        return _ipv4(frame, at)
    if ethertype == _IPV6:
        return _ipv6(frame, at)
    return Frame(Kind.NOT_IP, code=ethertype if ethertype >= _FIRST_ETHERTYPE else 0, header_bytes=at)


def _ipv4(frame: Buffer, at: int) -> Frame:
    captured = len(frame)
    if captured < at + _LEAST_IPV4:
        return _malformed(Malformed.TRUNCATED_IPV4)
    first, total, fragment, protocol, source, destination = _I4(frame, at)
    if first >> 4 != 4:
        return _malformed(Malformed.IPV4_VERSION)
    length = (first & 15) * 4
    if length < _LEAST_IPV4:
        return _malformed(Malformed.IPV4_HEADER_LENGTH)
    payload = at + length
    if captured < payload:
        return _malformed(Malformed.TRUNCATED_IPV4)
    ends = protocol, _MAPPED | source, _MAPPED | destination
    if fragment & 0x1FFF:
        return Frame(Kind.IP, *ends, header_bytes=payload)
    # What follows the packet is Ethernet's padding. Segmentation offload writes no length.
    return _transport(frame, payload, min(captured, at + total) if total else captured, ends)


def _ipv6(frame: Buffer, at: int) -> Frame:
    captured = len(frame)
    if captured < at + _IPV6_BYTES:
        return _malformed(Malformed.TRUNCATED_IPV6)
    first, size, protocol, s_hi, s_lo, d_hi, d_lo = _I6(frame, at)
    if first >> 4 != 6:
        return _malformed(Malformed.IPV6_VERSION)
    at += _IPV6_BYTES
    source, destination = s_hi << 64 | s_lo, d_hi << 64 | d_lo
    # Jumbograms and segmentation offload write no length.
    end = min(captured, at + size) if size else captured
    for _ in range(_MOST_EXTENSIONS):
        layout = _EXTENSIONS.get(protocol)
        if layout is None:
            break
        least, unit = layout
        if end < at + least:
            return Frame(Kind.IP, protocol, source, destination, header_bytes=min(at, captured))
        later_fragment = protocol == _FRAGMENT and _H(frame, at + 2)[0] & 0xFFF8
        protocol = frame[at]
        at += least + unit * frame[at + 1]
        if later_fragment:
            return Frame(Kind.IP, protocol, source, destination, header_bytes=at)
    return _transport(frame, at, end, (protocol, source, destination))


def _transport(frame: Buffer, at: int, end: int, ends: tuple[int, int, int]) -> Frame:
    """The ports and flags at `at` of a packet that ends at `end`; 0 where they are not there."""
    protocol = ends[0]
    if protocol not in _LEAST_TRANSPORT or end < at + 4:
        return Frame(Kind.IP, *ends, header_bytes=min(at, len(frame)))
    source_port, destination_port = _HH(frame, at)
    if protocol == TCP and end >= at + 14:
        flags = frame[at + 13]
        size = max(frame[at + 12] >> 4, 5) * 4
        return Frame(Kind.IP, *ends, source_port, destination_port, flags & _SYN_ACK == _SYN, header_bytes=at + size)
    return Frame(Kind.IP, *ends, source_port, destination_port, header_bytes=at + _LEAST_TRANSPORT[protocol])


def _raw_ip(frame: Buffer) -> Frame:
    if not len(frame):
        return _malformed(Malformed.TRUNCATED_LINK)
    return _ipv6(frame, 0) if frame[0] >> 4 == 6 else _ipv4(frame, 0)


def _null(frame: Buffer) -> Frame:
    if len(frame) < 4:
        return _malformed(Malformed.TRUNCATED_LINK)
    # Which byte order wrote it is told by where the only non-zero byte of a small number is.
    family = int.from_bytes(frame[:4])
    if family > 0xFFFF:
        family = int.from_bytes(frame[:4], "little")
    ethertype = _FAMILIES.get(family)
    if ethertype is None:
        return Frame(Kind.NOT_IP, header_bytes=4)
    return _network(frame, 4, ethertype)


def _sll(frame: Buffer) -> Frame:
    if len(frame) < 16:
        return _malformed(Malformed.TRUNCATED_LINK)
    return _network(frame, 16, _H(frame, 14)[0])


def _sll2(frame: Buffer) -> Frame:
    if len(frame) < 20:
        return _malformed(Malformed.TRUNCATED_LINK)
    return _network(frame, 20, _H(frame, 0)[0])


def _malformed(reason: Malformed) -> Frame:
    return Frame(Kind.MALFORMED, code=reason)


_OTHER_LINKS: Final = {
    LinkType.NULL: _null,
    LinkType.LOOP: _null,
    LinkType.RAW_IP: _raw_ip,
    LinkType.IPV4: lambda frame: _ipv4(frame, 0),
    LinkType.IPV6: lambda frame: _ipv6(frame, 0),
    LinkType.LINUX_SLL: _sll,
    LinkType.LINUX_SLL2: _sll2,
}
