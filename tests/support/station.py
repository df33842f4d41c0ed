"""An agent on one interface of a namespace, and totals that take its windows: real packets, no Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from services.aggregator.totals import Totals
from services.capture.agent import Agent
from services.capture.bpf import syscall
from services.capture.fold import Folder
from services.capture.interfaces import LinkChange, LinkMonitor, Selection
from services.capture.settling import Settling
from services.capture.sources.kernel import KernelSource
from services.flows.coverage import InterfaceCoverage, NodeCoverage
from services.flows.delta import Batch, Window
from services.runtime.clock import SystemClock
from tests.support.netns import Namespace
from tests.support.wait import until
from tests.support.watch import opened
from tests.support.worlds import directory

T = TypeVar("T")
NODE: Final = "node-a"
_SCENARIO_S: Final = 40.0
_CAPACITY: Final = 10_000
_XDP, _BPF_XDP, _SKB_MODE, _LINK_CREATE = 6, 37, 2, 28
_DROP: Final = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
"""`return XDP_DROP;`"""


@dataclass(slots=True)
class Station:
    """One agent, its monitor, and the totals, which other agents may share."""

    monitor: LinkMonitor
    agent: Agent
    totals: Totals

    async def flush(self) -> None:
        """What the agent does once a second."""
        await self.agent.cut(await self.monitor.counters())

    async def follow(self, change: LinkChange) -> None:
        """What it does when links come and go."""
        await self.agent.follow(change, await self.monitor.counters())

    @property
    def node(self) -> NodeCoverage:
        """What is known of the node."""
        known = self.totals.meters.of(NODE)
        assert known is not None
        return known

    @property
    def one(self) -> InterfaceCoverage:
        """What is known of the interface."""
        [one] = self.node.interfaces
        return one

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Flush until a condition holds."""

        async def holds() -> bool:
            await self.flush()
            return condition()

        await until(holds, what)


@dataclass(slots=True)
class Batches:
    """Turns an agent's windows into batches that the totals apply."""

    totals: Totals
    boot: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def take(self, window: Window) -> None:
        self.totals.apply(Batch(NODE, self.boot, next(self._numbers), 0, 0, (window,), {}))


@contextlib.asynccontextmanager
async def station(
    interface: str = "veth0",
    *,
    kind: str = "ebpf",
    boot: str = "boot-a",
    totals: Totals | None = None,
    attached: bool = True,
    receive_buffer_bytes: int | None = None,
) -> AsyncIterator[Station]:
    """An agent of the namespace that the thread is in; not `attached`, its first links are still to be followed."""
    totals = totals or Totals(directory(), 10)
    options = {} if receive_buffer_bytes is None else {"receive_buffer_bytes": receive_buffer_bytes}
    async with (
        LinkMonitor(Selection(names=(interface,))) as monitor,
        opened(_CAPACITY, kind=kind, namespace=None, **options) as source,
    ):
        agent = Agent(source, Folder(_CAPACITY), SystemClock(), Batches(totals, boot).take, monitor.hidden)
        if isinstance(source, KernelSource):
            agent.missed = Settling(monitor.now, source.counted).missed
        one = Station(monitor, agent, totals)
        if attached:
            await one.follow(LinkChange(monitor.links(), ()))
        yield one


def inside(node: Namespace, scenario: Callable[[], Awaitable[T]]) -> T:
    """Run a scenario in an event loop whose sockets are the node's."""

    async def limited() -> T:
        async with asyncio.timeout(_SCENARIO_S):
            return await scenario()

    return node.call(lambda: asyncio.run(limited()))


@contextlib.contextmanager
def hidden(namespace: Namespace, interface: str) -> Iterator[None]:
    """Take away all that an interface receives after it was counted and before anybody sees it."""
    program: Any = syscall._load(_XDP, _DROP, "plx", None)  # type: ignore[arg-type]
    with namespace.entered():
        arguments = struct.pack("=IIIII", program, namespace.index(interface), _BPF_XDP, _SKB_MODE, 0)
        link = syscall.call(_LINK_CREATE, arguments + bytes(32))[0]
    try:
        yield
    finally:
        os.close(link)
        os.close(program)
