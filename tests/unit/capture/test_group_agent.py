"""Numbers of control groups that are used again."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.capture.control_groups import Owner, owner_of
from services.capture.fold import Folder
from services.capture.group_agent import GroupAgent
from services.capture.links import Link
from services.capture.raw_flow import RAW_FLOW
from services.capture.sources import Drained
from services.flows.delta import Window
from services.runtime.clock import SystemClock

FIRST, SECOND = (
    ("pod11111111-2222-3333-4444-555555555555", "ab" * 32),
    ("podaaaaaaaa-2222-3333-4444-555555555555", "cd" * 32),
)


class Groups:
    """A source that counted so many bytes of each group's number."""

    name = "cgroup"

    def __init__(self) -> None:
        self.counted: dict[int, int] = {}
        self.attached: list[int] = []

    async def attach(self, link: Link, attachment: int) -> None:
        assert link.index == attachment
        self.attached.append(attachment)

    async def detach(self, attachment: int) -> None:
        self.attached.remove(attachment)

    async def drain(self) -> Drained:
        rows = np.zeros(len(self.counted), RAW_FLOW)
        rows["attachment"], rows["bytes"] = [*self.counted], [*self.counted.values()]
        self.counted = {}
        return Drained(rows)

    async def close(self) -> None:
        pass


def booked(windows: list[Window]) -> dict[str, int]:
    """Bytes by the pods' uids."""
    found: dict[str, int] = {}
    for window in windows:
        pods = {entry.id: entry.pod_uid for entry in window.attachments}
        for row in window.flows:
            uid = pods[int(row["attachment"])]
            found[uid] = found.get(uid, 0) + int(row["tx_bytes"] + row["rx_bytes"])
    return found


class Tree:
    """Whose the numbers are, as it is to be."""

    def __init__(self) -> None:
        self.known: dict[int, Owner] = {}

    def owner(self, number: int) -> Owner | None:
        return self.known.get(number)

    def owners(self) -> frozenset[Owner]:
        return frozenset(self.known.values())

    present = owners

    def look(self) -> None:
        pass

    forget = look


async def test_a_number_that_is_used_again_is_the_later_groups() -> None:
    source: Any = Groups()
    tree: Any = Tree()
    windows: list[Window] = []
    agent = GroupAgent(source, tree, Folder(100), SystemClock(), windows.append)
    first, second = (owner_of(path) for path in (FIRST, SECOND))
    for round_, owner in enumerate((first, second, first, second)):
        tree.known = {7: owner}
        source.counted = {7: 100 + round_}
        await agent.cut()
    assert booked(windows) == {first.pod_uid: 100 + 102, second.pod_uid: 101 + 103}
    assert set(agent.attachments) == {second}


async def test_containers_of_a_pod_that_are_started_again_are_the_same_pods() -> None:
    source: Any = Groups()
    tree: Any = Tree()
    windows: list[Window] = []
    agent = GroupAgent(source, tree, Folder(100), SystemClock(), windows.append)
    pod, *_ = FIRST
    for number in range(1, 6):
        # The one before is known for a while.
        tree.known |= {number: owner_of((pod, f"{number:064x}"))}
        source.counted = {number: 100, number - 1: 7} if number > 1 else {number: 100}
        await agent.cut()
    assert booked(windows) == {owner_of(FIRST).pod_uid: 5 * 100 + 4 * 7}
    assert len({entry.id for entry in agent.attachments.values()}) == 5
