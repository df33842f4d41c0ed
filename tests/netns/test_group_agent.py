"""Windows by control group: containers and units that come, talk and go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from services.capture.control_groups import Owner
from services.capture.fold import Folder
from services.capture.group_agent import GroupAgent
from services.capture.group_tree import GroupTree
from services.capture.sources.cgroup import CgroupSource, hierarchy
from services.flows.delta import Window
from services.runtime.clock import SystemClock
from tests.support import generators as frames
from tests.support.netns import Namespace
from tests.support.wait import until, wait_until
from tests.support.watch import HOST, POD

UID = "3f0e2a34-6f0b-4f6e-9d3c-0a1b2c3d4e5f"
SAY = """
import os, socket, sys
def say(path, port, count):
    open(path + "/cgroup.procs", "w").write("0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for _ in range(int(count)):
            one.sendto(bytes(700), (sys.argv[1], int(port)))
for line in sys.stdin:
    path, count = line.split()
    short = len(os.path.basename(path)) == 64 and not path.endswith("ab")
    if not os.path.exists(path):
        os.mkdir(path)
    child = os.fork()
    if not child:
        say(path, 7000, count)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    if short:
        os.rmdir(path)
print("said", flush=True)
"""
FRAME = 700 + 8 + 20 + 14


@pytest.fixture
def root() -> Iterator[Path]:
    """A group to make others in."""
    path = hierarchy() / f"plx-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        wait_until(lambda: _removed(path), f"{path} is removed")


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        for folder, _, _ in os.walk(path, topdown=False):
            Path(folder).rmdir()
    return not path.exists()


class Windows:
    """What an agent emitted."""

    def __init__(self) -> None:
        self.all: list[Window] = []

    def sent(self) -> Counter[str]:
        """Packets of UDP that were sent, by the points' names."""
        found: Counter[str] = Counter()
        for window in self.all:
            names = {one.id: one.interface for one in window.attachments}
            for row in window.flows[(window.flows["protocol"] == frames.UDP) & (window.flows["port"] == 7000)]:
                found[names[int(row["attachment"])]] += int(row["tx_packets"])
                assert int(row["tx_bytes"]) == int(row["tx_packets"]) * FRAME
        # Of who receives nothing was sent.
        return +found


@contextlib.asynccontextmanager
async def agent(windows: Windows, kept_s: float = 60.0) -> AsyncIterator[GroupAgent]:
    source = CgroupSource(10_000)
    try:
        async with GroupTree(hierarchy(), kept_s=kept_s) as tree:
            yield GroupAgent(source, tree, Folder(10_000), SystemClock(), windows.all.append)
    finally:
        await source.close()


def said(pod: Namespace, lines: list[tuple[Path, int]]) -> None:
    """Groups that say so many datagrams each; those that are not there are made, and removed at once."""
    with pod.entered():
        talking = subprocess.Popen(
            [sys.executable, "-c", SAY, HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    text = "".join(f"{path} {count}\n" for path, count in lines)
    assert talking.communicate(text, timeout=60)[0] == "said\n"


async def test_a_container_and_a_unit_have_points_of_their_own_from_their_first_packet(
    pair: tuple[Namespace, Namespace], root: Path
) -> None:
    node, pod = pair
    windows = Windows()
    container = root / f"kubepods/pod{UID}" / ("ab" * 32)
    unit = root / "system.slice" / "plxsay.service"
    with frames.udp_sink(node, HOST, 7000):
        async with agent(windows) as one:
            # Made after the agent began, and talking before it could look.
            container.mkdir(parents=True)
            (unit / "inner").mkdir(parents=True)
            await asyncio.to_thread(said, pod, [(container, 3), (unit, 5), (unit / "inner", 7)])
            await one.cut()
    assert windows.sent() == {"abababababab": 3, "plxsay.service": 12}
    points = {owner: entry for owner, entry in one.attachments.items() if owner.pod_uid == UID}
    assert list(points) == [Owner("abababababab", "ab" * 32, UID)]
    assert [str(at) for entry in points.values() for at in entry.addresses] == ["10.9.0.2"]
    assert [entry.pod_uid for entry in points.values()] == [UID]
    # A unit has no addresses of its own.
    assert [entry.addresses for owner, entry in one.attachments.items() if owner.name == "plxsay.service"] == [()]


async def test_the_nodes_own_addresses_are_no_containers(pair: tuple[Namespace, Namespace], root: Path) -> None:
    node, pod = pair
    windows = Windows()
    container = root / ("ab" * 32)
    container.mkdir()
    with frames.udp_sink(node, HOST, 7000):
        async with agent(windows) as one:
            await asyncio.to_thread(said, pod, [(container, 3)])
            await one.cut(frozenset({ip_address(POD)}))
    mine = [entry for owner, entry in one.attachments.items() if owner.container_id == "ab" * 32]
    assert [entry.addresses for entry in mine] == [()]


def known(one: GroupAgent, groups: list[tuple[Path, int]]) -> int:
    """How many of these groups the agent knows by now."""
    names = {owner.name for owner in one.tree.owners()}
    return sum(path.name[:12] in names for path, _ in groups)


@pytest.mark.parametrize("there_first", [True, False], ids=["made in a burst", "there for milliseconds"])
async def test_three_hundred_that_come_and_go_are_told_apart_and_nothing_is_lost(
    pair: tuple[Namespace, Namespace], root: Path, *, there_first: bool
) -> None:
    node, pod = pair
    windows = Windows()
    burst = [(root / f"{at:012x}{0:052x}", 1 + at % 7) for at in range(300)]
    with frames.udp_sink(node, HOST, 7000):
        async with agent(windows) as one:
            for path, _ in burst if there_first else ():
                path.mkdir()
            # However late they are read: all of them are there.
            await until(lambda: known(one, burst) == (len(burst) if there_first else 0), "each group is known")
            async with asyncio.TaskGroup() as tasks:
                talking = tasks.create_task(asyncio.to_thread(said, pod, burst))
                while not talking.done():
                    await one.cut()
                    await asyncio.sleep(0.05)
            await one.cut()
    sent = windows.sent()
    unseen = [path for path, _ in burst if path.name[:12] not in sent]
    # One that was gone before anybody could look is nobody's, and never another one's.
    assert sent["unknown-group"] == sum(count for path, count in burst if path in unseen)
    assert {path.name[:12]: count for path, count in burst if path not in unseen}.items() <= sent.items()
    assert not (there_first and unseen)
    print(f"{len(unseen)} of 300 groups were gone before anybody looked")


async def test_a_group_that_was_removed_is_known_for_a_while_and_then_its_point_ends(
    pair: tuple[Namespace, Namespace], root: Path
) -> None:
    node, pod = pair
    windows = Windows()
    container = root / ("ab" * 32)
    container.mkdir()
    with frames.udp_sink(node, HOST, 7000):
        async with agent(windows, kept_s=0.2) as one:
            await asyncio.to_thread(said, pod, [(container, 3)])
            container.rmdir()
            await one.cut()
            assert windows.sent() == {"abababababab": 3}

            async def ended() -> bool:
                await one.cut()
                return any(entry.detached_us for entry in windows.all[-1].attachments)

            await until(ended, "the point has ended")
            assert "abababababab" not in {owner.name for owner in one.attachments}
            # One of the same name is another one.
            container.mkdir()
            await asyncio.to_thread(said, pod, [(container, 4)])
            await one.cut()
    assert windows.sent() == {"abababababab": 7}
    ids = {entry.id for window in windows.all for entry in window.attachments if entry.interface == "abababababab"}
    assert len(ids) == 2
