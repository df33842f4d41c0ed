"""What only counting in the kernel has: maps that fill, drains beside traffic, programs that go."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from services.capture.bpf import syscall
from services.capture.bpf.syscall import ProgramType
from services.capture.links import Link
from services.capture.raw_flow import Direction
from services.flows.delta import Kind
from tests.support import generators as frames
from tests.support.netns import Namespace
from tests.support.privileges import ROOT, run_as
from tests.support.wait import wait_until
from tests.support.watch import HOST, HOST6, POD, POD6, opened, watching

OPEN = """
import asyncio
from services.capture.sources.choice import opened
async def main():
    source = opened({name!r}, 100)
    print(source.name)
    await source.close()
asyncio.run(main())
"""


def datagrams(ports: range) -> list[bytes]:
    """One frame per source port."""
    return [
        frames.ethernet(0x0800, frames.ipv4(POD, HOST, frames.UDP, frames.udp_datagram(port, 53, bytes(50))))
        for port in ports
    ]


def network(at: int) -> str:
    """An address whose second and third byte count."""
    return f"10.{at >> 8}.{at & 255}.1"


def host(at: int) -> str:
    """An address of one network: its last bytes count."""
    return f"10.9.{at >> 8}.{at & 255}"


IN_KERNEL = pytest.mark.parametrize("kind", ["ebpf", "tcx"])
PATTERNS: dict[str, Callable[[int], tuple[str, str, int, int]]] = {
    "source ports": lambda at: (POD, HOST, 1000 + at, 53),
    "destination ports": lambda at: (POD, HOST, 53, 1000 + at),
    "hosts of a network": lambda at: (POD, host(at), 40000, 53),
    "networks": lambda at: (POD, network(at), 40000, 53),
    "senders": lambda at: (host(at), HOST, 40000, 53),
    "IPv6 networks": lambda at: (POD6, f"fd00:{at:x}::1", 40000, 53),
    "IPv6 hosts": lambda at: (POD6, f"fd00::{at:x}", 40000, 53),
    "IPv6 source ports": lambda at: (POD6, HOST6, 1000 + at, 53),
}


def of_flow(source: str, target: str, source_port: int, target_port: int) -> bytes:
    """An empty datagram."""
    datagram = frames.udp_datagram(source_port, target_port, b"")
    if ":" in target:
        return frames.ethernet(0x86DD, frames.ipv6(source, target, frames.UDP, datagram))
    return frames.ethernet(0x0800, frames.ipv4(source, target, frames.UDP, datagram))


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_flows_of_every_pattern_spread_over_the_table(pair: tuple[Namespace, Namespace], pattern: str) -> None:
    node, pod = pair
    many = [of_flow(*PATTERNS[pattern](at)) for at in range(3400)]
    # Each processor has room for 4,096: all of them are to pass through one.
    usable = os.sched_getaffinity(0)
    async with opened(4096, kind="ebpf") as source, watching(node, "veth0", source=source) as watch:
        os.sched_setaffinity(0, {min(usable)})
        try:
            frames.inject(pod, "eth0", many)
        finally:
            os.sched_setaffinity(0, usable)
        await watch.settled()
        watch.assert_exact()
        folded = watch.rows[watch.rows["kind"] == Kind.FOLDED]
        assert int(folded["packets"].sum()) <= 5


@IN_KERNEL
@pytest.mark.parametrize("from_pod", [True, False], ids=["from the pod", "to the pod"])
@pytest.mark.parametrize("family", ["source ports", "IPv6 source ports"])
async def test_what_finds_the_tables_full_is_folded_and_nothing_is_lost(
    quiet: tuple[Namespace, Namespace], kind: str, family: str, *, from_pod: bool
) -> None:
    node, pod = quiet
    where = (pod, "eth0") if from_pod else (node, "veth0")
    made = [of_flow(*PATTERNS[family](at)) for at in range(1000)]
    async with opened(64, kind=kind) as source, watching(node, "veth0", source=source) as watch:
        sent = frames.inject(*where, made[:500])
        await watch.settled()
        watch.assert_exact()
        folded = watch.rows[watch.rows["kind"] == Kind.FOLDED]
        apart = watch.rows[(watch.rows["kind"] == Kind.IP) & (watch.rows["protocol"] == frames.UDP)]
        assert len(apart) <= 64 * len(os.sched_getaffinity(0))
        assert int(folded["packets"].sum()) == sent.packets - int(apart["packets"].sum()) > 0
        assert int(folded["bytes"].sum()) == sent.link_bytes - int(apart["bytes"].sum())
        assert set(folded["direction"]) == {Direction.TX if from_pod else Direction.RX}
        # What was folded once is not told again, and further excess is.
        await watch.drain()
        watch.assert_exact()
        frames.inject(*where, made[500:])
        await watch.settled()
        watch.assert_exact()


@IN_KERNEL
async def test_an_attachment_that_ended_leaves_no_entry_behind(pair: tuple[Namespace, Namespace], kind: str) -> None:
    node, _ = pair
    async with opened(kind=kind) as source:
        index = node.index("veth0")
        with node.entered():
            for attachment in range(1, 40):
                await source.attach(Link(index, "veth0"), attachment)
                await source.detach(attachment)
                await source.drain()
        await source.drain()
        assert source._told == {}
        assert source._links.left() == set()


@IN_KERNEL
async def test_links_whose_places_are_taken_are_counted_all_the_same(
    pair: tuple[Namespace, Namespace], kind: str
) -> None:
    node, pod = pair
    # All have the same low bits; the first one's place is still being left when the third comes.
    indexes = [4096 * at + 77 for at in (1, 2, 3)]
    async with opened(kind=kind) as source:
        for at, index in enumerate(indexes):
            node.ip(f"link add x{at} index {index} type veth peer name y{at} netns {pod.name}", f"link set x{at} up")
            pod.ip(f"link set y{at} up")
        with node.entered():
            await source.attach(Link(indexes[0], "x0"), 1)
            await source.attach(Link(indexes[1], "x1"), 2)
            await source.detach(1)
            await source.attach(Link(indexes[2], "x2"), 3)
            for at in range(3):
                frames.inject(pod, f"y{at}", datagrams(range(1000, 1003 + at)))
            await source.detach(2)
            assert await udp_rows(source) == {2: 4, 3: 5}
            await source.attach(Link(indexes[0], "x0"), 4)
        frames.inject(pod, "y0", datagrams(range(1000, 1010)))
        assert await udp_rows(source) == {4: 10}


async def udp_rows(source: Any) -> Counter[int]:
    """How many flows of UDP were counted, by attachment."""
    rows = (await source.drain()).rows
    return Counter(int(row["attachment"]) for row in rows[rows["protocol"] == frames.UDP])


@IN_KERNEL
async def test_a_hundred_links_at_once(pair: tuple[Namespace, Namespace], kind: str) -> None:
    node, pod = pair
    node.ip(*(f"link add v{at} type veth peer name p{at} netns {pod.name}" for at in range(100)))
    async with opened(kind=kind) as source:
        with node.entered():
            for at in range(100):
                await source.attach(Link(node_index(f"v{at}"), f"v{at}"), at + 1)
        node.ip(*(f"link set v{at} up" for at in range(100)))
        pod.ip(*(f"link set p{at} up" for at in range(100)))
        for at in range(0, 100, 10):
            frames.inject(pod, f"p{at}", datagrams(range(1000, 1003)))
        drained = await source.drain()
        udp = drained.rows[drained.rows["protocol"] == frames.UDP]
        assert sorted(np.unique(udp["attachment"])) == [at + 1 for at in range(0, 100, 10)]


def node_index(name: str) -> int:
    """The index of an interface in the namespace that this thread is in."""
    return socket.if_nametoindex(name)


COUNT = """
import asyncio, os, socket
from services.capture.links import Link
from services.capture.sources.choice import opened
async def main():
    source = opened({name!r}, 1000)
    await source.attach(Link(socket.if_nametoindex("lo"), "lo"), 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind(("127.0.0.1", 0))
        for _ in range(3):
            out.sendto(b"x", out.getsockname())
        rows = (await source.drain()).rows
        ours = rows[(rows["local_port"] == out.getsockname()[1]) & (rows["peer_port"] == out.getsockname()[1])]
    await source.close()
    print(source.name, os.getuid(), *sorted(zip(ours["direction"].tolist(), ours["packets"].tolist())))
asyncio.run(main())
"""


# On a host some unprivileged user with ambient capabilities, in a pod root without any others.
@pytest.mark.parametrize("uid", [65534, 0])
@pytest.mark.parametrize(
    ("kind", "capabilities"),
    [
        ("ebpf", ("net_raw", "bpf", "perfmon")),
        # Without perfmon every kernel is as strict as those before 6.3 are with everybody.
        ("ebpf", ("net_raw", "bpf")),
        ("tcx", ("net_admin", "bpf", "perfmon")),
        ("ring", ("net_raw",)),
        ("socket", ("net_raw",)),
    ],
)
def test_just_the_granted_capabilities_are_enough(kind: str, capabilities: tuple[str, ...], uid: int) -> None:
    done = run_as(COUNT.format(name=kind), *capabilities, uid=uid)
    # The loopback link sends and receives each of the three.
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, [f"{kind} {uid} (0, 3) (1, 3)"]), done.stderr


@pytest.mark.parametrize(
    ("kind", "capabilities"),
    [
        ("ebpf", ("net_raw", "perfmon")),
        ("ebpf", ("bpf", "perfmon")),
        ("tcx", ("net_admin", "perfmon")),
        ("tcx", ("bpf", "perfmon")),
        ("ring", ("net_admin", "bpf", "perfmon")),
        ("socket", ("net_admin", "bpf", "perfmon")),
    ],
)
def test_without_one_of_them_it_is_refused_with_its_name(kind: str, capabilities: tuple[str, ...]) -> None:
    done = run_as(COUNT.format(name=kind), *capabilities)
    assert done.returncode == 1
    missing = {"net_raw", "bpf"} if kind == "ebpf" else {"net_admin", "bpf"} if kind == "tcx" else {"net_raw"}
    [named] = [f"CAP_{one.upper()}" for one in missing - set(capabilities)]
    assert "PrivilegeError" in done.stderr.splitlines()[-1]
    assert named in done.stderr.splitlines()[-1]


def test_without_the_right_to_load_it_falls_back_and_says_why() -> None:
    done = run_as(OPEN.format(name="auto"), "net_raw")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ring"), done.stderr
    assert "source-passed-over" in done.stdout + done.stderr
    assert "CAP_BPF" in done.stdout + done.stderr


def test_without_memory_for_a_ring_it_falls_back_further() -> None:
    little = """
import resource
from services.capture.sources import choice
pages = int(open("/proc/self/statm").read().split()[0])
most = (pages << 12) + (24 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
"""
    done = run_as(little + OPEN.format(name="auto"), "net_raw")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "socket"), done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "source-passed-over" in line]
    assert [re.search(r"source=(\w+)", line)[1] for line in said] == ["ebpf", "ring"]  # type: ignore[index]
    assert "CAP_BPF" in said[0]
    assert "Cannot allocate memory" in said[1]


def test_who_insists_on_it_is_told_what_is_missing() -> None:
    done = run_as(OPEN.format(name="ebpf"), "net_raw")
    assert done.returncode == 1
    assert "PrivilegeError: cannot capture with the source ebpf" in done.stderr
    assert "it needs CAP_BPF and CAP_NET_RAW" in done.stderr


def test_auto_counts_in_the_kernel_wherever_the_kernel_lets_us() -> None:
    """The probe is a bpf() call of its own, so that a broken loader cannot excuse itself."""
    if not may_create_a_map():
        pytest.skip("the kernel refuses bpf() to this process")
    done = subprocess.run(
        [sys.executable, "-c", OPEN.format(name="auto")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.splitlines()[-1] == "ebpf", done.stdout + done.stderr


def may_create_a_map() -> bool:
    """Whether bpf(BPF_MAP_CREATE) of an array with one entry succeeds."""
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    attributes = (ctypes.c_uint32 * 18)(2, 4, 4, 1)
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, ctypes.sizeof(attributes))
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


@IN_KERNEL
async def test_a_program_that_ends_the_chain_hides_nothing_from_us(
    pair: tuple[Namespace, Namespace], kind: str
) -> None:
    node, pod = pair
    # r0 = TC_ACT_SHOT; exit
    drops = syscall.load(ProgramType.SCHED_CLS, bytes.fromhex("b7000000020000009500000000000000"), "drops")
    with node.entered():
        links = [syscall.attach_tcx(drops, node.index("veth0"), side) for side in (46, 47)]
    try:
        async with opened(kind=kind) as source, watching(node, "veth0", source=source) as watch:
            frames.inject(pod, "eth0", datagrams(range(1000, 1100)))
            await watch.settled()
            watch.assert_exact()
    finally:
        for fd in (*links, drops):
            os.close(fd)


@IN_KERNEL
def test_killed_it_leaves_no_program_behind(pair: tuple[Namespace, Namespace], kind: str) -> None:
    node, _ = pair
    code = f"""
import asyncio
from services.capture.links import Link
from services.capture.sources.choice import SOURCES
async def main():
    source = SOURCES[{kind!r}](100)
    await source.attach(Link({node.index("veth0")}, "veth0"), 1)
    print("attached", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    before, hooks = loaded(), attached(node)
    argv = node.command(sys.executable, "-c", code)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        ours = loaded() - before
        assert len(ours) >= 10
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not ours & loaded(), "its programs, maps and links are gone")
    assert attached(node) == hooks


def attached(node: Namespace) -> tuple[str, str, str]:
    """Queueing disciplines, filters and packet sockets of a namespace."""
    filters = "".join(node.run("tc", "filter", "show", "dev", "veth0", side) for side in ("ingress", "egress"))
    return node.run("tc", "qdisc", "show"), filters, node.run("cat", "/proc/self/net/packet")


def loaded() -> set[tuple[int, int]]:
    """The ids of all programs, maps and links in the kernel, each with the command that lists its kind."""
    found = set()
    for command in (11, 12, 31):
        number = 0
        while True:
            try:
                _, left = syscall.call(command, struct.pack("=III", number, 0, 0))
            except FileNotFoundError:
                break
            number = struct.unpack_from("=I", left, 4)[0]
            found.add((command, number))
    return found
