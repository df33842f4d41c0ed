"""A source on one link in a namespace, beside the kernel's own counters of that link."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.capture.flow_table import summed
from services.capture.links import Link
from services.capture.raw_flow import Direction, RawRows, no_raw_rows
from services.capture.sources.choice import SOURCES
from services.flows import address
from services.flows.address import Address
from services.flows.delta import Kind
from tests.support.netns import Counters, Namespace
from tests.support.wait import until

OF_LINKS = [name for name in SOURCES if name != "cgroup"]
"""Sources that are attached to links; the other one counts by control group, on whatever link."""
NOTHING = Counters(0, 0, 0, 0)
HOST, POD = "10.9.0.1", "10.9.0.2"
HOST6, POD6 = "fd09::1", "fd09::2"
"""The ends of the `pair` fixture's link."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What rows of one direction add up to."""

    link_bytes: int
    packets: int
    segments: int
    wire_bytes: int


@dataclass(slots=True)
class Watch:
    """Everything that was seen of one link since it was attached."""

    namespace: Namespace
    link: Link
    source: Any
    before: Counters
    attachment: int = 1
    rows: RawRows = field(default_factory=no_raw_rows)
    loss: Counter[str] = field(default_factory=Counter)
    senders: set[Address] = field(default_factory=set)
    counted: Counters = NOTHING
    """What the kernel had counted when `settled` returned."""

    async def drain(self) -> None:
        drained = await self.source.drain()
        self.rows = summed(np.concatenate([self.rows, drained.rows[drained.rows["attachment"] == self.attachment]]))
        self.loss.update(drained.loss)
        self.senders |= drained.senders.get(self.attachment, frozenset())

    def sum(self, direction: Direction) -> Sum:
        rows = self.rows[self.rows["direction"] == direction]
        return Sum(*(int(rows[name].sum()) for name in ("bytes", "packets", "segments", "wire_bytes")))

    @property
    def tx(self) -> Sum:
        return self.sum(Direction.TX)

    @property
    def rx(self) -> Sum:
        return self.sum(Direction.RX)

    async def settled(self) -> None:
        """Until as many packets were seen, or reported as dropped, as the kernel counted."""

        async def is_complete() -> bool:
            await self.drain()
            # Read once: a report of IPv6 group membership may come at any time.
            self.counted = self.namespace.counters(self.link.name) - self.before
            seen = int(self.rows["packets"].sum()) + self.loss.total()
            return seen == self.counted.rx_packets + self.counted.tx_packets

        complete: Callable[[], Awaitable[bool] | bool] = is_complete
        await until(complete, f"{self.link.name} seen as counted")

    def assert_exact(self) -> None:
        """Bytes and packets of both directions are the kernel's, and nothing was lost."""
        sent, received = (self.tx, self.rx) if self.link.pod_side else (self.rx, self.tx)
        seen = Counters(received.link_bytes, received.packets, sent.link_bytes, sent.packets)
        assert seen == self.counted, f"seen {seen}, counted {self.counted}, lost {dict(self.loss)}"
        assert not self.loss, dict(self.loss)


def peers(watch: Watch) -> set[tuple[str, str]]:
    """Local end and peer of every IP row."""
    rows = watch.rows[watch.rows["kind"] == Kind.IP]
    return {
        (
            str(address.from_words(int(row["local_hi"]), int(row["local_lo"]))),
            str(address.from_words(int(row["peer_hi"]), int(row["peer_lo"]))),
        )
        for row in rows
    }


@contextlib.asynccontextmanager
async def opened(
    capacity: int = 100_000, *, kind: str = "socket", namespace: Namespace | None = None, **options: int
) -> AsyncIterator[Any]:
    """A source, made in `namespace`, that is closed at the end."""
    with namespace.entered() if namespace else contextlib.nullcontext():
        source: Any = SOURCES[kind](capacity, **options)
    try:
        yield source
    finally:
        await source.close()


@contextlib.asynccontextmanager
async def watching(
    namespace: Namespace,
    interface: str,
    *,
    source: Any = None,
    attachment: int = 1,
    pod_side: bool = False,
    kind: str = "socket",
) -> AsyncIterator[Watch]:
    """A watch on a link; brings a source of its own unless one is given."""
    link = Link(namespace.index(interface), interface, pod_side=pod_side)
    async with contextlib.AsyncExitStack() as stack:
        mine = await stack.enter_async_context(opened(kind=kind, namespace=namespace)) if source is None else source
        yield await _attached(namespace, link, mine, attachment)


async def _attached(namespace: Namespace, link: Link, source: Any, attachment: int) -> Watch:
    while True:
        before = namespace.counters(link.name)
        with namespace.entered():
            await source.attach(link, attachment)
        # IPv6 tells routers of its groups whenever it likes.
        if namespace.counters(link.name) == before:
            return Watch(namespace, link, source, before, attachment)
        await source.detach(attachment)
        await source.drain()
