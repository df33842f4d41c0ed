"""A monitor of links in a namespace, and the changes that it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.capture.interfaces import LinkChange, LinkMonitor, Selection
from tests.support.netns import Namespace

T = TypeVar("T")

AUTOMATIC = Selection()
SCENARIO_S = 30.0


def within(node: Namespace, scenario: Callable[[], Awaitable[T]]) -> T:
    """Run a scenario in an event loop whose sockets are all the node's."""

    async def limited() -> T:
        async with asyncio.timeout(SCENARIO_S):
            return await scenario()

    return node.call(lambda: asyncio.run(limited()))


@dataclass(slots=True)
class Following:
    """A monitor, and the changes that it has told."""

    monitor: LinkMonitor
    told: list[LinkChange] = field(default_factory=list)

    def names(self) -> list[str]:
        """Of the links that are selected now."""
        return [link.name for link in self.monitor.links()]

    def added(self) -> list[str]:
        """Of all that came."""
        return [link.name for change in self.told for link in change.added]

    def has_added(self, name: str) -> bool:
        """Whether a link of that name came."""
        return name in self.added()

    def removed(self) -> list[str]:
        """Of all that went."""
        return [link.name for change in self.told for link in change.removed]


@contextlib.asynccontextmanager
async def following(selection: Selection = AUTOMATIC, *, refresh_s: float = 3600.0) -> AsyncIterator[Following]:
    """A monitor that is listened to."""
    async with LinkMonitor(selection, refresh_s=refresh_s) as monitor, asyncio.TaskGroup() as tasks:
        result = Following(monitor)

        async def follow() -> None:
            async for change in monitor.changes():
                result.told.append(change)

        task = tasks.create_task(follow())
        try:
            yield result
        finally:
            task.cancel()


def pair(name: str, pod: Namespace, *, options: str = "", peer: str = "") -> str:
    """The command that makes a link to a pod, `name` on the node's side."""
    return f"link add {name} {options} type veth peer name {peer or 'p' + name} netns {pod.name}"
