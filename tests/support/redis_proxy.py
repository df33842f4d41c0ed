"""A proxy in front of Redis that breaks what passes: by seed, or at a named command."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, Self

_CHUNK: Final = 1 << 16
_LONGEST_DELAY_S: Final = 0.03
_STOP_S: Final = 5.0


class Way(Enum):
    """What happens to what passes."""

    PASS = "pass"
    DELAY = "delay"
    """Every request and every reply comes late, each by its own time."""
    REFUSE = "refuse"
    """Connections are closed as soon as they are made, those that stand at once."""
    DEAF = "deaf"
    """Half-open: connections are accepted, requests are taken and never answered or carried out."""
    STALL = "stall"
    """A black hole: nothing moves in either direction; it arrives when the way is open again."""
    MUTE = "mute"
    """Requests are carried out, their replies are lost, and the connection with them."""


class Moment(Enum):
    """When a trap closes."""

    BEFORE = "before"
    """The request came and Redis never gets it."""
    AFTER = "after"
    """Redis has carried it out, and nobody hears of it."""
    LATE = "long before"
    """The client's connection is cut; Redis gets the request when it is let go."""


@dataclass(slots=True)
class Trap:
    """What happens once at a request of `command`: `act` is called, and the connection is cut."""

    command: bytes
    moment: Moment
    act: Callable[[], None]
    skip: int = 0
    """Requests of that command to let pass first."""
    closed: threading.Event = field(default_factory=threading.Event)


class RequestError(ValueError):
    """Bytes that are no request of Redis's protocol."""


