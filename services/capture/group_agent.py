"""Cuts what was counted by control group into windows, with a point of observation for each owner that talked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from services.capture.agent import Discovery, more_addresses
from services.capture.control_groups import Owner
from services.capture.fold import Folder
from services.capture.group_tree import GroupTree
from services.capture.links import Link
from services.capture.raw_flow import RawRows
from services.capture.socketless import Socketless
from services.capture.sources import Source
from services.flows.address import Address
from services.flows.coverage import plus
from services.flows.delta import NOTHING, Attachment, Kind, Window, beside
from services.flows.table import by_attachment
from services.runtime.clock import Clock
from services.runtime.log import get_logger

_log = get_logger(__name__)
_NOBODY: Final = Owner("unknown-group")
"""Who has the groups that came and went before anybody looked."""


@dataclass(slots=True)
class GroupAgent:
    """Owns the points of one node's containers and units; `emit` takes every window that was cut.

    A point is there from an owner's first packet until its groups were forgotten.
    """

    source: Source
    tree: GroupTree
    folder: Folder
    clock: Clock
    emit: Callable[[Window], None]
    socketless: Socketless = field(default_factory=Socketless)
    attachments: dict[Owner, Attachment] = field(default_factory=dict)
    discovery: Discovery = field(default_factory=Discovery)
    _groups: dict[int, Owner] = field(default_factory=dict)
    """By number, those that the source counts apart."""
    _start_us: int = 0
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._start_us = self.clock.monotonic_us()
        self.socketless.begin()

    async def cut(self, own: frozenset[Address] = frozenset()) -> None:
        """End the window now and emit it; `own` are the node's addresses, which tell nobody apart."""
        drained = await self.source.drain()
        self.tree.look()
        end = self.clock.monotonic_us()
        await self._settle(drained.rows)
        rows = drained.rows.copy()
        rows["attachment"] = self._points(rows)
        for number, seen in drained.senders.items():
            owner = self._groups.get(number, _NOBODY)
            # Units talk with the node's addresses, and with those of whoever's namespace they enter.
            if owner.container_id or owner.pod_uid:
                entry = self.attachments[owner]
                self.attachments[owner] = replace(entry, addresses=more_addresses(entry.addresses, seen - own))
        flows = self.folder.fold(rows)
        more = self.socketless.take(self.attachments, by_attachment(flows), self.tree.present())
        flows = np.concatenate([flows, beside(Kind.NO_SOCKET, more)])
        self.tree.forget()
        closed = await self._gone(end)
        self.emit(Window(self._start_us, end, (*closed, *self.attachments.values()), flows, drained.loss))
        self._start_us = end
        captured = by_attachment(flows)
        for owner, entry in self.attachments.items():
            self.attachments[owner] = replace(entry, passed=plus(entry.passed, captured.get(entry.id, NOTHING)))

    async def _settle(self, rows: RawRows) -> None:
        """Find out whose groups are that were not seen before."""
        for number in np.unique(rows["attachment"]).tolist():
            owner = self.tree.owner(number)
            if owner is None or owner == self._groups.get(number):
                continue
            # Its number may have been another group's, which is gone.
            self._groups[number] = owner
            try:
                await self.source.attach(Link(number, owner.name), number)
            except OSError as error:
                _log.info("group-not-apart", group=owner.name, error=str(error))

    def _points(self, rows: RawRows) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        numbers, inverse = np.unique(rows["attachment"], return_inverse=True)
        points = [self._point(self._groups.get(number, _NOBODY)) for number in numbers.tolist()]
        return np.array(points, np.uint32)[inverse.reshape(-1)]

    def _point(self, owner: Owner) -> int:
        entry = self.attachments.get(owner)
        if entry is None:
            number = next(self._ids)
            # It was counted before anybody knew of it.
            entry = Attachment(number, owner.name, number, self.source.name, self._start_us, pod_uid=owner.pod_uid)
            self.attachments[owner] = entry
            _log.info("attached", group=owner.name, container=owner.container_id, pod=owner.pod_uid, attachment=number)
        return entry.id

    async def _gone(self, now_us: int) -> list[Attachment]:
        """The points of owners that are forgotten, and are no more after this window."""
        for number in [number for number in self._groups if self.tree.owner(number) is None]:
            del self._groups[number]
            await self.source.detach(number)
        there = self.tree.owners()
        gone = [owner for owner in self.attachments if owner not in there and owner != _NOBODY]
        return [replace(self.attachments.pop(owner), detached_us=now_us) for owner in gone]
