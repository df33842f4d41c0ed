"""A database conversation in the framing of PostgreSQL: short queries, many rows back."""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from services.launcher.demo import tcp
from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Tally
from services.launcher.demo.tcp import Wire, WireError

ROW_BYTES: Final = 640
MAX_QUERY: Final = 4096
MAX_ROWS: Final = 2000
_HEAD: Final = struct.Struct("!cI")  # type, length of the rest with these four bytes
_COLUMN: Final = struct.Struct("!HI")  # one column, its length
_SELECT: Final = "SELECT id, payload FROM orders ORDER BY id LIMIT "


async def serve(plan: Serve, tally: Tally) -> None:
    """Answer each query with its rows; a query that is not known gets an error message."""

    async def answer(wire: Wire) -> None:
        while True:
            async with asyncio.timeout(tcp.IDLE_S):
                query = await _query(wire)
                if query is None:
                    return
                await wire.send(*_result(query))

    await tcp.serve(plan, tally, answer)


async def talk(plan: Talk, pace: Pace, tally: Tally) -> None:
    """Ask for rows at the plan's pace until cancelled."""

    async def visit(wire: Wire, talk: Talk, pace: Pace) -> None:
        await tcp.exchanges(wire, talk, pace, exchange)

    await tcp.keep_visiting(plan, pace, tally, visit)


async def exchange(wire: Wire, size: int, _pace: Pace) -> None:
    """One query for about `size` bytes of rows, read up to ReadyForQuery."""
    rows = max(1, min(MAX_ROWS, size // ROW_BYTES))
    await wire.send(_message(b"Q", f"{_SELECT}{rows}\0".encode()))
    seen = 0
    while True:
        kind, length = _HEAD.unpack(await wire.exactly(_HEAD.size))
        if kind == b"E":
            raise WireError("the database refused the query")
        if not 4 <= length <= tcp.LARGEST_BODY:
            raise WireError(f"a message of {length} bytes")
        await wire.skip(length - 4)
        seen += kind == b"D"
        if kind == b"Z":
            break
    if seen != rows:
        raise WireError(f"{seen} rows in place of {rows}")


def _message(kind: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(kind, len(payload) + 4) + payload


def _result(query: str) -> tuple[bytes, ...]:
    """Row description, the rows, command complete, ready; or an error and ready."""
    ready = _message(b"Z", b"I")
    limit = query.removeprefix(_SELECT)
    if limit == query or not limit.isdigit() or not 0 < int(limit) <= MAX_ROWS:
        return _message(b"E", b"SERROR\0C42601\0Msyntax error\0\0"), ready
    row = _message(b"D", _COLUMN.pack(1, ROW_BYTES) + bytes(tcp.body(ROW_BYTES)))
    description = _message(b"T", struct.pack("!H", 1) + b"payload\0" + bytes(18))
    complete = _message(b"C", f"SELECT {limit}\0".encode())
    return description, row * int(limit), complete, ready


async def _query(wire: Wire) -> str | None:
    """The text of the next simple query; None at the end of the stream."""
    try:
        kind, length = _HEAD.unpack(await wire.exactly(_HEAD.size))
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    if kind != b"Q" or not 5 <= length <= MAX_QUERY:
        raise WireError(f"a message {kind!r} of {length} bytes")
    return (await wire.exactly(length - 4)).rstrip(b"\0").decode("utf-8", "replace")