@dataclass(slots=True)
class Requests:
    """Cuts a client's bytes into whole requests."""

    _pending: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(command in upper case, the request's bytes) of every request that is whole by now."""
        self._pending += data
        while (found := self._first()) is not None:
            command, end = found
            request = bytes(self._pending[:end])
            del self._pending[:end]
            yield command, request

    def _first(self) -> tuple[bytes, int] | None:
        header = self._number(0, b"*")
        if header is None:
            return None
        count, at = header
        command = b""
        for word in range(count):
            header = self._number(at, b"$")
            if header is None:
                return None
            length, at = header
            if len(self._pending) < at + length + 2:
                return None
            if word == 0:
                command = bytes(self._pending[at : at + length]).upper()
            at += length + 2
        return command, at

    def _number(self, at: int, kind: bytes) -> tuple[int, int] | None:
        end = self._pending.find(b"\r\n", at)
        if end < 0:
            return None
        if self._pending[at : at + 1] != kind:
            raise RequestError(bytes(self._pending[at : at + 20]))
        return int(self._pending[at + 1 : end]), end + 2


@dataclass(slots=True, eq=False)
class _Link:
    """One client's connection and its other half."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    sprung: Trap | None = None
    """The trap whose request Redis has, and whose reply is awaited."""

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class RedisProxy:
    """Listens on `path` for one client process and passes on to `upstream`, in a thread of its own.

    A client in another network comes to `bound`, a TCP socket which is closed at the end.
    """

    def __init__(self, path: Path, upstream: Path, seed: int = 0, bound: socket.socket | None = None) -> None:
        self.socket = path
        self._bound = bound
        self._upstream = upstream
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {path.name}")
        self._listening = bound or socket.socket(socket.AF_UNIX)
        self._links: set[_Link] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._let_go = asyncio.Event()
        self._way = Way.PASS
        self._trap: Trap | None = None
        self.did: Counter[str] = Counter()
        """How often it did what."""

    @property
    def url(self) -> str:
        """What a service's --redis-url takes."""
        if self._bound is None:
            return f"unix://{self.socket}"
        host, port = self._bound.getsockname()
        return f"redis://{host}:{port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, way: Way) -> None:
        """Go on in this way, with the connections that stand as well."""
        self._call(self._set(way))

    def cut(self) -> None:
        """Cut all connections, once."""
        self._call(self._cut())

    def trap(self, trap: Trap) -> Trap:
        """Set a trap; it closes once."""
        self._trap = trap
        return trap

    def let_go(self) -> None:
        """Let what a trap has held back go on to Redis; what is held later is held until the next call."""
        self._call(self._pass_on())

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP_S)  # type: ignore[arg-type]

    async def _start(self) -> None:
        self._open.set()
        if self._bound is None:
            self._listening.bind(str(self.socket))
            # Services run as users of their own.
            self.socket.chmod(0o777)
        self._listening.setblocking(False)
        self._listening.listen()
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        # A server of asyncio that is closed while it accepts leaves that connection open.
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            connection, _ = self._listening.accept()
            handler = self._loop.create_task(self._serve(connection))
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)

    async def _end(self) -> None:
        self._loop.remove_reader(self._listening)
        self._listening.close()
        # Only a handler that has begun closes its connection when it is cancelled.
        await asyncio.sleep(0)
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        if handlers:
            await asyncio.wait(handlers, timeout=_STOP_S)
        # Transports that were told to close do so in the turn after.
        await asyncio.sleep(0)

    async def _set(self, way: Way) -> None:
        before, self._way = self._way, way
        if way is Way.STALL:
            self._open.clear()
        else:
            self._open.set()
        # What was taken in the meantime is gone, and so is every order between requests and replies.
        if way is Way.REFUSE or before in {Way.DEAF, Way.MUTE}:
            await self._cut()

    async def _pass_on(self) -> None:
        self._let_go.set()
        self._let_go = asyncio.Event()

    async def _cut(self) -> None:
        for link in list(self._links):
            self.did["cut"] += 1
            link.cut()

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            opened = asyncio.open_unix_connection if self._bound is None else asyncio.open_connection
            reader, writer = await opened(sock=connection)
            try:
                await self._join(reader, writer)
            except* (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way is Way.REFUSE:
            self.did["refused"] += 1
            return
        upstream_reader, upstream = await asyncio.open_unix_connection(self._upstream)
        link = _Link(writer, upstream)
        self._links.add(link)
        self.did["connected"] += 1
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._requests(reader, link))
                pumps.create_task(self._replies(upstream_reader, link))
        finally:
            self._links.discard(link)
            link.cut()

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        requests = Requests()
        while data := await reader.read(_CHUNK):
            for command, request in requests.feed(data):
                await self._hold()
                if self._way is Way.DEAF:
                    self.did["unanswered"] += 1
                    continue
                trap = self._trapped(command)
                if trap is not None and trap.moment is Moment.BEFORE:
                    self._spring(trap, link)
                    return
                if trap is not None and trap.moment is Moment.LATE:
                    await self._spring_late(trap, link, request)
                    return
                link.sprung = link.sprung or trap
                link.server.write(request)
            await link.server.drain()
        link.cut()

    async def _replies(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while data := await reader.read(_CHUNK):
            if link.sprung is not None:
                self._spring(link.sprung, link)
                return
            await self._hold()
            if self._way is Way.MUTE:
                self.did["replies-lost"] += 1
                break
            link.client.write(data)
            await link.client.drain()
        link.cut()

    async def _hold(self) -> None:
        if self._way is Way.DELAY:
            self.did["delayed"] += 1
            await asyncio.sleep(self._random.uniform(0, _LONGEST_DELAY_S))
        if not self._open.is_set():
            self.did["stalled"] += 1
            await self._open.wait()

    def _trapped(self, command: bytes) -> Trap | None:
        trap = self._trap
        if trap is None or trap.command != command:
            return None
        if trap.skip:
            trap.skip -= 1
            return None
        self._trap = None
        return trap

    async def _spring_late(self, trap: Trap, link: _Link, request: bytes) -> None:
        self.did[f"trapped-{trap.moment.value}"] += 1
        trap.act()
        link.client.transport.abort()
        let_go = self._let_go
        trap.closed.set()
        await let_go.wait()
        # Its reply, which nobody waits for any more, ends the link.
        link.server.write(request)
        await link.server.drain()

    def _spring(self, trap: Trap, link: _Link) -> None:
        self.did[f"trapped-{trap.moment.value}"] += 1
        trap.act()
        link.cut()
        trap.closed.set()
