"""Pushes the mirror to WebSocket clients: one message at a time to each, shared between all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Final

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from services.api.board import Base, Board
from services.api.peers import PeerReader
from services.api.reader import Reader
from services.api.watched import Version, WatchedPods
from services.api.web_socket_frames import FRAME_BYTES, Frames
from services.flows.live_message import CLOSE_SILENT, CLOSE_WRONG
from services.flows.live_request import USUAL_HZ, MessageError, Said, said

MESSAGE_BYTES: Final = 4096
"""The largest message that a client may send; the largest it needs is a pod's name."""
ACK_S: Final = 30.0
"""A client that did not acknowledge for so long is closed: its tab sleeps or is gone."""
_CLOSE_S: Final = 2.0
"""What a client may take to answer a close; who does not read cannot be waited for."""
_PING_S: Final = 20.0
_KERNEL_BYTES: Final = 128 * 1024
"""What the kernel may hold for a client that does not read; by itself it would grow to megabytes for each."""


@dataclass(slots=True, eq=False)
class _Client:
    """One WebSocket: what it has, and what it waits for."""

    request: web.Request
    socket: web.WebSocketResponse
    ended: asyncio.Future[tuple[int, str]]
    """Why it is to be closed: code and reason. Whoever comes first says it."""
    base: Base | None = None
    """The last message that it acknowledged; None asks for a snapshot."""
    board: Board | None = None
    outstanding: Base | None = None
    anew: bool = False
    """It asked for a snapshot."""
    hz: float = USUAL_HZ
    watched: str = ""
    watch_due: bool = False
    told: Version | None = None
    """The state of the watched pod that it was sent last."""
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """There may be something to send."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """The client asked for something: the pause between two messages may be over."""

    def end(self, code: int, reason: str = "") -> None:
        if not self.ended.done():
            self.ended.set_result((code, reason))

    async def send(self, frames: Frames) -> None:
        """Hand over frames as fast as it takes them; raises ConnectionError."""
        for frame in frames:
            transport = self.request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client went")
            transport.write(frame)
            # Between two frames others, such as pings, may be sent (RFC 6455, 5.4).
            await self.request.writer.drain()


class Hub:
    """All WebSocket clients of this process; `most` of them, each silent for at most `ack_s`."""

    def __init__(self, reader: Reader, peers: PeerReader, most: int, ack_s: float = ACK_S) -> None:
        self._reader = reader
        self._watched = WatchedPods(reader, peers)
        self._most = most
        self._ack_s = ack_s
        self._clients: set[_Client] = set()
        self._board: Board | None = None
        self._news = True

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Whether no further client is taken."""
        return len(self._clients) >= self._most

    def changed(self) -> None:
        """Tell all clients that the mirror, or what is to be said of it, may have changed."""
        self._news = True
        for client in self._clients:
            client.wake.set()

    async def serve(
        self, request: web.Request, socket: web.WebSocketResponse, resume: tuple[int, int] | None = None
    ) -> None:
        """Serve one client until it closes, misbehaves or falls silent."""
        client = _Client(request, socket, asyncio.get_running_loop().create_future())
        self._clients.add(client)
        try:
            await socket.prepare(request)
            _limit(request.transport)
            board = self._current()
            if resume is not None and board is not None:
                client.board, client.base = board, board.base_of(*resume)
            client.wake.set()
            async with asyncio.TaskGroup() as tasks:
                both = [tasks.create_task(self._receive(client)), tasks.create_task(self._send(client))]
                code, reason = await client.ended
                for task in both:
                    task.cancel()
            await farewell(request, socket, code, reason)
        finally:
            self._clients.discard(client)

    async def close(self) -> None:
        """Close every client: the service ends."""
        for client in self._clients:
            client.end(WSCloseCode.GOING_AWAY, "podloxx ends")

    def _current(self) -> Board | None:
        """The board as the mirror is now; it is brought up to date only when somebody looks."""
        mirror = self._reader.mirror
        if mirror is not None and self._news:
            self._news = False
            if self._board is None or self._board.epoch != mirror.epoch:
                self._board = Board(mirror.epoch)
            self._board.update(mirror, self._reader.problem)
        return self._board

    async def _send(self, client: _Client) -> None:
        while True:
            await client.wake.wait()
            client.wake.clear()
            if client.hz == 0 and not (client.watch_due or client.anew):
                continue
            began_s = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._ack_s):
                    sent = await self._push(client)
            except TimeoutError:
                client.end(CLOSE_SILENT, f"no ack for {self._ack_s:.0f} s")
                return
            except ConnectionError:
                client.end(WSCloseCode.GOING_AWAY)
                return
            if sent:
                await _pause(client, began_s)

    async def _push(self, client: _Client) -> bool:
        """Send what is new and wait for the acknowledgement; whether there was anything."""
        board = self._current()
        if board is None:
            return False
        if board is not client.board or client.anew:
            client.board, client.base, client.anew = board, None, False
        news = board.news(client.base)
        if news is not None:
            client.outstanding, frames = news
            client.acknowledged.clear()
            await client.send(frames)
        told = await self._tell_watched(client)
        if news is not None:
            await client.acknowledged.wait()
        return told or news is not None

    async def _tell_watched(self, client: _Client) -> bool:
        """Send the watched pod if it changed, or was just asked for; whether it was sent."""
        key, due = client.watched, client.watch_due
        client.watch_due = False
        version = self._watched.version(key) if key else None
        if not key or not (due or version != client.told):
            return False
        frames = await self._watched.frames(key)
        if frames is None and not due:
            # What the client has is the last that is known; with the next news it is tried again.
            return False
        client.told = None if frames is None else version
        await client.send(frames or self._watched.without_peers(key))
        return True

    async def _receive(self, client: _Client) -> None:
        async for message in client.socket:
            if message.type is not WSMsgType.TEXT:
                client.end(CLOSE_WRONG, "only text messages are understood")
                return
            try:
                self._heed(client, said(orjson.loads(message.data)))
            except orjson.JSONDecodeError:
                client.end(CLOSE_WRONG, "the message is not JSON")
                return
            except MessageError as error:
                client.end(CLOSE_WRONG, str(error))
                return
        client.end(WSCloseCode.OK)

    def _heed(self, client: _Client, wish: Said) -> None:
        if wish.hz is not None:
            client.hz = wish.hz
        if wish.watch is not None:
            client.watched, client.watch_due, client.told = wish.watch, bool(wish.watch), None
        # Acknowledgements of anything else are late ones.
        if wish.ack is not None and client.outstanding is not None and wish.ack == client.outstanding.seq:
            client.base, client.outstanding = client.outstanding, None
            client.acknowledged.set()
        client.anew |= wish.snapshot
        if wish.hz is not None or wish.watch is not None or wish.snapshot:
            client.hurry.set()
            client.wake.set()


async def farewell(request: web.Request, socket: web.WebSocketResponse, code: int, reason: str) -> None:
    """Close a WebSocket, in the end without its client's help."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await socket.close(code=code, message=reason.encode())
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def new_socket() -> web.WebSocketResponse:
    """A WebSocket as the hub takes it.

    Not compressed: it would be done for each client anew, and most are on this machine.
    """
    return web.WebSocketResponse(heartbeat=_PING_S, max_msg_size=MESSAGE_BYTES, compress=False)


def _limit(transport: asyncio.Transport | None) -> None:
    """Bound what waits for a client that does not read."""
    if transport is not None:
        transport.set_write_buffer_limits(high=FRAME_BYTES)
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, _KERNEL_BYTES)


async def _pause(client: _Client, sent_s: float) -> None:
    """Keep to the client's rate, which it may change meanwhile; what it asks for is sent at once."""
    while client.hz and not (client.watch_due or client.anew):
        client.hurry.clear()
        try:
            async with asyncio.timeout_at(sent_s + 1 / client.hz):
                await client.hurry.wait()
        except TimeoutError:
            return
