"""A small key-value store that speaks RESP, the protocol of Redis: many tiny requests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from services.launcher.demo import tcp
from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Tally
from services.launcher.demo.tcp import Wire, WireError

MAX_ENTRIES: Final = 256
MAX_ARGUMENTS: Final = 8
KEYS: Final = 400  # more than entries: so there are misses, and a miss is followed by a SET
_MISSING: Final = -1


class Store:
    """A bounded number of values by key."""

    def __init__(self) -> None:
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> bytes | None:
        """The value, which counts as used now."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep the value; the least recently used one goes when there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > MAX_ENTRIES:
            self._values.popitem(last=False)


async def serve(plan: Serve, tally: Tally) -> None:
    """Answer GET and SET; any other command gets an error reply."""
    store = Store()

    async def answer(wire: Wire) -> None:
        while True:
            async with asyncio.timeout(tcp.IDLE_S):
                command = await _command(wire)
                if command is None:
                    return
                await wire.send(*_reply(store, command))

    await tcp.serve(plan, tally, answer)


async def talk(plan: Talk, pace: Pace, tally: Tally) -> None:
    """Look keys up, a few of them often, until cancelled."""

    async def visit(wire: Wire, talk: Talk, pace: Pace) -> None:
        await tcp.exchanges(wire, talk, pace, exchange)

    await tcp.keep_visiting(plan, pace, tally, visit)


async def exchange(wire: Wire, size: int, pace: Pace) -> None:
    """GET a key; when it is not there, SET it to `size` bytes."""
    key = b"item:%d" % int(pace.rng.paretovariate(0.6) % KEYS)
    await wire.send(_array(b"GET", key))
    length = _number(await wire.line(), b"$")
    if length != _MISSING:
        await wire.skip(length + 2)
        return
    await wire.send(_array(b"SET", key, bytes(tcp.body(min(size, tcp.LARGEST_BODY)))))
    if await wire.line() != b"+OK":
        raise WireError("SET was not answered with OK")


def _reply(store: Store, command: list[bytes]) -> tuple[bytes, ...]:
    match command:
        case [b"GET", key]:
            value = store.get(key)
            return (b"$-1\r\n",) if value is None else (b"$%d\r\n" % len(value), value, b"\r\n")
        case [b"SET", key, value]:
            store.put(key, value)
            return (b"+OK\r\n",)
        case _:
            return (b"-ERR unknown command\r\n",)


async def _command(wire: Wire) -> list[bytes] | None:
    """One array of bulk strings; None at the end of the stream."""
    line = await wire.line()
    if not line:
        return None
    count = _number(line, b"*")
    if not 1 <= count <= MAX_ARGUMENTS:
        raise WireError(f"a command of {count} words")
    words = []
    for _ in range(count):
        length = _number(await wire.line(), b"$")
        if not 0 <= length <= tcp.LARGEST_BODY:
            raise WireError(f"a word of {length} bytes")
        words.append((await wire.exactly(length + 2))[:-2])
    return words


def _number(line: bytes, mark: bytes) -> int:
    digits = line.removeprefix(mark)
    try:
        if digits != line:
            return int(digits)
    except ValueError:
        pass
    raise WireError(f"expected {mark!r} with a number, not {line[:40]!r}")


def _array(*words: bytes) -> bytes:
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%s" % (len(words), parts)
