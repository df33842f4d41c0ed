"""Follows the pods' interfaces of a node as the kernel makes and removes them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from services.capture import netlink
from services.capture.links import Link, LinkChange, NodeAddress, Route, Selection, selected
from services.capture.pod_side import PodSide, Where
from services.flows.address import Address
from services.flows.coverage import beyond, plus
from services.flows.delta import NOTHING, InterfaceCounters
from services.runtime.log import get_logger

__all__ = ["Link", "LinkChange", "LinkMonitor", "NodeAddress", "Route", "Selection", "selected"]

_log = get_logger(__name__)

_REFRESH_S: Final = 10.0
"""How often all is read again. The kernel is silent about some changes: that a link's other end
moved to another namespace, and (unless asked for every route of the node) that a pod's address
is known now."""
_SPACING_S: Final = 0.1
"""Between two looks at the events, so that a burst of pods makes few changes, each of which
cuts a window; the first event after a quiet time is looked at at once."""
_DATAGRAM_BYTES: Final = 1 << 16
_MAX_EVENTS: Final = 4096
"""Datagrams kept unread, 1.5 kB each; beyond that all is read again instead."""


class LinkMonitor:
    """The selected links of this network namespace; use as a context manager.

    Entering reads the links and raises UsageError where a name of the selection is not among
    them, PodloxxError where the kernel gives none. All state belongs to the task that iterates
    over `changes`.
    """

    def __init__(self, selection: Selection, *, refresh_s: float = _REFRESH_S) -> None:
        self._selection = selection
        self._refresh_s = refresh_s
        self._events = _Events()
        self._seen: dict[int, netlink.Seen] = {}
        self._routes: Sequence[Route] = ()
        self._addresses: Sequence[NodeAddress] = ()
        self._selected: dict[int, Link] = {}
        self._lost: list[Link] = []
        self._first: list[LinkChange] = []
        self._pod_side = PodSide()
        # For our own namespace's links, about which everybody may ask.
        self._node_side = PodSide()
        self._own: dict[int, InterfaceCounters] = {}
        """What pods' own ends counted, as last read."""
        self._hidden: dict[int, InterfaceCounters] = {}
        """How much that was more than at the node's end."""

    async def __aenter__(self) -> Self:
        self._events.open()
        try:
            self._first = await self._read_all()
            self._selection.check(seen.link for seen in self._seen.values())
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._events.close()
        self._pod_side.close()
        self._node_side.close()

    def links(self) -> tuple[Link, ...]:
        """The links that are selected now, with the addresses of their pods as last read."""
        return tuple(self._selected.values())

    async def counters(self) -> dict[int, InterfaceCounters]:
        """The kernel's counters of the selected links by index, from the pods' view: their own where they can be read."""
        own = self.own()
        # Read after the pods' own, so that what passes meanwhile is not taken for hidden.
        found = await netlink.read_counters()
        told = {}
        for index, link in list(self._selected.items()):
            if index in found:
                told[index] = self._told(link, _pod_view(link, found[index]), own.get(index))
        return told

    def own(self) -> dict[int, InterfaceCounters]:
        """The counters of pods' own ends by the node's index; only those that could be read."""
        return self._read_own(list(self._selected))

    def own_addresses(self, link: Link) -> frozenset[Address]:
        """What addresses a pod has in its own namespace; none where nobody may ask."""
        return frozenset() if link.peer_netns is None else self._pod_side.addresses(link.peer_netns)

    def hidden(self) -> dict[int, InterfaceCounters]:
        """What of pods' own counters did not pass the node's ends, read now; only where these could be read."""
        own = self._read_own(list(self._hidden))
        for index, host in zip(own, self._pod_side.counters([(index, None) for index in own]), strict=True):
            if host is not None:
                link = self._selected[index]
                self._told(link, _pod_view(link, host), own[index])
        return {index: self._hidden.get(index, NOTHING) for index in self._own}

    def now(self, link: Link) -> InterfaceCounters | None:
        """What `counters` would say of a link, at once; None where it is gone or both its ends do not count the same."""
        if link.index in self._hidden:
            return None
        if link.index in self._own:
            return self._read_own([link.index]).get(link.index)
        [found] = self._node_side.counters([(link.index, None)])
        return None if found is None else _pod_view(link, found)

    def _told(self, link: Link, host: InterfaceCounters, own: InterfaceCounters | None) -> InterfaceCounters:
        """What a link's counters are; they stay those of the pod's end once that was read."""
        own = own or self._own.get(link.index)
        if own is None:
            return host
        self._own[link.index] = own
        before = self._hidden.get(link.index, NOTHING)
        # Never less than before: two ends are not read at one moment.
        hidden = plus(before, beyond(beyond(own, host), before))
        if hidden != NOTHING:
            self._hidden[link.index] = hidden
        return own

    def _read_own(self, indexes: Iterable[int]) -> dict[int, InterfaceCounters]:
        """The counters of pods' own ends of some links, where they can be read."""
        asked: dict[int, Where] = {}
        for index in indexes:
            link, seen = self._selected[index], self._seen.get(index)
            if not link.pod_side and link.peer_netns is not None and seen is not None and seen.peer_index is not None:
                asked[index] = seen.peer_index, link.peer_netns
        found = zip(asked, self._pod_side.counters(list(asked.values())), strict=True)
        return {
            index: _pod_view(replace(self._selected[index], pod_side=True), one)
            for index, one in found
            if one is not None
        }

    async def changes(self) -> AsyncIterator[LinkChange]:
        """The links that are there, then every change, without end.

        A link that was removed and made again under its index or name is in both parts of a
        change; one that was made and removed is in two.
        """
        for change in self._first:
            yield change
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            due = looked_at + self._refresh_s
            if await self._events.arrived(due):
                since = self._events.first_at
                for change in await self._follow(self._events.take()):
                    yield _since(change, since)
            if loop.time() >= due:
                since, looked_at = looked_at, loop.time()
                for change in await self._read_all():
                    yield _since(change, since)
            await asyncio.sleep(_SPACING_S)

    async def _follow(self, datagrams: Iterable[bytes] | None) -> list[LinkChange]:
        if datagrams is None:
            _log.warning("link-events-lost", consequence="all interfaces are read again")
            return await self._read_all()
        events = [event for data in datagrams for event in netlink.decode_events(data)]
        if any(event.seen.link.index not in self._seen for event in events):
            await self._read_routes()
        changes: list[LinkChange] = []
        unjudged: set[int] = set()
        for event in events:
            index = event.seen.link.index
            if not event.gone:
                self._seen[index] = event.seen
                if index not in self._selected:
                    unjudged.add(index)
                continue
            if index in unjudged:
                # It came and went within this burst, and both are to be told.
                changes += self._evaluated()
                unjudged.clear()
            self._remove(index)
        return changes + self._evaluated()

    async def _read_all(self) -> list[LinkChange]:
        """Read everything anew; what differs from what was known has changed."""
        now = {seen.link.index: seen for seen in await netlink.read_links()}
        for index, before in list(self._seen.items()):
            if index not in now or before.is_replaced_by(now[index]):
                self._remove(index)
        self._seen = now
        await self._read_routes()
        return self._evaluated()

    async def _read_routes(self) -> None:
        self._routes = await netlink.read_routes()
        self._addresses = await netlink.read_addresses()

    def _remove(self, index: int) -> None:
        self._seen.pop(index, None)
        lost = self._selected.pop(index, None)
        if lost is not None:
            self._lost.append(lost)

    def _evaluated(self) -> list[LinkChange]:
        """What changed in the selection since the last time: one change, or none."""
        chosen = selected((seen.link for seen in self._seen.values()), self._routes, self._addresses, self._selection)
        now = {link.index: link for link in chosen}
        for link in self._lost:
            self._own.pop(link.index, None)
            self._hidden.pop(link.index, None)
        for index, before in self._selected.items():
            if index not in now or not _same(before, now[index]):
                self._lost.append(before)
        added = tuple(
            link for link in chosen if link.index not in self._selected or not _same(self._selected[link.index], link)
        )
        removed, self._lost, self._selected = tuple(self._lost), [], now
        return [LinkChange(added, removed)] if added or removed else []


