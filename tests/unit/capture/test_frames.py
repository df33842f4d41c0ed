"""What the headers of frames say, also of those that nobody should send."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.capture.frames import Frame, LinkType, parse
from services.flows import address
from services.flows.delta import Kind, Malformed
from tests.support import generators as make
from tests.unit.capture.hostile_frames import HOSTILE, Hostile

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
CLIENT6, SERVER6 = "fd00::1", "fd00::2"
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
DNS = make.udp_datagram(40000, 53, b"question")
SYN = make.tcp_segment(40000, 443, flags=0x02)
SCTP = struct.pack("!HHII", 40000, 38412, 1, 0)
PACKET4 = make.ipv4(CLIENT, SERVER, make.UDP, DNS)
PACKET6 = make.ipv6(CLIENT6, SERVER6, make.UDP, DNS)

frames = st.binary(max_size=200)
links = st.sampled_from(LinkType)


def number(text: str) -> int:
    """An address as frames carry it."""
    hi, lo = address.to_words(address.parse(text))
    return hi << 64 | lo


def ends(frame: Frame) -> tuple[str, int, str, int]:
    assert frame.kind is Kind.IP
    names = [str(address.from_words(one >> 64, one & (1 << 64) - 1)) for one in (frame.source, frame.destination)]
    return names[0], frame.source_port, names[1], frame.destination_port


# --- What is whole


@pytest.mark.parametrize(
    ("protocol", "transport", "port", "header_bytes"),
    [(make.TCP, SYN, 443, 20), (make.UDP, DNS, 53, 8), (make.SCTP, SCTP, 38412, 12)],
    ids=["TCP", "UDP", "SCTP"],
)
def test_ports_of_the_protocols_that_have_some(protocol: int, transport: bytes, port: int, header_bytes: int) -> None:
    frame = parse(make.ethernet(IPV4, make.ipv4(CLIENT, SERVER, protocol, transport)))
    assert ends(frame) == (CLIENT, 40000, SERVER, port)
    assert (frame.protocol, frame.header_bytes, frame.code) == (protocol, 34 + header_bytes, 0)
    frame = parse(make.ethernet(IPV6, make.ipv6(CLIENT6, SERVER6, protocol, transport)))
    assert ends(frame) == (CLIENT6, 40000, SERVER6, port)
    assert (frame.protocol, frame.header_bytes, frame.code) == (protocol, 54 + header_bytes, 0)


@pytest.mark.parametrize(
    ("packet", "protocol"),
    [
        (make.ipv4(CLIENT, SERVER, make.ICMP, bytes.fromhex("0800f7ff00000000")), make.ICMP),
        (make.ipv4(CLIENT, SERVER, 47, bytes.fromhex("00000800") + PACKET4), 47),
        (make.ipv4(CLIENT, SERVER, 4, PACKET4), 4),
    ],
    ids=["ICMP", "GRE", "IPIP"],
)
def test_other_protocols_have_no_ports(packet: bytes, protocol: int) -> None:
    frame = parse(make.ethernet(IPV4, packet))
    assert (ends(frame), frame.protocol) == ((CLIENT, 0, SERVER, 0), protocol)


def test_icmpv6_has_no_ports() -> None:
    frame = parse(make.ethernet(IPV6, make.ipv6(CLIENT6, SERVER6, 58, bytes.fromhex("8000000000010001"))))
    assert (ends(frame), frame.protocol) == ((CLIENT6, 0, SERVER6, 0), 58)


def test_of_a_tunnel_the_outermost_addresses_count() -> None:
    vxlan = make.udp_datagram(50000, 4789, bytes.fromhex("0800000000002a00") + make.ethernet(IPV4, PACKET4))
    frame = parse(make.ethernet(IPV4, make.ipv4("192.0.2.1", "192.0.2.2", make.UDP, vxlan)))
    assert ends(frame) == ("192.0.2.1", 50000, "192.0.2.2", 4789)


@pytest.mark.parametrize("tags", [(0x8100,), (0x88A8,), (0x9100,), (0x88A8, 0x8100), (0x9100,) * 4])
def test_tags_are_passed_over_and_count_as_headers(tags: tuple[int, ...]) -> None:
    frame = parse(make.ethernet(IPV4, PACKET4, *((tag, 7) for tag in tags)))
    assert ends(frame) == (CLIENT, 40000, SERVER, 53)
    assert frame.header_bytes == 14 + 4 * len(tags) + 28


def test_options_of_ip_and_tcp_count_as_headers() -> None:
    segment = bytearray(SYN + bytes(12))
    segment[12] = 0x80
    frame = parse(make.ethernet(IPV4, make.ipv4(CLIENT, SERVER, make.TCP, bytes(segment), options=b"\1" * 8)))
    assert ends(frame) == (CLIENT, 40000, SERVER, 443)
    assert frame.header_bytes == 14 + 28 + 32


@pytest.mark.parametrize("words", range(5))
def test_a_tcp_header_that_says_it_is_too_short_counts_as_the_shortest(words: int) -> None:
    segment = bytearray(SYN)
    segment[12] = words << 4
    assert parse(make.ethernet(IPV4, make.ipv4(CLIENT, SERVER, make.TCP, bytes(segment)))).header_bytes == 14 + 20 + 20


def test_extension_headers_count_as_headers() -> None:
    chain = make.extension(make.DESTINATION, 2) + make.extension(make.UDP) + DNS
    frame = parse(make.ethernet(IPV6, make.ipv6(CLIENT6, SERVER6, make.HOP_BY_HOP, chain)))
    assert ends(frame) == (CLIENT6, 40000, SERVER6, 53)
    assert (frame.protocol, frame.header_bytes) == (make.UDP, 54 + 24 + 8 + 8)


@pytest.mark.parametrize(
    ("flags", "syn"), [(0x02, True), (0xC2, True), (0x12, False), (0x10, False), (0x00, False), (0x03, True)]
)
def test_only_a_syn_without_an_ack_opens_a_connection(flags: int, *, syn: bool) -> None:
    segment = make.tcp_segment(40000, 443, flags=flags)
    assert parse(make.ethernet(IPV4, make.ipv4(CLIENT, SERVER, make.TCP, segment))).syn is syn


def test_all_fragments_of_a_datagram_are_of_its_addresses_and_only_the_first_has_ports() -> None:
    pieces = make.fragments(CLIENT, SERVER, make.udp_datagram(40000, 53, bytes(3000)), 1480)
    found = [ends(parse(make.ethernet(IPV4, piece))) for piece in pieces]
    assert found == [(CLIENT, 40000, SERVER, 53), (CLIENT, 0, SERVER, 0), (CLIENT, 0, SERVER, 0)]


def test_arp_is_not_ip() -> None:
    assert parse(make.ethernet(ARP, make.arp_request(CLIENT, SERVER))) == Frame(Kind.NOT_IP, code=ARP, header_bytes=14)


def test_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    frame = parse(make.ethernet(IPV6, make.ipv6(f"::ffff:{CLIENT}", f"::ffff:{SERVER}", make.UDP, DNS)))
    assert ends(frame) == (CLIENT, 40000, SERVER, 53)
    assert frame.source == number(CLIENT)


# --- Links


@pytest.mark.parametrize(
    ("link", "header"),
    [
        (LinkType.ETHERNET, make.ethernet(IPV4, b"")),
        (LinkType.RAW_IP, b""),
        (LinkType.IPV4, b""),
        (LinkType.NULL, b"\2\0\0\0"),
        (LinkType.NULL, b"\0\0\0\2"),
        (LinkType.LOOP, b"\0\0\0\2"),
        (LinkType.LINUX_SLL, bytes.fromhex("0000 0001 0006 02000000aaaa 0000 0800")),
        (LinkType.LINUX_SLL, bytes.fromhex("0000 0001 0006 02000000aaaa 0000 8100 0007 0800")),
        (LinkType.LINUX_SLL2, bytes.fromhex("0800 0000 00000003 0001 00 06 02000000aaaa 0000")),
    ],
)
def test_ipv4_on_every_link(link: LinkType, header: bytes) -> None:
    frame = parse(header + PACKET4, link)
    assert ends(frame) == (CLIENT, 40000, SERVER, 53)
    assert frame.header_bytes == len(header) + 28


@pytest.mark.parametrize(
    ("link", "header"),
    [
        (LinkType.ETHERNET, make.ethernet(IPV6, b"")),
        (LinkType.RAW_IP, b""),
        (LinkType.IPV6, b""),
        *((LinkType.NULL, family.to_bytes(4, "little")) for family in (10, 24, 28, 30)),
        *((LinkType.NULL, family.to_bytes(4)) for family in (10, 24, 28, 30)),
        (LinkType.LOOP, b"\0\0\0\x18"),
        (LinkType.LINUX_SLL, bytes.fromhex("0000 0001 0006 02000000aaaa 0000 86dd")),
        (LinkType.LINUX_SLL2, bytes.fromhex("86dd 0000 00000003 0001 00 06 02000000aaaa 0000")),
    ],
)
def test_ipv6_on_every_link(link: LinkType, header: bytes) -> None:
    frame = parse(header + PACKET6, link)
    assert ends(frame) == (CLIENT6, 40000, SERVER6, 53)
    assert frame.header_bytes == len(header) + 48


# --- What is not whole


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda one: one.name)
def test_hostile_frames(hostile: Hostile) -> None:
    frame = parse(hostile.frame, hostile.link)
    ports = frame.source_port, frame.destination_port
    assert (frame.kind, frame.code, frame.protocol, ports) == (
        hostile.kind,
        hostile.code,
        hostile.protocol,
        hostile.ports,
    )


def test_the_corpus_has_every_reason() -> None:
    assert {one.code for one in HOSTILE if one.kind is Kind.MALFORMED} == set(Malformed)


def test_no_two_hostile_frames_have_the_same_name() -> None:
    assert len({one.name for one in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("packet", [PACKET4, PACKET6], ids=["IPv4", "IPv6"])
def test_a_packet_that_is_cut_anywhere_is_ip_as_soon_as_its_header_is_whole(packet: bytes) -> None:
    header, ethertype = (20, IPV4) if packet is PACKET4 else (40, IPV6)
    whole = make.ethernet(ethertype, packet)
    kinds = [parse(whole[:size]).kind for size in range(len(whole) + 1)]
    cut = 14 + header
    assert kinds == [Kind.MALFORMED] * cut + [Kind.IP] * (len(whole) + 1 - cut)


@pytest.mark.parametrize("size", range(35))
def test_what_a_cut_frame_says_is_what_the_whole_one_says(size: int) -> None:
    whole = make.ethernet(IPV4, make.ipv4(CLIENT, SERVER, make.TCP, SYN))
    frame = parse(whole[: 34 + size])
    expected = parse(whole)
    assert (frame.source, frame.destination) == (expected.source, expected.destination)
    assert ends(frame)[1::2] == ((40000, 443) if size >= 4 else (0, 0))
    assert frame.syn is (size >= 14)


# --- Whatever the bytes are


def assert_one_class(frame: Frame, link: LinkType) -> None:
    """A frame is IP, something else that has an EtherType, or malformed for one reason."""
    if frame.kind is Kind.MALFORMED:
        assert frame == Frame(Kind.MALFORMED, code=Malformed(frame.code))
    elif frame.kind is Kind.NOT_IP:
        assert frame == Frame(Kind.NOT_IP, code=frame.code, header_bytes=frame.header_bytes)
        assert frame.code == 0 or 0x0600 <= frame.code <= 0xFFFF
        assert link not in {LinkType.RAW_IP, LinkType.IPV4, LinkType.IPV6}
    else:
        assert frame.kind is Kind.IP
        assert frame.code == 0
        assert 0 <= frame.protocol <= 255
        assert 0 <= frame.source < 1 << 128
        assert 0 <= frame.destination < 1 << 128
        assert 0 <= frame.source_port <= 0xFFFF
        assert 0 <= frame.destination_port <= 0xFFFF
        assert frame.header_bytes > 0


@given(frames, links)
@example(b"", LinkType.ETHERNET)
def test_any_bytes_belong_to_exactly_one_class(data: bytes, link: LinkType) -> None:
    assert_one_class(parse(data, link), link)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, LinkType]:
    """A hostile or whole frame of some link of which bytes are changed, and that is cut."""
    one = draw(st.sampled_from(HOSTILE))
    data = bytearray(one.frame[:300])
    changes = draw(st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), max_size=6))
    for at, value in changes:
        if at < len(data):
            data[at] = value
    return bytes(data[: draw(st.integers(0, 300))]), one.link


@given(mutated())
def test_mutated_frames_belong_to_exactly_one_class(frame: tuple[bytes, LinkType]) -> None:
    assert_one_class(parse(*frame), frame[1])


@given(mutated())
def test_views_are_read_as_bytes_are(frame: tuple[bytes, LinkType]) -> None:
    data, link = frame
    assert parse(memoryview(data), link) == parse(bytearray(data), link) == parse(data, link)


@given(
    st.sampled_from([make.TCP, make.UDP, make.SCTP]),
    st.ip_addresses(v=4),
    st.ip_addresses(v=4),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.lists(st.tuples(st.sampled_from([0x8100, 0x88A8, 0x9100]), st.integers(0, 65535)), max_size=4),
    st.integers(0, 10).map(lambda words: b"\1" * 4 * words),
)
def test_what_was_written_is_read(
    protocol: int,
    source: object,
    target: object,
    source_port: int,
    target_port: int,
    tags: list[tuple[int, int]],
    options: bytes,
) -> None:
    transport = struct.pack("!HH", source_port, target_port) + bytes(16)
    packet = make.ipv4(str(source), str(target), protocol, transport, options=options)
    frame = parse(make.ethernet(IPV4, packet, *tags))
    assert ends(frame) == (str(source), source_port, str(target), target_port)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), st.lists(st.integers(0, 6), max_size=8))
def test_what_was_written_behind_extension_headers_is_read(source: object, target: object, sizes: list[int]) -> None:
    chain = b"".join(
        make.extension(make.DESTINATION if at + 1 < len(sizes) else make.UDP, words) for at, words in enumerate(sizes)
    )
    first = make.DESTINATION if sizes else make.UDP
    frame = parse(make.ethernet(IPV6, make.ipv6(str(source), str(target), first, chain + DNS)))
    assert frame.source == int.from_bytes(socket.inet_pton(socket.AF_INET6, str(source)))
    assert frame.destination == int.from_bytes(socket.inet_pton(socket.AF_INET6, str(target)))
    assert (frame.protocol, frame.source_port, frame.destination_port) == (make.UDP, 40000, 53)
