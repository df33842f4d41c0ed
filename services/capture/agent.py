"""Cuts what a source counted into windows: at every flush, attach and detach."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from services.capture.fold import Folder
from services.capture.links import Link, LinkChange
from services.capture.settling import Begun
from services.capture.sources import Source
from services.flows.address import Address
from services.flows.coverage import beyond, plus
from services.flows.delta import NOTHING, Attachment, InterfaceCounters, Kind, Window, beside
from services.flows.table import by_attachment
from services.runtime.clock import Clock
from services.runtime.log import get_logger

_log = get_logger(__name__)

Counters = Mapping[int, InterfaceCounters]
_ADDRESSES: int = 16
"""Addresses reported per attachment: a pod has a few, a spoofing one as many as it likes."""


@dataclass(slots=True)
class Discovery:
    """How long links that came while we watched were there before their packets were counted.

    Upper bounds: from the moment in which the kernel's event was read or, where a link was found
    by looking, from the look before.
    """

    links: int = 0
    sum_us: int = 0
    most_us: int = 0

    def add(self, delay_us: int) -> None:
        """One more link."""
        self.links += 1
        self.sum_us += delay_us
        self.most_us = max(self.most_us, delay_us)


@dataclass(slots=True)
class Agent:
    """Owns the attachments of one node; `emit` takes every window that was cut."""

    source: Source
    folder: Folder
    clock: Clock
    emit: Callable[[Window], None]
    hidden: Callable[[], Counters] = dict
    """What of pods' own counters did not pass the node's ends so far, by interface index."""
    missed: Callable[[list[Begun]], Awaitable[Counters]] | None = None
    """What of interfaces passed while the source was attached to them, by attachment, as far as that can be known."""
    attachments: dict[int, Attachment] = field(default_factory=dict)
    """By interface index."""
    discovery: Discovery = field(default_factory=Discovery)
    _start_us: int = 0
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _told: dict[int, InterfaceCounters] = field(default_factory=dict)
    """By attachment, what of `hidden` was told, or passed before it began."""

    def __post_init__(self) -> None:
        self._start_us = self.clock.monotonic_us()

    async def follow(self, change: LinkChange, counters: Counters) -> None:
        """Detach links that went and attach those that came.

        The window is cut in between, so that every window either covers an interface whole or
        not at all.
        """
        gone = [self.attachments.pop(link.index) for link in change.removed if link.index in self.attachments]
        for attachment in gone:
            await self.source.detach(attachment.id)
            self._told.pop(attachment.id, None)
        now = self.clock.monotonic_us()
        closed = tuple(replace(entry, detached_us=now) for entry in gone)
        await self.cut({}, closed)
        hidden = self.hidden()
        async with asyncio.TaskGroup() as tasks:
            for link in change.added:
                before = hidden.get(link.index)
                tasks.create_task(self._attach(link, counters.get(link.index), before, change.since_us))
        await self._settle(change.added)

    async def _settle(self, added: Iterable[Link]) -> None:
        """Add what passed while we attached to what passed before: an agent that takes over books it in its gap."""
        entries = [(self.attachments[link.index], link) for link in added if link.index in self.attachments]
        begun = [Begun(entry.id, link, entry.counters) for entry, link in entries if entry.counters is not None]
        missed = await self.missed(begun) if self.missed is not None else {}
        for entry, link in entries:
            self.attachments[link.index] = replace(entry, passed=missed.get(entry.id, NOTHING))

    def learn(self, links: Iterable[Link]) -> None:
        """Take addresses that routes to known links show by now: a network plugin adds them last."""
        for link in links:
            entry = self.attachments.get(link.index)
            if entry is not None:
                self.attachments[link.index] = replace(
                    entry, addresses=more_addresses(entry.addresses, frozenset(link.addresses))
                )

    async def cut(self, counters: Counters, closed: tuple[Attachment, ...] = ()) -> None:
        """End the window now and emit it; `closed` are attachments that ended with it."""
        drained = await self.source.drain()
        for index, entry in self.attachments.items():
            self.attachments[index] = replace(
                entry,
                counters=counters.get(index, entry.counters),
                addresses=more_addresses(entry.addresses, drained.senders.get(entry.id, frozenset())),
            )
        end = self.clock.monotonic_us()
        late = tuple(
            replace(entry, addresses=more_addresses(entry.addresses, drained.senders.get(entry.id, frozenset())))
            for entry in closed
        )
        hidden = self.hidden()
        flows = np.concatenate([self.folder.fold(drained.rows), beside(Kind.HIDDEN, self._newly_hidden(hidden))])
        self.emit(Window(self._start_us, end, (*late, *self.attachments.values()), flows, drained.loss))
        self._start_us = end
        captured = by_attachment(flows)
        for index, entry in self.attachments.items():
            passed = plus(entry.passed, captured.get(entry.id, NOTHING))
            self.attachments[index] = replace(entry, passed=passed, hidden=hidden.get(index, entry.hidden))

    def _newly_hidden(self, hidden: Counters) -> dict[int, InterfaceCounters]:
        """What was not told yet of what is hidden, by attachment.

        `hidden` is read after the source was drained: so it holds all that others on the node were seen to send.
        """
        found = {}
        for index, counters in hidden.items():
            entry = self.attachments.get(index)
            if entry is not None:
                more = beyond(counters, self._told.get(entry.id, NOTHING))
                self._told[entry.id] = counters
                if more != NOTHING:
                    found[entry.id] = more
        return found

    async def _attach(
        self, link: Link, counters: InterfaceCounters | None, hidden: InterfaceCounters | None, since_us: int | None
    ) -> None:
        number = next(self._ids)
        try:
            await self.source.attach(link, number)
        except OSError as error:
            # A pod that ended at once takes its link along before we get there.
            _log.info("link-gone-before-attach", interface=link.name, error=str(error))
            return
        self._told[number] = hidden or NOTHING
        self.attachments[link.index] = Attachment(
            id=number,
            interface=link.name,
            index=link.index,
            source=self.source.name,
            attached_us=self.clock.monotonic_us(),
            addresses=link.addresses[:_ADDRESSES],
            counters=counters,
            first_counters=counters,
            hidden=hidden,
        )
        if since_us is not None:
            self.discovery.add(self.clock.monotonic_us() - since_us)
        _log.info("attached", interface=link.name, index=link.index, attachment=number)


def more_addresses(known: tuple[Address, ...], seen: frozenset[Address]) -> tuple[Address, ...]:
    """What is known of a pod's addresses with those that were seen, as far as they are reported."""
    if seen.issubset(known):
        return known
    return tuple(dict.fromkeys((*known, *sorted(seen, key=str))))[:_ADDRESSES]
