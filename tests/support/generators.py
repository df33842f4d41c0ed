"""Traffic whose packets and bytes are known by arithmetic before it is sent."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.netns import Namespace

LINK_BYTES: Final = 14
NOBODY: Final = bytes.fromhex("02000000eeee")
"""A destination that no interface has: the stack behind the link answers nothing."""
SENDER: Final = bytes.fromhex("02000000aaaa")
TCP, UDP, SCTP, ICMP, AH = 6, 17, 132, 1, 51
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60

_TIMEOUT_S: Final = 20.0
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_VNET_NEEDS_CSUM: Final = 1
_VNET_TCP4: Final = 1
_TCP_SEGS_OUT_AT: Final = 136
_TCP_BYTES_SENT_AT: Final = 200
"""Offsets of tcpi_segs_out and tcpi_bytes_sent in tcp_info."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What left an interface, with link headers; `wire_bytes` as if every segment were a frame."""

    packets: int
    link_bytes: int
    segments: int
    wire_bytes: int

    @classmethod
    def of(cls, frames: Sequence[bytes]) -> Sent:
        total = sum(map(len, frames))
        return cls(len(frames), total, len(frames), total)


@dataclass(frozen=True, slots=True)
class Talked:
    """One TCP connection as both kernels count it; `client_bytes` with what was sent again."""

    client_bytes: int
    client_segments: int
    server_segments: int


def headers_bytes(address: str, transport: int) -> int:
    """Of one frame to `address`: link, IP and `transport` bytes of transport header."""
    return LINK_BYTES + (40 if ipaddress.ip_address(address).version == 6 else 20) + transport


# --- Sockets


@contextlib.contextmanager
def udp_sink(namespace: Namespace, address: str, port: int) -> Iterator[socket.socket]:
    """A socket that takes datagrams, so that none is answered with an error."""
    with namespace.call(lambda: socket.socket(_family(address), socket.SOCK_DGRAM)) as sink:
        sink.bind((address, port))
        yield sink


def udp(namespace: Namespace, target: str, port: int, *, count: int, size: int, source_port: int = 0) -> Sent:
    """Send `count` datagrams with `size` bytes each, which must fit into the MTU."""
    with namespace.call(lambda: socket.socket(_family(target), socket.SOCK_DGRAM)) as out:
        out.bind(("", source_port))
        out.connect((target, port))
        for _ in range(count):
            out.send(bytes(size))
    total = count * (headers_bytes(target, 8) + size)
    return Sent(count, total, count, total)


def udp_segmented(namespace: Namespace, target: str, port: int, *, count: int, segments: int, size: int) -> Sent:
    """Send `count` super-packets, each to be cut into `segments` datagrams of `size` bytes."""
    with namespace.call(lambda: socket.socket(_family(target), socket.SOCK_DGRAM)) as out:
        out.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
        out.connect((target, port))
        for _ in range(count):
            out.send(bytes(segments * size))
    headers = headers_bytes(target, 8)
    return Sent(count, count * (headers + segments * size), count * segments, count * segments * (headers + size))


def tcp(client: Namespace, server: Namespace, address: str, port: int, *, size: int) -> Talked:
    """Send `size` bytes over one connection and close it in order."""
    listener = server.call(lambda: socket.create_server((address, port), family=_family(address)))
    accepted: list[socket.socket] = []

    def serve() -> None:
        connection, _ = listener.accept()
        accepted.append(connection)
        connection.settimeout(_TIMEOUT_S)
        while connection.recv(1 << 20):
            pass
        connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    with listener, client.call(lambda: socket.socket(_family(address), socket.SOCK_STREAM)) as out:
        thread.start()
        out.settimeout(_TIMEOUT_S)
        out.connect((address, port))
        out.sendall(bytes(size))
        out.shutdown(socket.SHUT_WR)
        out.recv(1)
        thread.join()
        # Both ends are closed now, so neither kernel has anything more to send. The answer to
        # the SYN was sent before the server's connection, which counts, came to be.
        with accepted[0] as connection:
            return Talked(_bytes_sent(out), _segments_out(out), _segments_out(connection) + 1)


