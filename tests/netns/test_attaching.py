"""What passes while an agent takes over a busy interface is in the totals to the byte: as its gap, and as nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from services.aggregator.totals import Totals
from services.flows.coverage import beyond
from services.flows.delta import FOUR, InterfaceCounters
from services.flows.traffic import ROW_COUNTERS
from tests.support.netns import Namespace
from tests.support.station import inside, station
from tests.support.wait import until
from tests.support.watch import HOST, POD

AGENTS = 6
_FLOOD = """import random, socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.connect((sys.argv[1], 9))
    while True:
        for _ in range(8):
            try:
                out.send(bytes(random.randrange(1, 1400)))
            except ConnectionRefusedError:
                pass
        time.sleep(0.0004)
"""
Pair = tuple[Namespace, Namespace]


@contextlib.contextmanager
def flooding(namespace: Namespace, target: str) -> Iterator[None]:
    """Some 15,000 datagrams a second of any size, with gaps as a scheduler leaves them."""
    process = subprocess.Popen(namespace.command(sys.executable, "-c", _FLOOD, target))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def counted(node: Namespace) -> InterfaceCounters:
    """The kernel's own, from the pod's view."""
    found = node.counters("veth0")
    return InterfaceCounters(found.rx_bytes, found.rx_packets, found.tx_bytes, found.tx_packets)


def booked(totals: Totals) -> InterfaceCounters:
    """What the rows have, gaps among them."""
    found = [counts for row in totals.rows.by_number.values() for counts in row.totals.values()]
    return InterfaceCounters(*(sum(counts[ROW_COUNTERS.index(name)] for counts in found) for name in FOUR))


@pytest.mark.parametrize("kind", ["ebpf", "tcx"])
def test_agents_that_take_over_under_a_flood_lose_and_double_nothing(quiet: Pair, kind: str) -> None:
    node, pod = quiet

    async def scenario() -> None:
        totals: Totals | None = None
        async with contextlib.AsyncExitStack() as last:
            with flooding(pod, HOST), flooding(node, POD):
                await until(lambda: min(counted(node).four) > 1000, "it floods")
                for at in range(AGENTS):
                    async with station(kind=kind, boot=f"boot-{at}", totals=totals) as one:
                        await one.flush()
                        if totals is None:
                            totals, (first,) = one.totals, one.totals.points.known.values()
                        await asyncio.sleep(0.05)
                        await one.flush()
                        # What comes now is captured, and never told.
                        await asyncio.sleep(0.05)
                one = await last.enter_async_context(station(kind=kind, boot="boot-last", totals=totals))
                await one.flush()
            assert totals is not None
            assert first.first is not None
            await one.until(lambda: one.one.counters == counted(node), "all that was counted is told")
            await one.flush()
            assert booked(totals) == beyond(counted(node), first.first)

    inside(node, scenario)
