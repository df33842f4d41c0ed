"""What only counting in the kernel has: maps that fill, drains beside traffic, programs that go."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

from services.capture.bpf import syscall
from services.capture.links import Link
from services.capture.raw_flow import Direction
from services.flows.delta import Kind
from tests.support import generators as frames
from tests.support.netns import Namespace
from tests.support.privileges import ROOT, run_as
from tests.support.wait import wait_until
from tests.support.watch import HOST, POD, opened, watching

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


async def test_what_finds_the_map_full_is_folded_and_nothing_is_lost(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    async with opened(64, kind="ebpf") as source, watching(node, "veth0", source=source) as watch:
        sent = frames.inject(pod, "eth0", datagrams(range(1000, 1500)))
        await watch.settled()
        watch.assert_exact()
        folded = watch.rows[watch.rows["kind"] == Kind.FOLDED]
        apart = watch.rows[(watch.rows["kind"] == Kind.IP) & (watch.rows["protocol"] == frames.UDP)]
        assert len(apart) <= 64
        assert int(folded["packets"].sum()) == sent.packets - int(apart["packets"].sum())
        assert set(folded["direction"]) == {Direction.TX}
        # What was folded once is not told again, and further excess is.
        before = int(watch.rows["packets"].sum())
        await watch.drain()
        assert int(watch.rows["packets"].sum()) == before
        frames.inject(pod, "eth0", datagrams(range(2000, 2500)))
        await watch.settled()
        watch.assert_exact()


async def test_draining_beside_traffic_loses_nothing(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    async with opened(kind="ebpf") as source, watching(node, "veth0", source=source) as watch:
        sender = threading.Thread(
            target=lambda: [frames.inject(pod, "eth0", datagrams(range(1000, 1400))) for _ in range(40)]
        )
        sender.start()
        drains = 0
        while sender.is_alive():
            await watch.drain()
            drains += 1
        await watch.settled()
        watch.assert_exact()
        assert drains > 5


async def test_an_attachment_that_ended_leaves_no_entry_behind(pair: tuple[Namespace, Namespace]) -> None:
    node, _ = pair
    async with opened(kind="ebpf") as source:
        index = node.index("veth0")
        with node.entered():
            for attachment in range(1, 40):
                await source.attach(Link(index, "veth0"), attachment)
                await source.detach(attachment)
                await source.drain()
        await source.drain()
        assert source._told == {}


async def test_a_hundred_links_at_once(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    node.ip(*(f"link add v{at} type veth peer name p{at} netns {pod.name}" for at in range(100)))
    async with opened(kind="ebpf") as source:
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


def test_just_the_granted_capabilities_are_enough() -> None:
    done = run_as(OPEN.format(name="ebpf"), "net_raw", "bpf", "perfmon")
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["ebpf"]), done.stderr


def test_without_the_right_to_load_it_falls_back_and_says_why() -> None:
    done = run_as(OPEN.format(name="auto"), "net_raw")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "socket"), done.stderr
    assert "source-passed-over" in done.stdout + done.stderr
    assert "CAP_BPF" in done.stdout + done.stderr


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


def test_killed_it_leaves_no_program_behind(pair: tuple[Namespace, Namespace]) -> None:
    node, _ = pair
    code = f"""
import asyncio
from services.capture.links import Link
from services.capture.sources.ebpf import EbpfSource
async def main():
    source = EbpfSource(100)
    await source.attach(Link({node.index("veth0")}, "veth0"), 1)
    print("attached", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    before = loaded()
    argv = node.command(sys.executable, "-c", code)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        ours = loaded() - before
        assert len(ours) >= 10
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not ours & loaded(), "its programs and maps are gone")


def loaded() -> set[tuple[int, int]]:
    """The ids of all programs and maps in the kernel, each with the command that lists its kind."""
    found = set()
    for command in (11, 12):
        number = 0
        while True:
            try:
                _, left = syscall.call(command, struct.pack("=III", number, 0, 0))
            except FileNotFoundError:
                break
            number = struct.unpack_from("=I", left, 4)[0]
            found.add((command, number))
    return found
