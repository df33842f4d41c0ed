"""Frames that are cut, contradictory or merely strange, each with the one class it belongs to.

They are written out in hex, not built by the code that builds other tests' frames.
"""

from __future__ import annotations

from typing import NamedTuple

from services.capture.frames import LinkType
from services.flows.delta import Kind, Malformed

MACS = "02000000eeee 02000000aaaa"
IP4 = f"{MACS} 0800"
IP6 = f"{MACS} 86dd"
ENDS4 = "0a000001 0a000002"
ENDS6 = "fd000000000000000000000000000001 fd000000000000000000000000000002"
UDP = "3039 0035 0009 0000 78"
TCP_SYN = "3039 01bb 00000001 00000000 5002 0400 0000 0000"


def v4(protocol: str, total: str = "001d", first: str = "45", fragment: str = "0000") -> str:
    return f"{first}00 {total} 0001 {fragment} 40{protocol} 0000 {ENDS4}"


def v6(next_header: str, size: str = "0009", first: str = "60") -> str:
    return f"{first}000000 {size} {next_header}40 {ENDS6}"


class Hostile(NamedTuple):
    """`code` is the EtherType or the reason, `ports` and `protocol` are those of kind IP."""

    name: str
    hex: str
    kind: Kind
    code: int = 0
    protocol: int = 0
    ports: tuple[int, int] = (0, 0)
    link: LinkType = LinkType.ETHERNET

    @property
    def frame(self) -> bytes:
        return bytes.fromhex(self.hex)


def broken(name: str, text: str, reason: Malformed, link: LinkType = LinkType.ETHERNET) -> Hostile:
    return Hostile(name, text, Kind.MALFORMED, reason, link=link)


def whole(name: str, text: str, protocol: int, ports: tuple[int, int] = (0, 0), **link: LinkType) -> Hostile:
    return Hostile(name, text, Kind.IP, 0, protocol, ports, **link)


def other(name: str, text: str, ethertype: int, link: LinkType = LinkType.ETHERNET) -> Hostile:
    return Hostile(name, text, Kind.NOT_IP, ethertype, link=link)


