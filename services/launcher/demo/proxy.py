"""A node's service proxy: takes what comes to a virtual address and passes it to a backend."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Final

from services.launcher.demo import tcp, udp
from services.launcher.demo.plan import Serve, family_of
from services.launcher.demo.tally import Tally
from services.launcher.demo.tcp import Wire
from services.launcher.demo.udp import Host, UdpSocket

MAX_CALLERS: Final = 128  # UDP clients remembered at a time; a datagram of one more is dropped
CALLER_IDLE_S: Final = 15.0  # above the longest pause of a client in the plan
MAX_WAITING: Final = 32  # datagrams of one UDP client that wait for its socket


class Turns:
    """The backends in turn, of the family of the address that was asked."""

    def __init__(self, backends: tuple[str, ...]) -> None:
        self._by_family: dict[int, Iterator[str]] = {
            family: itertools.cycle([b for b in backends if family_of(b) == family])
            for family in {family_of(backend) for backend in backends}
        }

    def next_for(self, address: str) -> str:
        """The backend whose turn it is."""
        return next(self._by_family[family_of(address)])


async def serve_tcp(plan: Serve, tally: Tally) -> None:
    """Join each accepted connection with a new one to the next backend, until cancelled."""
    turns = Turns(plan.backends)

    async def answer(wire: Wire) -> None:
        backend = turns.next_for(wire.hosts[1])
        async with (
            tcp.connected(backend, plan.backend_port, tally) as onward,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(_pipe(wire, onward))
            group.create_task(_pipe(onward, wire))

    await tcp.serve(plan, tally, answer)


async def _pipe(source: Wire, sink: Wire) -> None:
    while block := await source.some():
        await sink.send(block)
    await sink.end_sending()


async def serve_udp(plan: Serve, tally: Tally) -> None:
    """Pass datagrams on from one socket per client, and the answers back, until cancelled."""
    turns = Turns(plan.backends)
    callers: dict[Host, asyncio.Queue[bytes]] = {}

    async def pass_on(socket: UdpSocket, sender: Host, waiting: asyncio.Queue[bytes]) -> None:
        def back(payload: bytes) -> None:
            socket.send(payload, sender)

        backend = turns.next_for(sender[0])
        try:
            async with udp.connected(backend, plan.backend_port, tally, received=back) as onward:
                while True:
                    async with asyncio.timeout(CALLER_IDLE_S):
                        onward.send(await waiting.get())
        except TimeoutError:
            pass  # the client has gone: its socket may go too
        except OSError:
            tally.failed()
        finally:
            del callers[sender]

    async with asyncio.TaskGroup() as group:

        def received(socket: UdpSocket, payload: bytes, sender: Host) -> None:
            waiting = callers.get(sender)
            if waiting is None and len(callers) < MAX_CALLERS:
                waiting = callers[sender] = asyncio.Queue(MAX_WAITING)
                group.create_task(pass_on(socket, sender, waiting))
            if waiting is None or waiting.full():
                tally.failed()
                return
            waiting.put_nowait(payload)

        await udp.serve(plan, tally, received)
