"""An agent that counts by control group, with the links of a namespace, and totals that take its windows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from services.aggregator.totals import Totals
from services.capture.fold import Folder
from services.capture.group_agent import GroupAgent
from services.capture.group_tree import GroupTree
from services.capture.interfaces import LinkMonitor, Selection
from services.capture.socketless import Socketless
from services.capture.sources.cgroup import CgroupSource, hierarchy
from services.flows.delta import Kind, Window
from services.flows.table import by_attachment
from services.runtime.clock import SystemClock
from tests.support.station import Batches
from tests.support.wait import until
from tests.support.worlds import directory


@dataclass(slots=True)
class GroupStation:
    """The agent, and what it told."""

    agent: GroupAgent
    monitor: LinkMonitor
    told: list[Window]
    totals: Totals

    def of(self, who: str, *kinds: Kind) -> list[int]:
        """What was told of a pod by its uid, or of a unit by its name, of some kinds of rows or of all."""
        sums = [0] * 4
        for window in self.told:
            for entry in window.attachments:
                if who in (entry.pod_uid, entry.interface):
                    rows = window.flows[window.flows["attachment"] == entry.id]
                    rows = rows[np.isin(rows["kind"], kinds)] if kinds else rows
                    found = by_attachment(rows).get(entry.id)
                    sums = [a + b for a, b in zip(sums, found.four, strict=True)] if found else sums
        return sums

    async def look(self) -> None:
        """Take in new links, which the monitor's task would do, and cut a window."""
        await self.monitor._read_all()  # nobody iterates over the changes here
        await self.agent.cut()

    async def exact(self, counted: dict[str, list[int]]) -> None:
        """Until each has these bytes and packets, sent and received."""

        async def are() -> bool:
            await self.agent.cut()
            return all(self.of(who) == numbers for who, numbers in counted.items())

        await until(are, f"all have {counted}; now { ({who: self.of(who) for who in counted}) }")


@contextlib.asynccontextmanager
async def group_station() -> AsyncIterator[GroupStation]:
    """One of the namespace that the thread is in."""
    source = CgroupSource(10_000)
    told: list[Window] = []
    totals = Totals(directory(), 1000)
    batches = Batches(totals, "boot-g")

    def take(window: Window) -> None:
        told.append(window)
        batches.take(window)

    try:
        async with GroupTree(hierarchy()) as tree, LinkMonitor(Selection()) as monitor:
            agent = GroupAgent(source, tree, Folder(10_000), SystemClock(), take, Socketless(monitor))
            yield GroupStation(agent, monitor, told, totals)
    finally:
        await source.close()
