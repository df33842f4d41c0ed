"""Discovery, source and windows together: pods that come and go are counted to the byte, by every source."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from services.capture.agent import Agent
from services.capture.fold import Folder
from services.capture.links import Link
from services.flows.delta import Window
from services.runtime.clock import SystemClock
from tests.support import generators as frames
from tests.support.following import Following, following, pair, within
from tests.support.netns import Namespace, namespaces, veth
from tests.support.wait import until
from tests.support.watch import OF_LINKS, opened

BURST = 300


@pytest.fixture
def node_and_pod() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces("node", "pod") as (node, pod):
        yield node, pod


@dataclass(slots=True)
class Counting:
    """An agent that follows what a monitor tells."""

    agent: Agent
    seen: Following
    windows: list[Window] = field(default_factory=list)
    handled: int = 0

    async def follow(self) -> None:
        """Carry out all changes that were told by now."""
        while self.handled < len(self.seen.told):
            self.handled += 1
            await self.agent.follow(self.seen.told[self.handled - 1], await self.seen.monitor.counters())

    async def attached(self, indexes: set[int]) -> None:
        """Follow until exactly these interfaces are attached."""

        async def are_attached() -> bool:
            await self.follow()
            return set(self.agent.attachments) == indexes

        condition: Callable[[], Awaitable[bool] | bool] = are_attached
        await until(condition, "all are attached")

    def packets(self, port: int) -> Counter[int]:
        """What was sent with this EtherType, by attachment."""
        found = Counter[int]()
        for window in self.windows:
            rows = window.flows[window.flows["port"] == port]
            for row in rows:
                found[int(row["attachment"])] += int(row["tx_packets"])
        return found


@asynccontextmanager
async def counting(kind: str) -> AsyncIterator[Counting]:
    """An agent with a source of this kind."""
    windows: list[Window] = []
    async with opened(kind=kind) as source, following() as seen:
        yield Counting(Agent(source, Folder(1000), SystemClock(), windows.append), seen, windows)


@pytest.mark.parametrize("kind", OF_LINKS)
def test_pods_that_come_and_go_under_traffic_are_counted_to_the_byte(
    node_and_pod: tuple[Namespace, Namespace], kind: str
) -> None:
    node, pod = node_and_pod
    counts = range(100, 108)

    async def scenario() -> None:
        async with counting(kind) as one:
            for count in counts:
                # The same index and name each time, and gone with frames still unread.
                veth(node, "veth7", pod, pod_name="eth7", options="index 777")
                await one.attached({777})
                frames.inject(pod, "eth7", [frames.ethernet(0x88B5, bytes(50))] * count)
                node.ip("link del veth7")
                await one.attached(set())
            assert list(one.packets(0x88B5).values()) == list(counts)
            rows = [row for window in one.windows for row in window.flows if row["port"] == 0x88B5]
            assert sum(int(row["tx_bytes"]) for row in rows) == sum(counts) * 64
            assert not any(window.loss for window in one.windows)

    within(node, scenario)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", OF_LINKS)
def test_a_burst_of_300_pods_is_counted_and_let_go(node_and_pod: tuple[Namespace, Namespace], kind: str) -> None:
    node, pod = node_and_pod
    made = [f"veth{at}" for at in range(BURST)]

    async def scenario() -> None:
        async with counting(kind) as one:
            await asyncio.to_thread(node.ip, *(pair(name, pod, options="group 7") for name in made))
            await one.attached({node.index(name) for name in made})
            await asyncio.to_thread(node.ip, *(f"link set {name} up" for name in made))
            await asyncio.to_thread(pod.ip, *(f"link set p{name} up" for name in made))
            for name in made[::10]:
                await asyncio.to_thread(frames.inject, pod, f"p{name}", [frames.ethernet(0x88B5, bytes(50))])
            await one.agent.cut({})
            assert sorted(one.packets(0x88B5).values()) == [1] * (BURST // 10)
            discovery = one.agent.discovery
            assert discovery.links == BURST
            assert 0 < discovery.sum_us / discovery.links <= discovery.most_us
            await asyncio.to_thread(node.ip, "link del group 7")
            await one.attached(set())

    within(node, scenario)


@dataclass(slots=True)
class Talker:
    """A pod that sends from the first moment on, and knows when it sent what."""

    pod: Namespace
    sent_at_us: list[int] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until it is stopped."""
        frame = frames.ethernet(0x88B5, bytes(50))
        clock = SystemClock()
        with self.pod.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as out:
            out.bind(("eth7", 0))
            while not self.stopping.is_set():
                now = clock.monotonic_us()
                out.send(frame)
                self.sent_at_us.append(now)


@pytest.mark.parametrize("kind", OF_LINKS)
def test_of_a_pod_that_sends_at_once_no_more_is_missed_than_the_discovery_delay_tells(
    node_and_pod: tuple[Namespace, Namespace], kind: str
) -> None:
    node, pod = node_and_pod
    talker = Talker(pod)

    async def scenario() -> None:
        async with counting(kind) as one:
            attach = one.agent.source.attach

            async def late(link: Link, attachment: int) -> None:
                await until(lambda: len(talker.sent_at_us) > 200, "the pod has sent something by then")
                await attach(link, attachment)

            one.agent.source.attach = late  # type: ignore[method-assign]
            before_us = SystemClock().monotonic_us()
            await asyncio.to_thread(veth, node, "veth7", pod, pod_name="eth7", options="index 777")
            there_us = SystemClock().monotonic_us()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.to_thread(talker.run))
                try:
                    await one.attached({777})
                    known = len(talker.sent_at_us)
                    await until(lambda: len(talker.sent_at_us) > known + 200, "it goes on")
                finally:
                    talker.stopping.set()
            await one.agent.cut({})
            lost = sum(sum(window.loss.values()) for window in one.windows)
            missed = len(talker.sent_at_us) - sum(one.packets(0x88B5).values()) - lost
            assert 200 < missed < len(talker.sent_at_us)
            # Packets are counted from some moment on, so those that are missing were the first.
            assert talker.sent_at_us[missed - 1] <= there_us + one.agent.discovery.most_us
            assert one.agent.discovery.most_us <= SystemClock().monotonic_us() - before_us

    within(node, scenario)
