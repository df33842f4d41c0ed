"""Links whose other end is a file: what is written to it is what the link receives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

from tests.support.netns import Namespace

IFF_TUN: Final = 0x0001
IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_TUNSETIFF: Final = 0x400454CA
_TUNSETLINK: Final = 0x400454CD
VNET_BYTES: Final = 10
"""Length of the segmentation header that precedes each frame."""
_NEEDS_CSUM, _GSO_UDP = 1, 3


@contextlib.contextmanager
def tap_device(namespace: Namespace, name: str, *, mode: int = IFF_TAP, hardware: int | None = None) -> Iterator[int]:
    """The file of a new link, which is up; `hardware` is another ARPHRD number to have."""
    with namespace.entered():
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), mode | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(device, _TUNSETIFF, request)
        if hardware is not None:
            fcntl.ioctl(device, _TUNSETLINK, hardware)
        namespace.ip(f"link set {name} up")
        yield device
    finally:
        os.close(device)


def fragmentation_offload(size: int, checksum_start: int) -> bytes:
    """The header of a UDP datagram that the kernel is to send as IP fragments of `size` bytes."""
    return struct.pack("=BBHHHH", _NEEDS_CSUM, _GSO_UDP, checksum_start + 8, size, checksum_start, 6)
