"""Many clients of the WebSocket in a process of their own: `python -m tests.support.live_load PORT CLIENTS`.

They look only at what a message is and acknowledge it, so that the processor time is the server's. Commands
come by standard input: `connect` (answers when all have their snapshot), `report` (answers with what came).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Final

_HELLO: Final = (
    "GET /traffic/ws?v=1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_SEQ: Final = re.compile(rb'"seq":(\d+)')
_NO_MASK: Final = bytes(4)
_BUFFER: Final = memoryview(bytearray(1 << 20))
"""One for all: what was received is looked at before anything else is."""
_LAST, _TEXT, _PING = 0x80, 0x01, 0x09
_AT_A_TIME: Final = 50

Taken = Callable[[int, int], None]


def masked(code: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    assert len(payload) < 126
    return bytes((_LAST | code, 0x80 | len(payload))) + _NO_MASK + payload


class Client(asyncio.BufferedProtocol):
    """One connection; `taken` hears of each message's seq and size."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._transport: asyncio.Transport | None = None
        self._upgraded = False
        self._head = b""
        """The beginning of a message, as far as it is of use, or that of a frame's head."""
        self._left = 0
        """Bytes of the frame that are to come."""
        self._code = 0
        self._text = b""
        self._size = 0
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_HELLO.encode())

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        data = _BUFFER[:nbytes]
        if not self._upgraded:
            head, end, rest = bytes(data).partition(b"\r\n\r\n")
            assert end, "the head of the answer comes at once"
            assert head.startswith(b"HTTP/1.1 101"), head
            self._upgraded, data = True, memoryview(rest)
        while data:
            data = self._within(data) if self._left else self._begin(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = repr(exc)
        if not self.first.done():
            self.first.set_exception(ConnectionResetError(f"closed before the first message: {exc!r}"))

    def _begin(self, data: memoryview) -> memoryview:
        """Take the head of a frame, or a part of it."""
        head = self._head + bytes(data[: 10 - len(self._head)])
        if len(head) < 2:
            self._head = head
            return data[len(data) :]
        size = {126: 4, 127: 10}.get(head[1], 2)
        if len(head) < size:
            self._head = head
            return data[len(data) :]
        rest = data[size - len(self._head) :]
        self._left = head[1] if size == 2 else int.from_bytes(head[2:size], "big")
        self._code, self._head = head[0], b""
        return self._within(rest)

    def _within(self, data: memoryview) -> memoryview:
        """Take what follows of a frame."""
        part = data[: self._left]
        self._left -= len(part)
        if self._code & 0x0F in {0, _TEXT}:
            self._size += len(part)
            if len(self._text) < 400:
                self._text += bytes(part[:400])
        if not self._left:
            self._ended()
        return data[len(part) :]

    def _ended(self) -> None:
        assert self._transport is not None
        if self._code & 0x0F == _PING:
            self._transport.write(masked(0x0A, b""))
        elif self._code & 0x0F in {0, _TEXT} and self._code & _LAST:
            found = _SEQ.search(self._text)
            assert found, self._text
            seq, size = int(found[1]), self._size
            self._text, self._size = b"", 0
            self._transport.write(masked(_TEXT, b'{"ack":%d}' % seq))
            self._taken(seq, size)
            if not self.first.done():
                self.first.set_result(None)


async def main(port: int, many: int) -> None:
    """Obey the commands."""
    loop = asyncio.get_running_loop()
    came: list[tuple[int, float, int, int]] = []
    clients: list[Client] = []

    def taken(number: int) -> Taken:
        return lambda seq, size: came.append((number, time.clock_gettime(time.CLOCK_REALTIME), seq, size))

    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).strip():
        if line == b"connect":
            while len(clients) < many:
                numbers = range(len(clients), min(many, len(clients) + _AT_A_TIME))
                for number in numbers:
                    _, client = await loop.create_connection(lambda at=number: Client(taken(at)), "127.0.0.1", port)  # type: ignore[misc]
                    clients.append(client)
                for number in numbers:
                    await clients[number].first
            print(json.dumps({"snapshots": [size for *_, size in came[:many]]}), flush=True)
        elif line == b"begin":
            came.clear()
            print("{}", flush=True)
        elif line == b"report":
            closed = [client.closed for client in clients if client.closed]
            print(json.dumps({"came": came, "closed": closed}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
