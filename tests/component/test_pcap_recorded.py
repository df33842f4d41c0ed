"""Captures that real programs recorded from real links: equal to tshark's own sums of them."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from services.capture.sources.pcap import PcapSource
from services.flows import address
from services.flows.delta import Kind
from tests.support import generators as make
from tests.support.netns import Namespace, namespaces, run, veth
from tests.support.tap import IFF_TUN, VNET_BYTES, tap_device
from tests.support.wait import wait_until

POD, HOST, POD6, HOST6 = "10.9.0.2", "10.9.0.1", "fd09::2", "fd09::1"
LAST: Final = b"this is the last datagram"
"""Once a recorder has written it, all before it is written as well."""
# In immediate mode tcpdump's own buffer has few places: without a larger one it may drop packets.
_TCPDUMP: Final = ("tcpdump", "-Z", "root", "-U", "--immediate-mode", "-B", "65536", "-n", "-w")
_DUMPCAP: Final = ("dumpcap", "-q", "-w")
_LISTENING: Final = (b"listening on", b"File: ")


@dataclass(frozen=True, slots=True)
class Recorder:
    """A program that records in the pod's namespace; `options` follow the name of the file."""

    program: tuple[str, ...]
    options: str
    link_type: str
    """As capinfos names it."""


RECORDERS: Final = {
    "ethernet.pcap": Recorder(_TCPDUMP, "-i eth0", "ether"),
    "nano.pcap": Recorder(_TCPDUMP, "-i eth0 --nano", "ether"),
    "short.pcap": Recorder(_TCPDUMP, "-i eth0 -s 68", "ether"),
    "any.pcap": Recorder(_TCPDUMP, "-i any -y LINUX_SLL", "linux-sll"),
    "any2.pcap": Recorder(_TCPDUMP, "-i any -y LINUX_SLL2", "linux-sll2"),
    "raw.pcap": Recorder(_TCPDUMP, "-i tun0", "rawip"),
    "one.pcapng": Recorder(_DUMPCAP, "-i eth0", "ether"),
    "two.pcapng": Recorder(_DUMPCAP, "-i eth0 -i tun0", "per-packet"),
}
DERIVED: Final = {
    "converted.pcapng": "editcap -F pcapng {ethernet.pcap} {}",
    "shortened.pcapng": "editcap -s 68 {one.pcapng} {}",
    "back.pcap": "editcap -F nsecpcap {one.pcapng} {}",
    "joined.pcapng": "mergecap -a -w {} {any.pcap} {ethernet.pcap} {raw.pcap}",
    "merged.pcapng": "mergecap -w {} {nano.pcap} {short.pcap} {any2.pcap}",
}
FILES: Final = [*RECORDERS, *DERIVED, "ethernet.pcap.gz", "two.pcapng.gz", "concatenated.pcapng"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with captures of the same traffic, in each format."""
    folder = tmp_path_factory.mktemp("recorded")
    with namespaces("node", "pod") as (node, pod):
        veth(node, "veth0", pod, f"{POD}/24", f"{POD6}/64")
        node.ip(f"addr add {HOST}/24 dev veth0", f"addr add {HOST6}/64 dev veth0 nodad")
        with tap_device(pod, "tun0", mode=IFF_TUN) as device, contextlib.ExitStack() as stack:
            for name, recorder in RECORDERS.items():
                stack.enter_context(recording(pod, folder / name, recorder))
            talk(node, pod, device)
    for name, line in DERIVED.items():
        paths = {one: str(folder / one) for one in RECORDERS}
        run(*(str(folder / name) if part == "{}" else paths.get(part.strip("{}"), part) for part in line.split()))
    for name in ("ethernet.pcap", "two.pcapng"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    sections = (folder / name for name in ("one.pcapng", "two.pcapng"))
    (folder / "concatenated.pcapng").write_bytes(b"".join(one.read_bytes() for one in sections))
    return folder


@contextlib.contextmanager
def recording(pod: Namespace, path: Path, recorder: Recorder) -> Iterator[None]:
    """Inside, traffic is recorded; at the end the file has all of it."""
    said = path.with_suffix(".said")
    command = pod.command(*recorder.program, str(path), *recorder.options.split())
    with said.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: any(word in said.read_bytes() for word in _LISTENING), f"{path.name} is recorded")
            yield
            wait_until(lambda: LAST in path.read_bytes(), f"{path.name} has the last datagram")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=10)


def talk(node: Namespace, pod: Namespace, device: int) -> None:
    """All kinds of traffic, over the link and into the tunnel's file."""
    make.tcp(pod, node, HOST, 5001, size=300_000)
    make.tcp(node, pod, POD6, 5002, size=100_000)
    with make.udp_sink(node, HOST, 7000), make.udp_sink(node, HOST6, 7000):
        make.udp(pod, HOST, 7000, count=20, size=700)
        make.udp(pod, HOST6, 7000, count=10, size=3000)
    make.inject(pod, "eth0", strange_frames())
    inner = make.ipv4("172.16.0.1", "172.16.0.2", make.UDP, make.udp_datagram(1, 53, b"raw"))
    inner6 = make.ipv6("fd16::1", "fd16::2", make.UDP, make.udp_datagram(1, 53, b"raw"))
    last = make.ipv4("172.16.0.1", "172.16.0.2", make.UDP, make.udp_datagram(1, 9, LAST))
    for packet in (inner, inner6, inner, last):
        os.write(device, bytes(VNET_BYTES) + packet)
    # Short captures keep 26 of these bytes.
    make.inject(pod, "eth0", [make.ethernet(0x0800, make.ipv4(POD, HOST, make.UDP, make.udp_datagram(9, 9, LAST)))])


def strange_frames() -> list[bytes]:
    """What sockets do not send by themselves."""
    query = make.udp_datagram(40000, 53, b"a question")
    packet = make.ipv4(POD, HOST, make.UDP, query)
    vxlan = make.udp_datagram(50000, 4789, bytes.fromhex("0800000000002a00") + make.ethernet(0x0800, packet))
    chain = make.extension(make.DESTINATION) + make.extension(make.UDP, 1) + query
    return [
        make.ethernet(0x0806, make.arp_request(POD, HOST)),
        make.ethernet(0x88CC, bytes(46)),
        make.ethernet(38, b"\x42\x42\x03" + bytes(43)),
        make.ethernet(0x0800, packet, (0x8100, 5)),
        make.ethernet(0x86DD, make.ipv6(POD6, HOST6, make.HOP_BY_HOP, chain), (0x88A8, 5), (0x8100, 6)),
        make.ethernet(0x0800, make.ipv4("198.51.100.1", "198.51.100.2", make.UDP, vxlan)),
        make.ethernet(0x0800, make.ipv4("198.51.100.1", "198.51.100.2", 4, packet)),
        make.ethernet(0x0800, make.ipv4("198.51.100.1", "198.51.100.2", 47, struct.pack("!HH", 0, 0x0800) + packet)),
        make.ethernet(0x0800, make.ipv4(POD, HOST, make.SCTP, struct.pack("!HHII", 5000, 5001, 1, 0) + bytes(20))),
        make.ethernet(0x0800, make.ipv4(POD, HOST, make.ICMP, bytes.fromhex("0301000000000000") + packet)),
        make.ethernet(0x0800, make.ipv4(POD, HOST, make.UDP, query, options=b"\1" * 12)),
        *(make.ethernet(0x0800, one) for one in make.fragments(POD, HOST, make.udp_datagram(1, 2, bytes(4000)), 1480)),
        make.ethernet(
            0x86DD,
            make.ipv6(POD6, HOST6, make.FRAGMENT, make.fragment6(make.UDP, 1480, more=False) + bytes(100)),
        ),
    ]


# --- Two readers of the same file

Sums = Counter[tuple[str, str, str]]
"""Packets and bytes by sender, receiver and which of the two; what is not IP has neither end."""


async def ours(path: Path) -> Sums:
    sums: Sums = Counter()
    async for _, _, drained in PcapSource([path], speed=0, capacity=1000).windows(1_000_000):
        for row in drained.rows:
            assert row["kind"] in {Kind.IP, Kind.NOT_IP}
            pair = ("", "")
            if row["kind"] == Kind.IP:
                one, two = (
                    str(address.from_words(int(row[f"{end}_hi"]), int(row[f"{end}_lo"]))) for end in ("local", "peer")
                )
                pair = one, two
            sums[*pair, "packets"] += int(row["packets"])
            sums[*pair, "bytes"] += int(row["bytes"])
    return sums


def tsharks(path: Path) -> Sums:
    wanted = ("frame.len", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst")
    # The first occurrence of a field is that of the outermost header.
    options = ("-T", "fields", "-E", "separator=,", "-E", "occurrence=f", "-o", "ip.defragment:FALSE")
    lines = run("tshark", "-n", "-r", str(path), *options, *(f"-e{one}" for one in wanted)).splitlines()
    sums: Sums = Counter()
    for line in lines:
        length, source4, target4, source6, target6 = line.split(",")
        pair = (source4 or source6, target4 or target6)
        sums[*pair, "packets"] += 1
        sums[*pair, "bytes"] += int(length)
    return sums


@pytest.mark.parametrize("name", FILES)
async def test_sums_per_address_pair_are_tsharks(recorded: Path, name: str) -> None:
    found = await ours(recorded / name)
    assert found == tsharks(recorded / name)
    assert sum(found.values()) > 0


@pytest.mark.parametrize("name", FILES)
async def test_packets_and_bytes_are_those_of_capinfos(recorded: Path, name: str) -> None:
    found = await ours(recorded / name)
    told = run("capinfos", "-T", "-M", "-c", "-d", "-r", str(recorded / name)).strip().split("\t")
    packets, length = (sum(found[key] for key in found if key[2] == what) for what in ("packets", "bytes"))
    assert [packets, length] == [int(one) for one in told[1:]]


@pytest.mark.parametrize("name", RECORDERS)
def test_the_recorders_wrote_what_is_to_be_tested(recorded: Path, name: str) -> None:
    told = run("capinfos", "-T", "-r", "-E", str(recorded / name)).strip().split("\t")
    assert told[1] == RECORDERS[name].link_type


async def test_all_kinds_of_traffic_were_recorded(recorded: Path) -> None:
    found = await ours(recorded / "ethernet.pcap")
    # Besides these the stacks look for each other (neighbour discovery).
    assert {key[:2] for key in found} >= {
        ("", ""),
        (POD, HOST),
        (HOST, POD),
        (POD6, HOST6),
        (HOST6, POD6),
        ("198.51.100.1", "198.51.100.2"),
    }
    assert found["198.51.100.1", "198.51.100.2", "packets"] == 3
    assert found["", "", "packets"] >= 3
    raw = await ours(recorded / "raw.pcap")
    assert {key[:2]: raw[key] for key in raw if key[2] == "packets"} == {
        ("172.16.0.1", "172.16.0.2"): 3,
        ("fd16::1", "fd16::2"): 1,
    }


async def test_times_are_those_of_the_file(recorded: Path) -> None:
    told = run("capinfos", "-T", "-r", "-S", "-a", "-e", str(recorded / "nano.pcap")).strip().split("\t")
    first_us, last_us = (int(float(one) * 1e6) for one in told[1:3])
    seen = [
        (start, end)
        async for start, end, _ in PcapSource([recorded / "nano.pcap"], speed=0, capacity=1000).windows(1_000_000)
    ]
    assert abs(seen[0][0] - first_us) <= 1
    assert abs(seen[-1][1] - last_us) <= 1
