"""Name lookups over UDP: a server that knows the plan's names, clients that check its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from services.launcher.demo import udp
from services.launcher.demo.dns_message import (
    AAAA,
    FORMAT_ERROR,
    NAME_ERROR,
    A,
    MessageError,
    Query,
    decode_answer,
    decode_query,
    encode_answer,
    encode_query,
)
from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Tally
from services.launcher.demo.udp import Caller, Host, UdpSocket

Names = Mapping[str, tuple[str, str]]  # host name -> (IPv4, IPv6)

ANSWER_S: Final = 2.0
LOOKUPS_PER_SOCKET: Final = 50  # a new source port from time to time, as resolvers do
UNKNOWN_CHANCE: Final = 0.1  # a search-domain miss, so that NXDOMAIN is on the wire too


async def serve(plan: Serve, tally: Tally, names: Names) -> None:
    """Answer A and AAAA questions from `names`; what is not there is NXDOMAIN."""

    def received(socket: UdpSocket, payload: bytes, sender: Host) -> None:
        answer = respond(payload, names)
        if answer:
            socket.send(answer, sender)
        else:
            tally.failed()

    await udp.serve(plan, tally, received)


async def talk(plan: Talk, pace: Pace, tally: Tally, names: Names) -> None:
    """Look names up at the plan's pace until cancelled."""
    await pace.stagger()
    while True:
        source = pace.rng.choice(plan.sources) if plan.sources else None
        try:
            async with udp.connected(plan.target, plan.port, tally, source) as caller:
                for _ in range(LOOKUPS_PER_SOCKET):
                    await lookup(caller, pace, names)
                    await pace.pause(plan.rate)
        except (OSError, TimeoutError, MessageError):
            tally.failed()
            await asyncio.sleep(udp.RETRY_S)


async def lookup(caller: Caller, pace: Pace, names: Names) -> None:
    """Ask for one name; MessageError when the answer is not what `names` says."""
    name = pace.rng.choice(sorted(names))
    expected = names[name]
    if pace.rng.random() < UNKNOWN_CHANCE:
        name += ".cluster.local"
        expected = ("", "")
    qtype = pace.rng.choice((A, AAAA))
    query = Query(pace.rng.getrandbits(16), name, qtype)
    caller.forget()
    caller.send(encode_query(query))
    async with asyncio.timeout(ANSWER_S):
        answer = decode_answer(await caller.receive())
    wanted = expected[qtype == AAAA]
    if answer.ident != query.ident or answer.addresses != ((wanted,) if wanted else ()):
        raise MessageError(f"a wrong answer for {name}")


def respond(message: bytes, names: Names) -> bytes:
    """The answer to one datagram; empty where even the header cannot be read."""
    try:
        query = decode_query(message)
    except MessageError:
        if len(message) < 2:
            return b""
        return message[:2] + bytes((0x80, FORMAT_ERROR)) + bytes(8)
    addresses = names.get(query.name)
    if addresses is None:
        return encode_answer(query, (), NAME_ERROR)
    if query.qtype not in {A, AAAA}:
        return encode_answer(query, ())
    return encode_answer(query, (addresses[query.qtype == AAAA],))
