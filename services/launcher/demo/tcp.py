"""TCP connections of the demo's pods, with every byte of the application counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Key, Row, Side, Tally

IDLE_S: Final = 60.0  # a silent client is let go; clients of the plan pause 10 s at most
EXCHANGE_S: Final = 10.0  # far above any exchange here: only a vanished peer takes this long
CONNECT_S: Final = 3.0
RETRY_S: Final = 0.3  # a peer that is not up yet, or is gone for a while (the batch job)
MAX_CONNECTIONS: Final = 128
SHORTEST_VISIT: Final = 20  # exchanges on one kept-alive connection
LONGEST_VISIT: Final = 60
PIECE: Final = 65536

_FILLER: Final = memoryview(b"The quick brown fox jumps over the lazy dog. " * 24000)
LARGEST_BODY: Final = len(_FILLER)


class WireError(Exception):
    """The other side said something that its protocol does not know."""


def body(size: int) -> memoryview:
    """`size` bytes of text, at most LARGEST_BODY; a view, nothing is copied."""
    return _FILLER[:size]


class Wire:
    """One connection, both directions counted in `row`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, row: Row) -> None:
        self._reader = reader
        self._writer = writer
        self._row = row

    async def line(self) -> bytes:
        """The next line without its end; empty at the end of the stream."""
        try:
            line = await self._reader.readline()
        except ValueError as error:  # longer than the stream's limit
            raise WireError("a line without an end") from error
        self._row.rx_bytes += len(line)
        return line.rstrip(b"\r\n") if line.endswith(b"\n") else b""

    async def exactly(self, size: int) -> bytes:
        """`size` bytes; asyncio.IncompleteReadError when the stream ends before."""
        block = await self._reader.readexactly(size)
        self._row.rx_bytes += len(block)
        return block

    async def skip(self, size: int) -> None:
        """Read `size` bytes and forget them, without ever holding them all."""
        while size:
            block = await self._reader.read(min(size, PIECE))
            if not block:
                raise asyncio.IncompleteReadError(b"", size)
            self._row.rx_bytes += len(block)
            size -= len(block)

    async def some(self) -> bytes:
        """What is there, at most one piece; empty at the end of the stream."""
        block = await self._reader.read(PIECE)
        self._row.rx_bytes += len(block)
        return block

    async def send(self, *blocks: bytes | memoryview) -> None:
        """Hand `blocks` to the connection; returns once its buffer has room again."""
        for block in blocks:
            self._writer.write(block)
            self._row.tx_bytes += len(block)
        await self._writer.drain()

    async def end_sending(self) -> None:
        """Tell the other side that nothing more will come; its last bytes can still be read."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    @property
    def hosts(self) -> tuple[str, str]:
        """The address of this side, then of the other."""
        local: tuple[str, int] = self._writer.get_extra_info("sockname")
        peer: tuple[str, int] = self._writer.get_extra_info("peername")
        return local[0], peer[0]


Answer = Callable[[Wire], Awaitable[None]]
Visit = Callable[[Wire, Talk, Pace], Awaitable[None]]


def _row(writer: asyncio.StreamWriter, port: int, side: Side, tally: Tally) -> Row:
    local = writer.get_extra_info("sockname")
    peer = writer.get_extra_info("peername")
    if not local or not peer:  # it was reset before it could be looked at
        raise ConnectionResetError("the connection is gone")
    return tally.row(Key(local[0], peer[0], "tcp", port, side))


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close at the end of the block; after an error or a cancel without waiting for unsent bytes."""
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise
    writer.close()


async def serve(plan: Serve, tally: Tally, answer: Answer) -> None:
    """Accept on all addresses of `plan` until cancelled; `answer` talks on one connection."""
    busy: set[asyncio.StreamWriter] = set()
    stopping = False

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with _closing(writer):
                await answer(Wire(reader, writer, _row(writer, plan.port, "server", tally)))
        except* (OSError, EOFError, WireError):  # a proxy's two directions end as a group
            tally.failed()
        finally:
            busy.discard(writer)

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if stopping or len(busy) >= MAX_CONNECTIONS:
            tally.failed()
            writer.transport.abort()
            return
        busy.add(writer)
        group.create_task(one(reader, writer))

    try:
        async with asyncio.TaskGroup() as group:
            # Serving is started apart: a cancel inside start_server would leave the listener open.
            server = await asyncio.start_server(accepted, list(plan.addresses), plan.port, start_serving=False)
            try:
                await server.start_serving()
                await asyncio.get_running_loop().create_future()  # for ever: only a cancel ends it
            finally:
                stopping = True
                await _close(server)
    finally:
        for writer in busy:  # cancelled before their task took its first step
            writer.transport.abort()


async def _close(server: asyncio.Server) -> None:
    """Close a server; what it accepted in this moment is set up before, else it would stay open."""
    loop = asyncio.get_running_loop()
    try:
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)
    finally:
        server.close()  # not wait_closed: that would wait for handlers not yet cancelled


@contextlib.asynccontextmanager
async def connected(target: str, port: int, tally: Tally, source: str | None = None) -> AsyncIterator[Wire]:
    """A connection to `target`, from the address `source` if given; closed at the end."""
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(target, port, local_addr=(source, 0) if source else None)
    async with _closing(writer):
        yield Wire(reader, writer, _row(writer, port, "client", tally))


async def keep_visiting(talk: Talk, pace: Pace, tally: Tally, visit: Visit) -> None:
    """Connect, let `visit` talk on the connection, again and again, until cancelled."""
    await pace.stagger()
    while True:
        source = pace.rng.choice(talk.sources) if talk.sources else None
        try:
            async with connected(talk.target, talk.port, tally, source) as wire:
                await visit(wire, talk, pace)
        except (OSError, EOFError, WireError):  # a timeout is an OSError
            tally.failed()
            await asyncio.sleep(RETRY_S)


async def exchanges(wire: Wire, talk: Talk, pace: Pace, once: Callable[[Wire, int, Pace], Awaitable[None]]) -> None:
    """One visit of request and answer: `once(wire, size, pace)` at the plan's pace."""
    for _ in range(pace.rng.randint(SHORTEST_VISIT, LONGEST_VISIT)):
        async with asyncio.timeout(EXCHANGE_S):
            await once(wire, pace.body_size(talk.size), pace)
        await pace.pause(talk.rate)