LINK = [
    broken("nothing at all", "", Malformed.TRUNCATED_LINK),
    broken("an Ethernet header less a byte", f"{MACS} 08", Malformed.TRUNCATED_LINK),
    broken("an empty raw frame", "", Malformed.TRUNCATED_LINK, LinkType.RAW_IP),
    broken("half a family", "0200", Malformed.TRUNCATED_LINK, LinkType.NULL),
    broken("half a cooked header", "0000 0001", Malformed.TRUNCATED_LINK, LinkType.LINUX_SLL),
    broken("a cooked header v2 less a byte", "0800" + "00" * 17, Malformed.TRUNCATED_LINK, LinkType.LINUX_SLL2),
    other("a family that nobody has", "000000ff" + v4("11") + UDP, 0, LinkType.NULL),
    other("a family that reads the same both ways round", "01000001", 0, LinkType.NULL),
    other("an 802.3 length", f"{MACS} 0026 4242 03" + "00" * 35, 0),
    other("the largest 802.3 length", f"{MACS} 05dc aaaa03 000000 0800", 0),
    other("a number between length and EtherType", f"{MACS} 05ff", 0),
    other("the least EtherType", f"{MACS} 0600", 0x0600),
    other("ARP without a body", f"{MACS} 0806", 0x0806),
    other("MPLS with IPv4 inside", f"{MACS} 8847 00001140" + v4("11") + UDP, 0x8847),
    other("PPPoE with IPv4 inside", f"{MACS} 8864 1100 0001 0023 0021" + v4("11") + UDP, 0x8864),
    other("the EtherType of all ones", f"{MACS} ffff", 0xFFFF),
    other("802.2 over a cooked header", "0000 0001 0006 02000000aaaa0000 0004 4242", 0, LinkType.LINUX_SLL),
]
VLAN = [
    broken("a tag less a byte", f"{MACS} 8100 0001 08", Malformed.TRUNCATED_VLAN),
    broken("a tag's type alone", f"{MACS} 88a8", Malformed.TRUNCATED_VLAN),
    broken("a second tag less a byte", f"{MACS} 88a8 0001 8100 0002 08", Malformed.TRUNCATED_VLAN),
    whole("four tags", f"{MACS} 88a8 0001 9100 0002 8100 0003 8100 0004 0800 {v4('11')} {UDP}", 17, (12345, 53)),
    broken("five tags", f"{MACS} 8100 0001 8100 0002 8100 0003 8100 0004 8100 0005 0800", Malformed.VLAN_DEPTH),
    broken("the type of a fifth tag", f"{MACS} 8100 0001 8100 0002 8100 0003 8100 0004 8100", Malformed.VLAN_DEPTH),
    broken("nothing but tags", MACS + "8100" * 700, Malformed.VLAN_DEPTH),
    other("a length behind a tag", f"{MACS} 8100 0001 0003 424203", 0),
    other("ARP behind a tag", f"{MACS} 8100 0001 0806", 0x0806),
    broken("IPv4 behind a tag, and nothing", f"{MACS} 8100 0001 0800", Malformed.TRUNCATED_IPV4),
]
IPV4 = [
    broken("IPv4 and nothing", IP4, Malformed.TRUNCATED_IPV4),
    broken("an IPv4 header less a byte", f"{IP4} {v4('11')}"[:-2], Malformed.TRUNCATED_IPV4),
    broken("options that are not there", f"{IP4} {v4('11', first='46')}", Malformed.TRUNCATED_IPV4),
    broken("options less a byte", f"{IP4} {v4('11', first='4f')}" + "01" * 39, Malformed.TRUNCATED_IPV4),
    broken("a header of four words", f"{IP4} {v4('11', first='44')} {UDP}", Malformed.IPV4_HEADER_LENGTH),
    broken("a header of no words", f"{IP4} {v4('11', first='40')} {UDP}", Malformed.IPV4_HEADER_LENGTH),
    broken("IPv6 called IPv4", f"{IP4} {v6('11')} {UDP}", Malformed.IPV4_VERSION),
    broken("version 0", f"{IP4} {v4('11', first='05')} {UDP}", Malformed.IPV4_VERSION),
    broken("version 15 without a link header", v4("11", first="f5") + UDP, Malformed.IPV4_VERSION, LinkType.RAW_IP),
    broken("a raw byte", "45", Malformed.TRUNCATED_IPV4, LinkType.RAW_IP),
    broken("IPv6 where only IPv4 may be", v6("11") + UDP, Malformed.IPV4_VERSION, LinkType.IPV4),
    whole("a header and nothing", f"{IP4} {v4('11')}", 17),
    whole("half the ports", f"{IP4} {v4('11')} 3039 00", 17),
    whole("the ports and nothing", f"{IP4} {v4('11')} 3039 0035", 17, (12345, 53)),
    whole("all options there may be", f"{IP4} {v4('11', '0045', '4f')} {'01' * 40} {UDP}", 17, (12345, 53)),
    whole("TCP cut before its flags", f"{IP4} {v4('06', '0028')} {TCP_SYN}"[:-14], 6, (12345, 443)),
    whole("TCP whose data offset is 0", f"{IP4} {v4('06', '0028')} {TCP_SYN.replace('5002', '0002')}", 6, (12345, 443)),
    whole("a length of 0, as offload writes it", f"{IP4} {v4('11', '0000')} {UDP}", 17, (12345, 53)),
    whole("a length that ends within the header", f"{IP4} {v4('11', '0008')} {UDP}", 17),
    whole("a length that promises far more", f"{IP4} {v4('11', 'ffff')} {UDP}", 17, (12345, 53)),
    whole("padding where the ports would be", f"{IP4} {v4('11', '0014')} ffffffff ffffffff", 17),
    whole("the last fragment", f"{IP4} {v4('11', fragment='00b9')} {UDP}", 17),
    whole("a fragment in the middle", f"{IP4} {v4('11', fragment='2001')} {UDP}", 17),
    whole("the fragment furthest away", f"{IP4} {v4('11', fragment='1fff')} {UDP}", 17),
    whole("the first fragment", f"{IP4} {v4('11', fragment='2000')} {UDP}", 17, (12345, 53)),
    whole("the reserved fragment bit", f"{IP4} {v4('11', fragment='8000')} {UDP}", 17, (12345, 53)),
    whole("a protocol without a name", f"{IP4} {v4('fe')} {UDP}", 254),
    whole("protocol 0", f"{IP4} {v4('00')} {UDP}", 0),
    whole("ESP, which hides its ports", f"{IP4} {v4('32')} {UDP}", 50),
    whole("IPv4 in IPv4", f"{IP4} {v4('04', '0031')} {v4('11')} {UDP}", 4),
    whole("both ends the same", f"{IP4} {v4('11').replace(ENDS4, '7f000001 7f000001')} {UDP}", 17, (12345, 53)),
]
CHAIN = "0000010400000000"
"""Hop-by-hop options, again and again."""
IPV6 = [
    broken("IPv6 and nothing", IP6, Malformed.TRUNCATED_IPV6),
    broken("an IPv6 header less a byte", f"{IP6} {v6('11')}"[:-2], Malformed.TRUNCATED_IPV6),
    broken("IPv4 called IPv6", f"{IP6} {v4('11', '0045', '4f')} {'01' * 40} {UDP}", Malformed.IPV6_VERSION),
    broken("a raw nibble of six", "60", Malformed.TRUNCATED_IPV6, LinkType.RAW_IP),
    broken("IPv4 where only IPv6 may be", v4("11") + "00" * 40, Malformed.IPV6_VERSION, LinkType.IPV6),
    whole("a header alone", f"{IP6} {v6('11')}", 17),
    whole("a jumbogram's length", f"{IP6} {v6('11', '0000')} {UDP}", 17, (12345, 53)),
    whole("no next header, and padding", f"{IP6} {v6('3b')} {UDP}", 59),
    whole("an extension that is not there", f"{IP6} {v6('00')}", 0),
    whole("an extension of seven bytes", f"{IP6} {v6('3c', '0007')} 11000104000000", 60),
    whole("an extension longer than the packet", f"{IP6} {v6('00', '0011')} 11ff010400000000 {UDP}", 17),
    whole("an extension behind the packet", f"{IP6} {v6('00', '0004')} 1100010400000000 {UDP}", 0),
    whole("each kind of extension once", f"{IP6} {v6('00', '0051')} 3c00010400000000 2b00010400000000"
          f" 8700010400000000 8b00010400000000 8c00010400000000 3301000000000000 00000000"
          f" 2c01 0000 00000001 00000000 1100 0000 00000001 {UDP}", 17, (12345, 53)),
    whole("eight extensions", f"{IP6} {v6('00', '0049')} {CHAIN * 7} 1100010400000000 {UDP}", 17, (12345, 53)),
    whole("nine extensions", f"{IP6} {v6('00', '0051')} {CHAIN * 8} 1100010400000000 {UDP}", 0),
    whole("extensions without end", f"{IP6} {v6('00', '0640')} {CHAIN * 200}", 0),
    whole("a fragment header less a byte", f"{IP6} {v6('2c', '0007')} 1100 0000 000000", 44),
    whole("the last IPv6 fragment", f"{IP6} {v6('2c', '0011')} 1100 00b8 00000001 {UDP}", 17),
    whole("the first IPv6 fragment", f"{IP6} {v6('2c', '0011')} 1100 0001 00000001 {UDP}", 17, (12345, 53)),
    whole("a fragment with reserved bits", f"{IP6} {v6('2c', '0011')} 11ff 0006 00000001 {UDP}", 17, (12345, 53)),
    whole("a later fragment of options", f"{IP6} {v6('2c', '0011')} 3c00 0008 00000001 {UDP}", 60),
    whole("authentication of the least length", f"{IP6} {v6('33', '0011')} 1100 0000 00000001 {UDP}", 17, (12345, 53)),
    whole("authentication with a check value", f"{IP6} {v6('33', '0021')} 1104 0000 00000001 00000001 {'ab' * 12} {UDP}",
          17, (12345, 53)),
    whole("authentication that is cut", f"{IP6} {v6('33', '0007')} 1104 0000 000000", 51),
    whole("ESP in IPv6", f"{IP6} {v6('32')} {UDP}", 50),
    whole("IPv6 in IPv6", f"{IP6} {v6('29', '0031')} {v6('11')} {UDP}", 41),
]  # fmt: skip
HOSTILE = [*LINK, *VLAN, *IPV4, *IPV6]
