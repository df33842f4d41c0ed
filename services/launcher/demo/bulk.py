"""Bulk transfers at a steady, paced rate: a TCP stream, and a UDP stream with receiver reports."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Final

from services.launcher.demo import tcp, udp
from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Tally
from services.launcher.demo.tcp import Wire
from services.launcher.demo.udp import Host, UdpSocket

TICK_S: Final = 0.1  # ten wake-ups a second per stream keep the processor's share small
TICKS_PER_STREAM: Final = 300  # then a new connection, as a client of an object store does
REPORT_EVERY: Final = 64  # datagrams per receiver report
_SEQUENCE: Final = struct.Struct("!Q")


async def serve_tcp(plan: Serve, tally: Tally) -> None:
    """Take all that comes; at the end of the stream answer with its length."""

    async def answer(wire: Wire) -> None:
        total = 0
        while block := await wire.some():
            total += len(block)
        await wire.send(b"%d\n" % total)

    await tcp.serve(plan, tally, answer)


async def talk_tcp(plan: Talk, pace: Pace, tally: Tally) -> None:
    """Push about `plan.rate` bytes per second times the load, until cancelled."""
    await tcp.keep_visiting(plan, pace, tally, push)


async def push(wire: Wire, talk: Talk, pace: Pace, ticks: int = TICKS_PER_STREAM) -> None:
    """One stream of `ticks` blocks; WireError when the other side did not get all of it."""
    total = 0
    for _ in range(ticks):
        size = min(tcp.LARGEST_BODY, max(1, int(talk.rate * pace.load() * TICK_S)))
        async with asyncio.timeout(tcp.EXCHANGE_S):
            await wire.send(tcp.body(size))
        total += size
        await asyncio.sleep(TICK_S)
    await wire.end_sending()
    async with asyncio.timeout(tcp.EXCHANGE_S):
        received = await wire.line()
    if received != b"%d" % total:
        raise tcp.WireError(f"{total} bytes were pushed, the other side says {received[:40]!r}")


async def serve_udp(plan: Serve, tally: Tally) -> None:
    """Take all that comes and send a report for each REPORT_EVERY-th sequence number."""

    def received(socket: UdpSocket, payload: bytes, sender: Host) -> None:
        if len(payload) < _SEQUENCE.size:
            tally.failed()
            return
        (sequence,) = _SEQUENCE.unpack_from(payload)
        if sequence % REPORT_EVERY == 0:
            socket.send(_SEQUENCE.pack(sequence), sender)

    await udp.serve(plan, tally, received)


async def talk_udp(plan: Talk, pace: Pace, tally: Tally) -> None:
    """Send datagrams of `plan.size` bytes, `plan.rate` bytes per second times the load."""
    await pace.stagger()
    filler = tcp.body(max(0, plan.size - _SEQUENCE.size)).tobytes()
    sequence = itertools.count()
    while True:
        source = pace.rng.choice(plan.sources) if plan.sources else None
        try:
            async with udp.connected(plan.target, plan.port, tally, source) as caller:
                for _ in range(TICKS_PER_STREAM):
                    for _ in range(max(1, int(plan.rate * pace.load() * TICK_S / plan.size))):
                        caller.send(_SEQUENCE.pack(next(sequence)) + filler)
                    caller.forget()  # the reports were counted as they came
                    await asyncio.sleep(TICK_S)
        except OSError:
            tally.failed()
            await asyncio.sleep(udp.RETRY_S)
