"""What a captured frame adds to the flow table, with what the kernel says beside it."""

from __future__ import annotations

from struct import Struct
from typing import Final

from services.capture.flow_table import FlowTable
from services.capture.frames import Frame, LinkType, parse
from services.capture.links import Link
from services.capture.raw_flow import Direction

PACKET_OUTGOING: Final = 4
"""The packet type of frames that this machine sends."""
TAG_BYTES: Final = 4
VNET: Final = Struct("=BBHHHH")
"""virtio_net_hdr: flags, segmentation type, header length, segment size, checksum start and offset."""
_NEEDS_CSUM: Final = 1
_ECN: Final = 0x80
_TCP: Final = frozenset({1, 4})
_TCP_OFFSET: Final = 12
_TCP_USUAL_BYTES: Final = 32
"""A TCP header with timestamps, for where it lies beyond what was read (IPv6 in a tunnel over
IPv6). Taking it for too long loses a segment only if the last one is a few bytes."""
_UDP_BYTES: Final = 8


def add(
    table: FlowTable,
    attachment: int,
    link: Link,
    kind: LinkType,
    data: memoryview,
    *,
    start: int,
    length: int,
    tagged: bool,
    outgoing: bool,
) -> None:
    """Count a frame of `length` bytes, of which `data` holds the first from `start` on.

    Before `start` lies the segmentation header, or nothing where the kernel gave none. `tagged`
    says that a VLAN tag was taken out.
    """
    frame = parse(data[start:], kind)
    # A tag that came in the frame was counted by the interface, and taken out before the
    # frame came here. On its way out a frame's tag is counted only where it still is in it.
    tag = TAG_BYTES if tagged and not outgoing else 0
    segments = 1
    if start and data[1]:
        segments, headers = _segments(data, frame, length)
        frame = frame._replace(header_bytes=headers + tag)
    direction = Direction.TX if outgoing == link.pod_side else Direction.RX
    table.add(attachment, direction, frame, length + tag, segments)


def _segments(data: memoryview, frame: Frame, length: int) -> tuple[int, int]:
    """Into how many packets a super-packet is to be cut, and the headers that each of them repeats.

    In a tunnel the checksum starts at the innermost transport header, which is what the cut
    repeats; `frame` knows the outermost one.
    """
    flags, kind, _, segment_bytes, checksum_start, _ = VNET.unpack_from(data)
    headers = frame.header_bytes
    if flags & _NEEDS_CSUM:
        headers = checksum_start + _UDP_BYTES
        if kind & ~_ECN in _TCP:
            at = VNET.size + checksum_start + _TCP_OFFSET
            headers = checksum_start + (data[at] // 16 * 4 if at < len(data) else _TCP_USUAL_BYTES)
    payload = length - headers
    return max(1, -(-payload // segment_bytes)), headers
