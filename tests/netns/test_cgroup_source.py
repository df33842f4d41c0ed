"""What sockets of a control group get and send is what the interface of their pod counts."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.capture.bpf import syscall
from services.capture.flow_table import summed
from services.capture.links import Link
from services.capture.raw_flow import Direction, RawRows, no_raw_rows
from services.capture.sources.cgroup import UNKNOWN, CgroupSource, hierarchy
from services.flows.delta import Kind
from tests.support import generators as frames
from tests.support.group_talk import ended, group, start
from tests.support.netns import Namespace
from tests.support.privileges import ROOT, run_as
from tests.support.wait import wait_until
from tests.support.watch import HOST, HOST6, POD, POD6, Watch, watching

MEGABYTE = 1 << 20
_PROG_QUERY = 16


def number(path: Path) -> int:
    """The number under which the source counts a group."""
    return path.stat().st_ino & 0xFFFFFFFF


@contextlib.asynccontextmanager
async def opened(capacity: int = 10_000) -> AsyncIterator[CgroupSource]:
    source = CgroupSource(capacity)
    try:
        yield source
    finally:
        await source.close()


class Seen:
    """All rows of one group, beside what is seen of the pod's interface."""

    def __init__(self, source: CgroupSource, of: int) -> None:
        self._source = source
        self._of = of
        self.rows: RawRows = no_raw_rows()

    async def drain(self) -> None:
        drained = await self._source.drain()
        self.rows = summed(np.concatenate([self.rows, drained.rows[drained.rows["attachment"] == self._of]]))
        assert not drained.loss

    async def assert_as(self, watch: Watch) -> None:
        """Each flow of TCP and UDP is as on the interface, of which all is seen; nothing else is the group's."""
        await watch.settled()
        watch.assert_exact()
        await self.drain()
        of_sockets = watch.rows[np.isin(watch.rows["protocol"], (frames.TCP, frames.UDP))]
        assert flows(self.rows) == flows(of_sockets)


def flows(rows: RawRows) -> list[Any]:
    """The rows without their attachments, in order."""
    rows = rows.copy()
    rows["attachment"] = 0
    return sorted(rows.tolist())


FAMILIES = pytest.mark.parametrize(
    ("family", "pod_address", "host_address"),
    [("AF_INET", POD, HOST), ("AF_INET6", POD6, HOST6)],
    ids=["IPv4", "IPv6"],
)


@FAMILIES
@pytest.mark.parametrize("from_pod", [True, False], ids=["from the pod", "to the pod"])
async def test_tcp_with_offload_is_what_the_pods_interface_has(
    pair: tuple[Namespace, Namespace], family: str, pod_address: str, host_address: str, *, from_pod: bool
) -> None:
    node, pod = pair
    with group("pod") as mine, group("other") as other:
        async with opened() as source, watching(node, "veth0", kind="ebpf") as watch:
            seen = Seen(source, number(mine))
            listener, address = ((other, node), host_address) if from_pod else ((mine, pod), pod_address)
            talker = (mine, pod) if from_pod else (other, node)
            serving = start(*listener, "tcp", family, "listen", address, "5001", "0")
            assert serving.stdout is not None
            assert await asyncio.to_thread(serving.stdout.readline) == "ready\n"
            talking = start(*talker, "tcp", family, "talk", address, "5001", str(20 * MEGABYTE))
            await asyncio.to_thread(ended, talking)
            await asyncio.to_thread(ended, serving)
            await seen.assert_as(watch)
    data = seen.rows[seen.rows["direction"] == (Direction.TX if from_pod else Direction.RX)]
    assert data["packets"].sum() < 20 * MEGABYTE / 1400 / 4, "offload was at work"
    assert data["segments"].sum() >= 20 * MEGABYTE // 1500
    assert data["syns"].sum() == 1


@FAMILIES
async def test_udp_both_ways_is_what_the_pods_interface_has(
    pair: tuple[Namespace, Namespace], family: str, pod_address: str, host_address: str
) -> None:
    node, pod = pair
    with group("pod") as mine, group("other") as other:
        async with opened() as source, watching(node, "veth0", kind="ebpf") as watch:
            seen = Seen(source, number(mine))
            with frames.udp_sink(node, host_address, 7000):
                await asyncio.to_thread(ended, start(mine, pod, "udp", family, "talk", host_address, "7000", "300"))
            receiving = start(mine, pod, "udp", family, "listen", pod_address, "7001", "90")
            assert receiving.stdout is not None
            assert await asyncio.to_thread(receiving.stdout.readline) == "ready\n"
            await asyncio.to_thread(ended, start(other, node, "udp", family, "talk", pod_address, "7001", "90"))
            await asyncio.to_thread(ended, receiving)
            await seen.assert_as(watch)
    assert sorted(seen.rows["packets"].tolist()) == [90, 300]


