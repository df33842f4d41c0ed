"""What one flush costs when many flows were counted: draining, folding, and encoding the batch."""

from __future__ import annotations

import asyncio
import functools
import statistics
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from services.capture.fold import Folder
from services.capture.links import Link
from services.capture.sources.choice import opened
from services.flows import wire
from services.flows.delta import Attachment, Batch, Window
from tests.bench.report import Report
from tests.bench.world import INTERFACE, World

_CAPACITY: Final = 1 << 21
"""Divided among the processors, of which one sends."""
_CLIENTS: Final = "connections to one server"
_PEERS: Final = "different peers"
_STEPS: Final = ("drain", "fold", "encode")
_ATTACHMENT: Final = Attachment(1, INTERFACE, 2, "ebpf", 0)


@dataclass(slots=True)
class Steps:
    """Milliseconds of processor time of all threads, step by step."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        before = time.process_time()
        yield
        self.spent[name] = (time.process_time() - before) * 1000


async def one_flush(place: World, flood: list[str], flows: int, kept: int) -> dict[str, float]:
    """Let `flows` flows pass, which are `kept` once folded, then flush them as the agent does."""
    folder = Folder(_CAPACITY)
    source = opened("ebpf", _CAPACITY)
    try:
        await source.attach(Link(place.node.index(INTERFACE), INTERFACE), 1)
        # The first flush touches all memory for the first time.
        for _ in range(2):
            sent, _ = (await asyncio.to_thread(subprocess.check_output, flood, text=True)).split()
            assert int(sent) >= flows, "the sender was too slow to begin all flows"
            steps = Steps()
            with steps.step("drain"):
                drained = await source.drain()
            with steps.step("fold"):
                rows = folder.fold(drained.rows)
            with steps.step("encode"):
                wire.encode(Batch("node", "boot", 1, 0, 0, (Window(0, 1, (_ATTACHMENT,), rows, {}),), {}))
        assert not drained.loss
        assert int(rows["tx_packets"].sum()) >= int(sent)
        assert kept <= len(rows) <= kept + 20
        return steps.spent
    finally:
        await source.close()


def measured(place: World, run: Callable[[], Coroutine[Any, Any, dict[str, float]]], rounds: int) -> dict[str, float]:
    """The median of each step."""
    with place.node.entered():
        every = [asyncio.run(run()) for _ in range(rounds)]
    return {step: statistics.median(one[step] for one in every) for step in _STEPS}


@pytest.mark.timeout(900)
def test_milliseconds_of_a_flush(place: World, programs: dict[str, Path], report: Report, rounds: int) -> None:
    lines = []
    for flows in (10_000, 100_000, 500_000):
        flood = place.flood(programs["flood"], "from the pod", flows, 64, flows / 500_000 + 0.1)
        for what, command, kept in ((_CLIENTS, flood, 1), (_PEERS, [*flood, "peers"], flows)):
            flush = functools.partial(one_flush, place, command, flows, kept)
            spent = measured(place, flush, max(rounds, 5))
            whole = sum(spent.values())
            lines.append((f"{flows:,} {what}", *(f"{spent[step]:.1f}" for step in _STEPS), f"{whole:.1f}"))
            if flows == 100_000:
                report.goal(f"ms to drain {flows:,} {what}", spent["drain"], at_most=25)
                report.goal(f"ms to drain, fold and encode {flows:,} {what}", whole, at_most=50)
            assert whole < flows * 0.01, "a flow costs more than ten microseconds"
    report.table("One flush of source ebpf, processor milliseconds", ("flows", *_STEPS, "all"), lines)
