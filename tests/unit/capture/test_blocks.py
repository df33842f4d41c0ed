"""Whole blocks of a ring are read as frame by frame."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture import captured
from services.capture.blocks import Observed, read, records
from services.capture.flow_table import FlowTable, bounded, summed
from services.capture.frames import LinkType
from services.capture.links import Link
from services.capture.raw_flow import RawRows
from services.flows.delta import Kind
from tests.support import generators as frames

NETWORK, ETHERNET, VNET = 112, 14, 10
SNAP = 256
LINKS = {
    7: (Link(7, "veth0"), LinkType.ETHERNET, 1),
    9: (Link(9, "eth0", pod_side=True), LinkType.ETHERNET, 2),
    12: (Link(12, "tun0"), LinkType.RAW_IP, 3),
}


@dataclass(frozen=True)
class Record:
    """A frame as the kernel puts it into a ring."""

    index: int
    data: bytes
    outgoing: bool
    tagged: bool
    vnet: bytes

    def packed(self) -> bytes:
        kept = self.data[:SNAP]
        ethernet = ETHERNET if self.index != 12 else 0
        mac = NETWORK - ethernet
        head = struct.pack(
            "<6I2H2IHH8x", 0, 0, 0, len(kept), len(self.data), 0x10 * self.tagged, mac, NETWORK, 0, 0, 0, 0
        )
        head += struct.pack("<HHiHBB8x", 17, 0, self.index, 1, 4 if self.outgoing else 0, 6)
        body = head.ljust(mac - VNET, b"\0") + self.vnet + kept
        body = body.ljust(-(-len(body) // 16) * 16, b"\0")
        return struct.pack("<I", len(body)) + body[4:]


def observed() -> Observed:
    links = Observed()
    for link, kind, attachment in LINKS.values():
        links.add(link, kind, attachment)
    return links


def by_block(written: list[Record]) -> RawRows:
    parts = [record.packed() for record in written]
    ring = memoryview(bytearray(b"".join(parts).ljust(1 << 18, b"\0")))
    table = FlowTable(1000)
    found = read(ring, records(ring, 0, len(parts)), observed(), table)
    return summed(np.concatenate([*found, table.take()]))


def by_frame(written: list[Record]) -> RawRows:
    table = FlowTable(1000)
    for record in written:
        entry = LINKS.get(record.index)
        if entry is None:
            continue
        link, kind, attachment = entry
        data = memoryview(record.vnet + record.data[:SNAP])
        captured.add(
            table,
            attachment,
            link,
            kind,
            data,
            start=VNET,
            length=len(record.data),
            tagged=record.tagged,
            outgoing=record.outgoing,
        )
    return summed(table.take())


def as_set(rows: RawRows) -> set[tuple[int, ...]]:
    return {tuple(int(value) for value in row) for row in rows}


ADDRESSES4 = st.sampled_from(["10.0.0.1", "10.0.0.2", "255.255.255.255"])
ADDRESSES6 = st.sampled_from(["fd00::1", "fd00::2", "ffff::ffff:ffff:ffff:ffff"])
PORTS = st.sampled_from([0, 53, 443, 32768, 65535])
FLAGS = st.sampled_from([0x02, 0x12, 0x10, 0x18])
TRANSPORT = st.one_of(
    st.tuples(st.just(17), st.builds(frames.udp_datagram, PORTS, PORTS, st.binary(max_size=9))),
    st.tuples(st.just(6), st.builds(frames.tcp_segment, PORTS, PORTS, st.binary(max_size=9), flags=FLAGS)),
    st.tuples(st.sampled_from([1, 6, 17, 47, 58, 132, 44, 0, 255]), st.binary(max_size=40)),
)
PACKETS = st.one_of(
    st.builds(
        lambda source, target, inner: (0x0800, frames.ipv4(source, target, *inner)), ADDRESSES4, ADDRESSES4, TRANSPORT
    ),
    st.builds(
        lambda source, target, inner: (0x86DD, frames.ipv6(source, target, *inner)), ADDRESSES6, ADDRESSES6, TRANSPORT
    ),
    st.tuples(st.sampled_from([0x0806, 0x8100, 0x0800, 0x86DD, 60]), st.binary(max_size=80)),
)
INTERESTING = st.sampled_from([14, 20, 21, 23, 46, 47])
"""Bytes that decide: version and length, fragment, protocol, TCP flags behind IPv4."""


@st.composite
def written_records(draw: st.DrawFn) -> Record:
    ethertype, packet = draw(PACKETS)
    tags = draw(st.sampled_from([(), (), ((0x8100, 5),)]))
    index = draw(st.sampled_from([7, 7, 7, 9, 12, 99]))
    whole = packet if index == 12 else frames.ethernet(ethertype, packet, *tags)
    data = bytearray(whole or b"\0")
    # As it was sent, or cut, padded, or with a byte that is another one.
    match draw(st.integers(0, 5)):
        case 0:
            del data[draw(st.integers(1, max(len(data) - 1, 1))) :]
        case 1:
            data += bytes(6)
        case 2:
            at = draw(st.one_of(INTERESTING, st.integers(0, len(data) - 1)))
            data[min(at, len(data) - 1)] ^= draw(st.sampled_from([0x01, 0x02, 0x10, 0x20, 0x80, 0xFF]))
    segmented = draw(st.sampled_from([bytes(VNET), bytes(VNET), struct.pack("<BBHHHH", 1, 1, 54, 10, 34, 16)]))
    return Record(index, bytes(data), draw(st.booleans()), draw(st.sampled_from([False, False, True])), segmented)


@settings(max_examples=500)
@given(st.lists(written_records(), min_size=1, max_size=60))
def test_a_block_gives_what_its_frames_give(written: list[Record]) -> None:
    assert as_set(by_block(written)) == as_set(by_frame(written))


def test_records_of_one_length_are_found_without_a_walk() -> None:
    datagram = frames.ethernet(0x0800, frames.ipv4("10.0.0.1", "10.0.0.2", 17, frames.udp_datagram(1, 2, bytes(9))))
    written = [Record(7, datagram, outgoing=False, tagged=False, vnet=bytes(VNET)) for _ in range(50)]
    (row,) = by_block(written)
    assert (row["packets"], row["bytes"], row["local_port"], row["peer_port"]) == (50, 50 * len(datagram), 1, 2)


def test_more_flows_than_wanted_are_folded_by_attachment_and_direction() -> None:
    written = [
        Record(
            index,
            frames.ethernet(0x0800, frames.ipv4("10.0.0.1", "10.0.0.2", 17, frames.udp_datagram(port, 2, b""))),
            outgoing=False,
            tagged=False,
            vnet=bytes(VNET),
        )
        for port in range(1, 101)
        for index in (7, 9)
    ]
    rows = by_block(written)
    kept = bounded(rows, 150)
    assert len(kept[kept["kind"] == Kind.IP]) == 150
    assert set(kept[kept["kind"] == Kind.FOLDED]["attachment"]) <= {1, 2}
    for name in ("bytes", "packets", "segments", "wire_bytes"):
        for attachment in (1, 2):
            assert (
                kept[name][kept["attachment"] == attachment].sum() == rows[name][rows["attachment"] == attachment].sum()
            )
