"""Pushes the mirror to WebSocket clients: one message at a time to each, shared between all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from services.api.board import Board
from services.api.mirror import Mirror
from services.api.reader import Reader
from services.api.views import peers_of
from services.runtime.log import get_logger
from services.runtime.redis_client import StoreError

_log = get_logger(__name__)

MESSAGE_BYTES: Final = 4096
"""The largest message that a client may send; the largest it needs is a pod's name."""
ACK_S: Final = 30.0
"""A client that did not acknowledge for so long is closed: its tab sleeps or is gone."""
_HZ: Final = 4.0
"""The most messages a second; ticks come about once a second per agent."""


@dataclass(slots=True, eq=False)
class _Client:
    """One WebSocket: what it has, and what it waits for."""

    socket: web.WebSocketResponse
    base: int = -1
    """The last message that it acknowledged; -1 asks for a snapshot."""
    epoch: int = -1
    outstanding: int | None = None
    hz: float = _HZ
    watched: int | None = None
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Hub:
    """All WebSocket clients of this process."""

    def __init__(self, reader: Reader, most: int) -> None:
        self._reader = reader
        self._most = most
        self._clients: set[_Client] = set()
        self._board: Board | None = None

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Whether no further client is taken."""
        return len(self._clients) >= self._most

    def changed(self) -> None:
        """Tell all clients that the mirror changed."""
        mirror = self._reader.mirror
        if mirror is None:
            return
        if self._board is None or self._board.epoch != mirror.epoch:
            self._board = Board(mirror.epoch)
        self._board.update(mirror, self._reader.problem)
        for client in self._clients:
            client.wake.set()

    async def serve(self, socket: web.WebSocketResponse, resume: tuple[int, int] | None) -> None:
        """Serve one client until it closes, misbehaves or falls silent."""
        client = _Client(socket)
        if resume is not None and self._board is not None and self._board.knows(*resume):
            client.epoch, client.base = resume
        client.wake.set()
        self._clients.add(client)
        try:
            async with asyncio.TaskGroup() as tasks:
                sender = tasks.create_task(self._send(client))
                await self._receive(client)
                sender.cancel()
        finally:
            self._clients.discard(client)

    async def close(self) -> None:
        """Close every client: the service ends."""
        for client in list(self._clients):
            await client.socket.close(code=WSCloseCode.GOING_AWAY, message=b"podloxx ends")

    async def _send(self, client: _Client) -> None:
        while not client.socket.closed:
            await client.wake.wait()
            client.wake.clear()
            if client.hz == 0 or self._board is None:
                continue
            seq, message = self._board.message_since(client.epoch, client.base)
            if seq == client.base and client.epoch == self._board.epoch:
                continue
            client.outstanding, client.epoch = seq, self._board.epoch
            client.acknowledged.clear()
            await client.socket.send_str(message)
            await self._send_watched(client)
            if not await _within(client.acknowledged, ACK_S):
                await client.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"no ack for 30 s")
                return
            await asyncio.sleep(1 / client.hz if client.hz else 0)
            client.wake.set()

    async def _send_watched(self, client: _Client) -> None:
        mirror = self._reader.mirror
        row = None if mirror is None or client.watched is None else mirror.rows.get(client.watched)
        if row is None:
            return
        try:
            found = await self._reader.peers(row.number)
        except StoreError as error:
            _log.info("peers-not-read", error=str(error))
            return
        await client.socket.send_str(orjson.dumps({"t": "pod", "id": row.number, **peers_of(row, found)}).decode())

    async def _receive(self, client: _Client) -> None:
        async for message in client.socket:
            if message.type is not WSMsgType.TEXT:
                await _refuse(client, b"only text messages are understood")
                return
            try:
                said = orjson.loads(message.data)
                handled = isinstance(said, dict) and self._handle(client, said)
            except orjson.JSONDecodeError:
                handled = False
            if not handled:
                await _refuse(client, b"expected {ack}, {hz}, {watch} or {snapshot}")
                return

    def _handle(self, client: _Client, said: dict[str, Any]) -> bool:
        verbs: dict[str, Callable[[_Client, Any], bool]] = {
            "ack": self._ack,
            "hz": self._set_hz,
            "watch": self._watch,
            "snapshot": self._snapshot,
        }
        return bool(said) and all(verb in verbs and verbs[verb](client, value) for verb, value in said.items())

    def _ack(self, client: _Client, seq: object) -> bool:
        if type(seq) is not int or seq != client.outstanding:
            return type(seq) is int
        client.base, client.outstanding = seq, None
        client.acknowledged.set()
        return True

    def _set_hz(self, client: _Client, hz: object) -> bool:
        if not isinstance(hz, int | float) or not 0 <= hz <= _HZ:
            return False
        client.hz = float(hz)
        client.wake.set()
        return True

    def _watch(self, client: _Client, key: object) -> bool:
        mirror: Mirror | None = self._reader.mirror
        if key is not None and not isinstance(key, str):
            return False
        row = mirror.shown().get(key) if mirror is not None and key else None
        client.watched = row.number if row else None
        client.wake.set()
        return True

    def _snapshot(self, client: _Client, _: object) -> bool:
        client.base = client.epoch = -1
        client.wake.set()
        return True


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _refuse(client: _Client, why: bytes) -> None:
    await client.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=why)
