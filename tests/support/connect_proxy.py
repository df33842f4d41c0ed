"""An HTTP proxy that carries CONNECT as one in a company does, and notes what it was asked for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class ConnectProxy:
    """Carries connections to names that it alone knows: their ports are of this machine."""

    names: Mapping[str, int]
    user: str = ""
    """`name:password` that it wants to hear."""
    refusal: str = ""
    """The status line with which everything is refused."""
    port: int = 0
    asked: list[str] = field(default_factory=list)
    holds: bool = False
    """Answers do not come back."""
    _ends: list[asyncio.StreamWriter] = field(default_factory=list)

    def cut(self) -> None:
        """Break all connections."""
        for one in self._ends:
            one.transport.abort()
        self._ends.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            method, where, _ = lines[0].split()
            self.asked.append(f"{method} {where}")
            wanted = f"Proxy-Authorization: Basic {base64.b64encode(self.user.encode()).decode()}"
            status = self.refusal
            if method != "CONNECT" or where not in self.names:
                status = "502 Bad Gateway"
            elif self.user and wanted not in lines:
                status = "407 Proxy Authentication Required"
            if status:
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.names[where])
            self._ends += [writer, far_writer]
            with contextlib.closing(far_writer):
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                async with asyncio.TaskGroup() as tasks:
                    both = [
                        tasks.create_task(_copy(reader, far_writer, lambda: False)),
                        tasks.create_task(_copy(far_reader, writer, lambda: self.holds)),
                    ]
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    for one in both:
                        one.cancel()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, held: Callable[[], bool]) -> None:
    with contextlib.suppress(OSError):
        while part := await source.read(1 << 16):
            if held():
                await asyncio.Event().wait()
            target.write(part)
            await target.drain()


@contextlib.asynccontextmanager
async def proxying(one: ConnectProxy) -> AsyncIterator[ConnectProxy]:
    """A proxy at work, on its `port`."""
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
