"""UDP sockets of the demo's pods, with every byte of the application counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

from services.launcher.demo.plan import Serve
from services.launcher.demo.tally import Key, Row, Side, Tally

# Datagrams that nobody took yet; the excess is dropped, as a kernel's socket buffer would.
MAX_WAITING: Final = 256
RETRY_S: Final = 0.3

Host = tuple[str, int]
Received = Callable[["UdpSocket", bytes, Host], None]


class UdpSocket(asyncio.DatagramProtocol):
    """One socket; calls `received(socket, payload, sender)` for each datagram.

    `port` is the server's port, `side` which side of the conversation this socket is.
    """

    def __init__(self, port: int, side: Side, tally: Tally, received: Received) -> None:
        self._port = port
        self._side = side
        self._tally = tally
        self._received = received
        self._transport: asyncio.DatagramTransport | None = None
        self._local = ""
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._local = transport.get_extra_info("sockname")[0]

    def datagram_received(self, data: bytes, addr: Host) -> None:
        """A datagram came; an IPv6 sender has two fields more."""
        self._row(addr).rx_bytes += len(data)
        self._received(self, data, (addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        """A port that nobody listens on yet: the kernel reports it on a connected socket."""
        del exc
        self._tally.failed()

    def pause_writing(self) -> None:
        """The kernel takes no more and asyncio's own queue has filled."""
        self._full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._full = False

    def send(self, payload: bytes | memoryview, peer: Host) -> None:
        """Send one datagram; while queues are full it is lost, as on a busy network."""
        if self._transport is None or self._full:
            self._tally.failed()
            return
        self._transport.sendto(payload, peer if self._side == "server" else None)
        self._row(peer).tx_bytes += len(payload)

    def _row(self, peer: Host) -> Row:
        return self._tally.row(Key(self._local, peer[0], "udp", self._port, self._side))


class Caller:
    """A client's connected socket: send, and take what came back, in order.

    With `received` each datagram goes there at once and `receive` has nothing to give.
    """

    def __init__(self, target: str, port: int, tally: Tally, received: Callable[[bytes], None] | None) -> None:
        self._peer = (target, port)
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        self._received = received or self._keep
        self.socket = UdpSocket(port, "client", tally, self._came)

    def _came(self, _socket: UdpSocket, payload: bytes, _sender: Host) -> None:
        self._received(payload)

    def _keep(self, payload: bytes) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(payload)

    def send(self, payload: bytes | memoryview) -> None:
        """Send one datagram to the target."""
        self.socket.send(payload, self._peer)

    async def receive(self) -> bytes:
        """The oldest datagram that came back; waits for one."""
        return await self._waiting.get()

    def forget(self) -> None:
        """Drop what nobody will ask for any more."""
        while not self._waiting.empty():
            self._waiting.get_nowait()


async def serve(plan: Serve, tally: Tally, received: Received) -> None:
    """Listen on all addresses of `plan` until cancelled."""
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for address in plan.addresses:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: UdpSocket(plan.port, "server", tally, received),
                local_addr=(address, plan.port),
            )
            stack.callback(transport.close)
        await loop.create_future()  # for ever: only a cancel ends it


@contextlib.asynccontextmanager
async def connected(
    target: str,
    port: int,
    tally: Tally,
    source: str | None = None,
    *,
    received: Callable[[bytes], None] | None = None,
) -> AsyncIterator[Caller]:
    """A socket connected to `target`, from the address `source` if given."""
    caller = Caller(target, port, tally, received)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: caller.socket,
        local_addr=(source, 0) if source else None,
        remote_addr=(target, port),
    )
    try:
        yield caller
    finally:
        transport.close()
