"""What a child says: all of it for who wants to follow, the end of it for who comes later."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

FILE_BYTES: Final = 1024 * 1024
"""The folder of a session lies in memory: of each child two files of this size at most."""
_TAIL_BYTES: Final = 16 * 1024
_LINE_BYTES: Final = 64 * 1024
"""A line that is longer is passed on in pieces."""


class ChildLog(asyncio.Protocol):
    """Takes what comes out of a pipe; `echo` is called with each line.

    The newest is in `path`, what came before in the file of that name with `.1` after it.
    """

    def __init__(self, path: Path, echo: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._echo = echo
        self._file = path.open("ab", buffering=0)
        self._tail = b""
        self._line = b""
        self._closed = asyncio.Event()

    @property
    def lines(self) -> list[str]:
        """The last lines."""
        return self._tail.decode(errors="replace").strip().splitlines()

    async def closed(self) -> None:
        """Wait until the child has nothing more to say."""
        await self._closed.wait()

    def data_received(self, data: bytes) -> None:
        """Keep what was written."""
        # A full disk is no reason to end: what is in memory says what matters.
        with contextlib.suppress(OSError):
            self._write(data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if self._echo is not None:
            *lines, self._line = (self._line + data).split(b"\n")
            if len(self._line) > _LINE_BYTES:
                lines, self._line = [*lines, self._line], b""
            for line in lines:
                self._echo(line.decode(errors="replace"))

    def _write(self, data: bytes) -> None:
        if self._file.tell() + len(data) > FILE_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("wb", buffering=0)
        self._file.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a read that failed is an end, too
        """The pipe's other end is closed, or ours."""
        if self._echo is not None and self._line:
            self._echo(self._line.decode(errors="replace"))
        self._file.close()
        self._closed.set()


async def piped(log: ChildLog) -> tuple[int, asyncio.ReadTransport]:
    """A pipe into `log`: the descriptor to write to, which the caller closes, and the reading end."""
    read, write = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: log, os.fdopen(read, "rb", 0))
    return write, transport
