from __future__ import annotations

import asyncio

import pytest

from services.flows.delta import Kind
from tests.support import generators as frames
from tests.support.netns import Namespace
from tests.support.watch import HOST, HOST6, POD, POD6, Watch, peers

MEGABYTE = 1 << 20


# --- TCP with segmentation offload


@pytest.mark.parametrize(("pod_address", "host_address"), [(POD, HOST), (POD6, HOST6)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("from_pod", [True, False], ids=["from the pod", "to the pod"])
async def test_tcp_is_counted_as_the_interface_does_and_as_the_segments_that_it_is_cut_into(
    pair: tuple[Namespace, Namespace], watch: Watch, pod_address: str, host_address: str, *, from_pod: bool
) -> None:
    node, pod = pair
    ends = (pod, node, host_address) if from_pod else (node, pod, pod_address)
    talked = await asyncio.to_thread(frames.tcp, *ends, 5001, size=20 * MEGABYTE)
    await watch.settled()
    watch.assert_exact()

    rows = watch.rows[watch.rows["protocol"] == frames.TCP]
    client = rows["direction"] == (0 if from_pod else 1)
    header = frames.headers_bytes(host_address, 32)
    assert rows["packets"][client].sum() < talked.client_segments / 4, "offload was at work"
    assert rows["segments"][client].sum() == talked.client_segments
    assert rows["segments"][~client].sum() == talked.server_segments
    # The first segment has 20 bytes of options, all others have 12.
    assert rows["wire_bytes"][client].sum() == talked.client_bytes + talked.client_segments * header + 8
    assert rows["syns"][client].sum() == 1
    assert peers(watch) >= {(pod_address, host_address)}


async def test_tcp_without_offload_comes_in_single_segments(pair: tuple[Namespace, Namespace], watch: Watch) -> None:
    node, pod = pair
    pod.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    talked = await asyncio.to_thread(frames.tcp, pod, node, HOST, 5001, size=MEGABYTE)
    await watch.settled()
    watch.assert_exact()
    assert watch.tx.packets == watch.tx.segments
    assert watch.tx.wire_bytes == watch.tx.link_bytes
    assert watch.rows[watch.rows["protocol"] == frames.TCP]["segments"].sum() == (
        talked.client_segments + talked.server_segments
    )


# --- UDP


@pytest.mark.parametrize("target", [HOST, HOST6])
async def test_udp_is_counted_to_the_byte(pair: tuple[Namespace, Namespace], watch: Watch, target: str) -> None:
    node, pod = pair
    with frames.udp_sink(node, target, 7000):
        sent = await asyncio.to_thread(frames.udp, pod, target, 7000, count=5000, size=333, source_port=40000)
        await watch.settled()
    watch.assert_exact()
    (row,) = watch.rows[watch.rows["protocol"] == frames.UDP]
    assert (row["local_port"], row["peer_port"]) == (40000, 7000)
    assert (row["packets"], row["bytes"], row["segments"], row["wire_bytes"]) == (
        sent.packets,
        sent.link_bytes,
        sent.segments,
        sent.wire_bytes,
    )


@pytest.mark.parametrize("target", [HOST, HOST6])
async def test_udp_super_packets_are_the_datagrams_that_they_are_cut_into(
    pair: tuple[Namespace, Namespace], watch: Watch, target: str
) -> None:
    node, pod = pair
    with frames.udp_sink(node, target, 7000):
        sent = await asyncio.to_thread(frames.udp_segmented, pod, target, 7000, count=40, segments=31, size=1200)
        await watch.settled()
    watch.assert_exact()
    rows = watch.rows[watch.rows["protocol"] == frames.UDP]
    assert rows["packets"].sum() == sent.packets
    assert rows["bytes"].sum() == sent.link_bytes
    assert rows["segments"].sum() == sent.segments
    assert rows["wire_bytes"].sum() == sent.wire_bytes


async def test_datagrams_that_ip_cuts_are_counted_as_fragments(pair: tuple[Namespace, Namespace], watch: Watch) -> None:
    node, pod = pair
    with frames.udp_sink(node, HOST, 7000):
        await asyncio.to_thread(frames.udp, pod, HOST, 7000, count=10, size=4000, source_port=40000)
        await watch.settled()
    watch.assert_exact()
    rows = watch.rows[watch.rows["protocol"] == frames.UDP]
    # 4008 bytes are 1480 + 1480 + 1048, and only the first fragment has ports.
    assert sorted((row["peer_port"], row["packets"], row["bytes"]) for row in rows) == [
        (0, 20, 10 * (2 * 34 + 1480 + 1048)),
        (7000, 10, 10 * (34 + 1480)),
    ]


# --- Frames as they come


def _datagram(size: int = 100) -> bytes:
    return frames.udp_datagram(1111, 2222, bytes(size))


IPV4_UDP = frames.ipv4(POD, HOST, frames.UDP, _datagram())
IPV6_UDP = frames.ipv6(POD6, HOST6, frames.UDP, _datagram())
VXLAN = frames.udp_datagram(
    40000, 4789, bytes.fromhex("0800000000002a00") + frames.ethernet(0x0800, frames.ipv4("1.1.1.1", "2.2.2.2", 6, b""))
)
SINGLE = [
    ("UDP", frames.ethernet(0x0800, IPV4_UDP), Kind.IP, 17, 2222),
    ("VLAN", frames.ethernet(0x0800, IPV4_UDP, (0x8100, 100)), Kind.IP, 17, 2222),
    ("VLAN, IPv6", frames.ethernet(0x86DD, IPV6_UDP, (0x8100, 100)), Kind.IP, 17, 2222),
    ("VLAN 0, priority only", frames.ethernet(0x0800, IPV4_UDP, (0x8100, 0xE000)), Kind.IP, 17, 2222),
    ("QinQ", frames.ethernet(0x0800, IPV4_UDP, (0x88A8, 200), (0x8100, 100)), Kind.IP, 17, 2222),
    ("QinQ, both 802.1Q", frames.ethernet(0x0800, IPV4_UDP, (0x8100, 200), (0x8100, 100)), Kind.IP, 17, 2222),
    ("QinQ, 0x9100", frames.ethernet(0x0800, IPV4_UDP, (0x9100, 200), (0x8100, 100)), Kind.IP, 17, 2222),
    ("VLAN, ARP", frames.ethernet(0x0806, frames.arp_request(POD, HOST), (0x8100, 100)), Kind.NOT_IP, 0, 0x0806),
    ("ARP", frames.ethernet(0x0806, frames.arp_request(POD, HOST)), Kind.NOT_IP, 0, 0x0806),
    ("802.3 length", frames.ethernet(38, bytes(38)), Kind.NOT_IP, 0, 0),
    ("link layer discovery", frames.ethernet(0x88CC, bytes(60)), Kind.NOT_IP, 0, 0x88CC),
    ("SCTP", frames.ethernet(0x0800, frames.ipv4(POD, HOST, 132, b"\x15\xb3\x1a\x0a" + bytes(8))), Kind.IP, 132, 6666),
    ("ICMP", frames.ethernet(0x0800, frames.ipv4(POD, HOST, 1, b"\x08" + bytes(7))), Kind.IP, 1, 0),
    (
        "IPv4 options",
        frames.ethernet(0x0800, frames.ipv4(POD, HOST, 17, _datagram(), options=b"\x01" * 8)),
        Kind.IP,
        17,
        2222,
    ),
    (
        "IPv6 extension headers",
        frames.ethernet(
            0x86DD,
            frames.ipv6(
                POD6,
                HOST6,
                frames.HOP_BY_HOP,
                frames.extension(frames.DESTINATION) + frames.extension(17) + _datagram(),
            ),
        ),
        Kind.IP,
        17,
        2222,
    ),
    (
        "IPv6 first fragment",
        frames.ethernet(
            0x86DD, frames.ipv6(POD6, HOST6, frames.FRAGMENT, frames.fragment6(17, 0, more=True) + _datagram())
        ),
        Kind.IP,
        17,
        2222,
    ),
    (
        "IPv6 later fragment",
        frames.ethernet(
            0x86DD, frames.ipv6(POD6, HOST6, frames.FRAGMENT, frames.fragment6(17, 64, more=False) + bytes(64))
        ),
        Kind.IP,
        17,
        0,
    ),
    ("VXLAN", frames.ethernet(0x0800, frames.ipv4(POD, HOST, 17, VXLAN)), Kind.IP, 17, 4789),
    ("IP in IP", frames.ethernet(0x0800, frames.ipv4(POD, HOST, 4, IPV4_UDP)), Kind.IP, 4, 0),
    ("cut IPv4 header", frames.ethernet(0x0800, IPV4_UDP[:16]), Kind.MALFORMED, 0, 3),
    ("cut IPv6 header", frames.ethernet(0x86DD, IPV6_UDP[:39]), Kind.MALFORMED, 0, 4),
    (
        "longer than what is read of it",
        frames.ethernet(0x0800, frames.ipv4(POD, HOST, 17, _datagram(1400))),
        Kind.IP,
        17,
        2222,
    ),
]


@pytest.mark.parametrize("from_pod", [True, False], ids=["from the pod", "to the pod"])
@pytest.mark.parametrize(
    ("frame", "kind", "protocol", "port"), [case[1:] for case in SINGLE], ids=[case[0] for case in SINGLE]
)
async def test_every_sort_of_frame_is_counted_to_the_byte(
    pair: tuple[Namespace, Namespace],
    watch: Watch,
    frame: bytes,
    kind: Kind,
    protocol: int,
    port: int,
    *,
    from_pod: bool,
) -> None:
    node, pod = pair
    sent = frames.inject(pod if from_pod else node, "eth0" if from_pod else "veth0", [frame] * 3)
    await watch.settled()
    watch.assert_exact()
    rows = watch.rows[(watch.rows["kind"] == kind) & (watch.rows["protocol"] == protocol)]
    (row,) = rows[rows["local_port" if kind == Kind.IP and not from_pod else "peer_port"] == port]
    assert (row["packets"], row["bytes"], row["segments"]) == (sent.packets, sent.link_bytes, sent.segments)
    assert row["direction"] == (0 if from_pod else 1)


@pytest.mark.parametrize("from_pod", [True, False], ids=["from the pod", "to the pod"])
@pytest.mark.parametrize("tags", [(), ((0x8100, 100),), ((0x88A8, 200), (0x8100, 100))], ids=["plain", "VLAN", "QinQ"])
async def test_each_segment_repeats_the_tags(
    pair: tuple[Namespace, Namespace], watch: Watch, tags: tuple[tuple[int, int], ...], *, from_pod: bool
) -> None:
    packet = frames.ipv4(POD, HOST, frames.TCP, frames.tcp_segment(1111, 2222, bytes(9500)))
    where, name = (pair[1], "eth0") if from_pod else (pair[0], "veth0")
    sent = frames.inject_segmented(
        where, name, frames.ethernet(0x0800, packet, *tags), transport_at=34 + 4 * len(tags), size=1000
    )
    await watch.settled()
    watch.assert_exact()
    (row,) = watch.rows[watch.rows["protocol"] == frames.TCP]
    assert (row["packets"], row["bytes"]) == (sent.packets, sent.link_bytes)
    assert (row["segments"], row["wire_bytes"]) == (sent.segments, sent.wire_bytes)


async def test_fragments_made_by_hand_add_up(pair: tuple[Namespace, Namespace], watch: Watch) -> None:
    made = [
        frames.ethernet(0x0800, packet, *tags)
        for tags in ((), ((0x8100, 100),))
        for packet in frames.fragments(POD, HOST, _datagram(2000), 512)
    ]
    sent = frames.inject(pair[1], "eth0", made)
    await watch.settled()
    watch.assert_exact()
    rows = watch.rows[watch.rows["protocol"] == frames.UDP]
    assert (rows["packets"].sum(), rows["bytes"].sum()) == (sent.packets, sent.link_bytes)
    assert set(rows["peer_port"]) == {0, 2222}


@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
@pytest.mark.parametrize("inner", ["IPv4", "IPv6"])
async def test_a_tunnel_is_counted_outside_and_cut_into_segments_inside(
    pair: tuple[Namespace, Namespace], watch: Watch, outer: str, inner: str
) -> None:
    node, pod = pair
    host, local = (HOST, POD) if outer == "IPv4" else (HOST6, POD6)
    insides = ("10.99.0.1", "10.99.0.2") if inner == "IPv4" else ("fd99::1", "fd99::2")
    for end, own, other, device, inside in ((node, host, local, "veth0", 0), (pod, local, host, "eth0", 1)):
        end.ip(
            f"link add vx0 type vxlan id 42 local {own} remote {other} dstport 4789 dev {device}",
            f"addr add {insides[inside]}/64 dev vx0 nodad"
            if inner == "IPv6"
            else f"addr add {insides[inside]}/24 dev vx0",
            "link set vx0 up",
        )
    talked = await asyncio.to_thread(frames.tcp, pod, node, insides[0], 5001, size=5 * MEGABYTE)
    await watch.settled()
    watch.assert_exact()
    rows = watch.rows[(watch.rows["protocol"] == frames.UDP)]
    segments = talked.client_segments + talked.server_segments
    assert rows["packets"].sum() < segments / 2, "offload was at work"
    # Besides the connection some frames ask who has which address in the tunnel.
    assert 0 <= rows["segments"].sum() - segments <= 12
    assert set(rows[rows["direction"] == 0]["peer_port"]) == {4789}
    assert peers(watch) >= {(local, host)}
    assert not {end for ends in peers(watch) for end in ends} & set(insides)