async def test_what_no_socket_takes_is_not_seen_and_is_the_rest_of_the_interface(
    pair: tuple[Namespace, Namespace],
) -> None:
    node, pod = pair
    with group("pod") as mine:
        async with opened() as source, watching(node, "veth0", kind="ebpf") as watch:
            seen = Seen(source, number(mine))
            # To a port that nobody has: an ICMP error of the kernel's; to one of TCP: a reset.
            await asyncio.to_thread(ended, start(mine, pod, "udp", "AF_INET", "talk", HOST, "7009", "1"))
            refused = start(mine, pod, "tcp", "AF_INET", "talk", HOST, "5009", "1")
            with refused:
                assert await asyncio.to_thread(refused.wait, 30) != 0
            frames.inject(node, "veth0", [frames.ethernet(0x0806, frames.arp_request(HOST, POD))])
            await watch.settled()
            await seen.drain()
    watch.assert_exact()
    rest = watch.rows[~np.isin(watch.rows["protocol"], (frames.TCP, frames.UDP))]
    assert {Kind.NOT_IP, Kind.IP} <= set(rest["kind"].tolist())
    assert set(seen.rows["protocol"].tolist()) == {frames.TCP, frames.UDP}
    whole, part = (int(rows["bytes"].sum()) for rows in (watch.rows, seen.rows))
    assert whole == part + int(rest["bytes"].sum())


async def test_loopback_is_left_out(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    pod.ip("link set lo up")
    with group("pod") as mine:
        async with opened() as source:
            seen = Seen(source, number(mine))
            with frames.udp_sink(pod, "127.0.0.1", 7000):
                await asyncio.to_thread(ended, start(mine, pod, "udp", "AF_INET", "talk", "127.0.0.1", "7000", "9"))
            with frames.udp_sink(node, HOST, 7000):
                await asyncio.to_thread(ended, start(mine, pod, "udp", "AF_INET", "talk", HOST, "7000", "5"))
            await seen.drain()
    assert seen.rows["packets"].tolist() == [5]


@pytest.mark.parametrize("attached", [True, False])
async def test_what_finds_no_row_is_its_groups_or_nobodys(pair: tuple[Namespace, Namespace], *, attached: bool) -> None:
    _, pod = pair
    with group("pod") as mine:
        number_of_mine = number(mine)
        # One row per processor: a talk of two flows on one processor cannot keep both apart.
        async with opened(1) as source:
            if attached:
                await source.attach(Link(number(mine), "pod"), number(mine))
            for port in range(7000, 7016):
                await asyncio.to_thread(ended, start(mine, pod, "udp", "AF_INET", "talk", HOST, str(port), "1"))
            rows = (await source.drain()).rows
    folded = rows[rows["kind"] == Kind.FOLDED]
    mine_folded = folded[folded["attachment"] == (number_of_mine if attached else UNKNOWN)]
    apart = rows[(rows["attachment"] == number_of_mine) & (rows["kind"] == Kind.IP)]
    assert int(mine_folded["packets"].sum()) >= 16 - len(apart) > 0


CLOSED = """
from services.capture.sources.cgroup import CgroupSource
CgroupSource(100)
print("counting")
"""


def test_the_rights_that_it_takes_are_enough_and_needed() -> None:
    done = run_as(CLOSED, "net_admin", "bpf", "perfmon")
    assert done.stdout == "counting\n", done.stderr
    assert run_as(CLOSED, "net_admin").returncode
    assert run_as(CLOSED, "bpf", "perfmon").returncode


def test_nothing_stays_at_the_root_when_the_process_is_gone() -> None:
    before = attached()
    with subprocess.Popen(
        [sys.executable, "-c", CLOSED + "import time\ntime.sleep(60)"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "counting\n"
            ours = attached() - before
            assert len(ours) >= 2
        finally:
            process.kill()
    wait_until(lambda: not ours & attached(), "the programs are gone")


def attached() -> set[int]:
    """The programs at the root of the control groups."""
    found: set[int] = set()
    directory = os.open(hierarchy(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for side in (0, 1):
            ids = (ctypes.c_uint32 * 64)()
            query = struct.pack("=IIIIQIIQ", directory, side, 0, 0, ctypes.addressof(ids), 64, 0, 0)
            _, answer = syscall.call(_PROG_QUERY, query + bytes(16))
            found |= set(ids[: struct.unpack_from("=I", answer, 24)[0]])
    finally:
        os.close(directory)
    return found
