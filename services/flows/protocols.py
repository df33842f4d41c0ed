"""Names of IP protocols and EtherTypes as the API and `replay --json` write them."""

from __future__ import annotations

from typing import Final

TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132
ICMP: Final = 1
ICMPV6: Final = 58
WITH_PORTS: Final = frozenset((TCP, UDP, SCTP))

_PROTOCOLS: Final = {
    ICMP: "icmp",
    2: "igmp",
    4: "ipip",
    TCP: "tcp",
    UDP: "udp",
    41: "ipv6",
    47: "gre",
    50: "esp",
    51: "ah",
    ICMPV6: "icmpv6",
    59: "no-next-header",
    89: "ospf",
    103: "pim",
    112: "vrrp",
    SCTP: "sctp",
}
_NOT_IP: Final = {
    0: "802.3",
    0x0806: "arp",
    0x8035: "rarp",
    0x8847: "mpls",
    0x8848: "mpls-multicast",
    0x8863: "pppoe-discovery",
    0x8864: "pppoe",
    0x888E: "eapol",
    0x8809: "slow-protocols",
    0x88CC: "lldp",
    0x88E5: "macsec",
    0x88F7: "ptp",
    0x8906: "fcoe",
}


def protocol_name(number: int) -> str:
    """`tcp`, `udp` …, or the number in decimal."""
    return _PROTOCOLS.get(number, str(number))


def ethertype_name(number: int) -> str:
    """`arp`, `lldp` …, or the number as 0x and four hex digits."""
    return _NOT_IP.get(number, f"0x{number:04x}")