def _segments_out(connection: socket.socket) -> int:
    return int(struct.unpack_from("=I", _tcp_info(connection), _TCP_SEGS_OUT_AT)[0])


def _bytes_sent(connection: socket.socket) -> int:
    return int(struct.unpack_from("=Q", _tcp_info(connection), _TCP_BYTES_SENT_AT)[0])


def _tcp_info(connection: socket.socket) -> bytes:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


# --- Frames


def inject(namespace: Namespace, interface: str, frames: Sequence[bytes]) -> Sent:
    """Put `frames` on the link as they are."""
    with namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as out:
        out.bind((interface, 0))
        for frame in frames:
            out.send(frame)
    return Sent.of(frames)


def inject_segmented(namespace: Namespace, interface: str, frame: bytes, *, transport_at: int, size: int) -> Sent:
    """Put a TCP super-packet on the link, to be cut into segments with `size` bytes of payload.

    `frame` has an IPv4 header and a TCP header of 20 bytes, which begins at `transport_at`.
    """
    headers = transport_at + 20
    segmentation = struct.pack("=BBHHHH", _VNET_NEEDS_CSUM, _VNET_TCP4, headers, size, transport_at, 16)
    with namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as out:
        out.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        out.bind((interface, 0))
        out.send(segmentation + frame)
    segments = -(-(len(frame) - headers) // size)
    return Sent(1, len(frame), segments, len(frame) + (segments - 1) * headers)


def ethernet(ethertype: int, payload: bytes, *tags: tuple[int, int], target: bytes = NOBODY) -> bytes:
    """A frame with `tags` (type of the tag, VLAN number), the outermost first."""
    written = b"".join(struct.pack("!HH", kind, number) for kind, number in tags)
    return target + SENDER + written + struct.pack("!H", ethertype) + payload


def ipv4(
    source: str,
    target: str,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    offset: int = 0,
    more: bool = False,
    number: int = 1,
) -> bytes:
    """A packet; `offset` of a fragment in bytes."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        0,
        20 + len(options) + len(payload),
        number,
        offset // 8 | (0x2000 if more else 0),
        64,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(target),
    )
    header += options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ipv6(source: str, target: str, next_header: int, payload: bytes) -> bytes:
    """A packet; `payload` begins with the extension headers, if there are any."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64) + addresses + payload


def extension(next_header: int, words: int = 0) -> bytes:
    """An IPv6 extension header of 8 + 8 x `words` bytes that says nothing."""
    size = 8 + 8 * words
    return bytes([next_header, words, 1, size - 4]) + bytes(size - 4)


def fragment6(next_header: int, offset: int, *, more: bool, number: int = 77) -> bytes:
    """IPv6's fragment header; `offset` in bytes."""
    return struct.pack("!BBHI", next_header, 0, offset | more, number)


def udp_datagram(source_port: int, target_port: int, payload: bytes) -> bytes:
    """A datagram without a checksum."""
    return struct.pack("!HHHH", source_port, target_port, 8 + len(payload), 0) + payload


def tcp_segment(source_port: int, target_port: int, payload: bytes = b"", *, flags: int = 0x10) -> bytes:
    """A segment with a header of 20 bytes."""
    return struct.pack("!HHIIBBHHH", source_port, target_port, 1, 1, 0x50, flags, 1024, 0, 0) + payload


def arp_request(source: str, target: str) -> bytes:
    """Who has `target`?"""
    return (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        + SENDER
        + socket.inet_aton(source)
        + bytes(6)
        + socket.inet_aton(target)
    )


def fragments(source: str, target: str, datagram: bytes, size: int) -> list[bytes]:
    """One UDP datagram as IPv4 packets with at most `size` bytes of it in each (a multiple of 8)."""
    return [
        ipv4(
            source,
            target,
            UDP,
            datagram[start : start + size],
            offset=start,
            more=start + size < len(datagram),
        )
        for start in range(0, len(datagram), size)
    ]


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
