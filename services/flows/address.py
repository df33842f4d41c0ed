"""IP addresses as the two 64-bit words in which tables and the wire carry them.

An address is the number of its IPv6 form: `hi` holds the upper 64 bits, `lo` the lower. IPv4 is
carried IPv4-mapped (::ffff:a.b.c.d), so that a mapped IPv6 address and the IPv4 address it
stands for are one and the same.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOW: Final = (1 << 64) - 1
MAPPED_PREFIX: Final = 0xFFFF << 32
"""Upper half of `lo` of every IPv4 address (`hi` is 0)."""


def parse(text: str) -> Address:
    """The address that `text` writes; raises ValueError as `ipaddress` does."""
    return normal(ipaddress.ip_address(text))


def normal(address: Address) -> Address:
    """The IPv4 address behind an IPv4-mapped one, every other address as it is."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def from_words(hi: int, lo: int) -> Address:
    """The address whose words are `hi` and `lo`."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return ipaddress.IPv4Address(lo & 0xFFFFFFFF)
    return ipaddress.IPv6Address(hi << 64 | lo)


def to_words(address: Address) -> tuple[int, int]:
    """The words (`hi`, `lo`) of an address of either family."""
    if isinstance(address, ipaddress.IPv4Address):
        return 0, MAPPED_PREFIX | int(address)
    number = int(address)
    return number >> 64, number & _LOW


def from_bytes(packed: bytes) -> Address:
    """The address in 16 bytes (network order, IPv4 mapped); raises ValueError on any other length."""
    if len(packed) != 16:
        raise ValueError(f"an address has 16 bytes, got {len(packed)}")
    return from_words(int.from_bytes(packed[:8]), int.from_bytes(packed[8:]))


def to_bytes(address: Address) -> bytes:
    """The address as 16 bytes in network order, IPv4 mapped."""
    hi, lo = to_words(address)
    return hi.to_bytes(8) + lo.to_bytes(8)