class _Events:
    """Datagrams of link events that were not looked at yet."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._datagrams: deque[bytes] = deque()
        self._complete = True
        self._wake = asyncio.Event()
        self.first_at = 0.0
        """The event loop's time when the first of them was read."""

    def open(self) -> None:
        self._socket = netlink.subscribe()
        asyncio.get_running_loop().add_reader(self._socket, self._read, self._socket)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def arrived(self, due: float) -> bool:
        """Whether something arrives before the event loop's time is `due`."""
        try:
            async with asyncio.timeout_at(due):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[bytes] | None:
        """What arrived, or None where some of it was lost: then the links are to be read again.

        Where events were lost the others are dropped: to apply a removal and not the creation
        that followed would be wrong, and a later look at the links shows the outcome of all.
        """
        self._wake.clear()
        if self._complete:
            taken = list(self._datagrams)
            self._datagrams.clear()
            return taken
        if self._socket is not None:
            self._read(self._socket)
        self._datagrams.clear()
        self._wake.clear()
        self._complete = True
        return None

    def _read(self, events: socket.socket) -> None:
        """Read all that is there, at once, as the kernel's buffer is small."""
        if not self._wake.is_set():
            self.first_at = asyncio.get_running_loop().time()
        while True:
            try:
                data = events.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._complete = False
                if error.errno != errno.ENOBUFS:
                    return
            else:
                self._datagrams.append(data)
                if len(self._datagrams) >= _MAX_EVENTS:
                    self._datagrams.clear()
                    self._complete = False
            self._wake.set()


def _since(change: LinkChange, loop_time: float) -> LinkChange:
    # An event loop's clock is the monotonic one.
    return replace(change, since_us=int(loop_time * 1e6))


def _same(before: Link, now: Link) -> bool:
    """Whether an attachment to `before` also stands for `now`."""
    return before.name == now.name and before.pod_side == now.pod_side


def _pod_view(link: Link, host: netlink.HostCounters) -> InterfaceCounters:
    if link.pod_side:
        return InterfaceCounters(host.tx_bytes, host.tx_packets, host.rx_bytes, host.rx_packets)
    return InterfaceCounters(host.rx_bytes, host.rx_packets, host.tx_bytes, host.tx_packets)
