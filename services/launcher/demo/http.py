"""HTTP/1.1 between the demo's pods: kept-alive connections, bodies of varying size."""

from __future__ import annotations

import asyncio
from typing import Final

from services.launcher.demo import tcp
from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Tally
from services.launcher.demo.tcp import Wire, WireError

MAX_HEADERS: Final = 64
UPLOAD_CHANCE: Final = 0.2  # of the requests carry a body and get a short answer
_METHODS: Final = frozenset({"GET", "POST"})


async def serve(plan: Serve, tally: Tally) -> None:
    """Answer `GET /items?bytes=N` with N bytes and `POST` with what it received."""

    async def answer(wire: Wire) -> None:
        while True:
            async with asyncio.timeout(tcp.IDLE_S):
                line = await wire.line()
                if not line:
                    return
                if not await _respond(wire, line.decode("latin-1")):
                    return

    await tcp.serve(plan, tally, answer)


async def talk(plan: Talk, pace: Pace, tally: Tally) -> None:
    """Ask `plan.target`, mostly GET, at times POST, until cancelled."""

    async def visit(wire: Wire, talk: Talk, pace: Pace) -> None:
        await tcp.exchanges(wire, talk, pace, exchange)

    await tcp.keep_visiting(plan, pace, tally, visit)


async def exchange(wire: Wire, size: int, pace: Pace) -> None:
    """One request and its whole answer; `size` is the larger body of the two."""
    size = min(size, tcp.LARGEST_BODY)
    host = f"[{wire.hosts[1]}]" if ":" in wire.hosts[1] else wire.hosts[1]
    common = f"Host: {host}\r\nUser-Agent: podloxx-demo\r\nAccept: */*\r\n"
    if pace.rng.random() < UPLOAD_CHANCE:
        head = f"POST /orders HTTP/1.1\r\n{common}Content-Length: {size}\r\n\r\n"
        await wire.send(head.encode(), tcp.body(size))
    else:
        await wire.send(f"GET /items?bytes={size} HTTP/1.1\r\n{common}\r\n".encode())
    status = await wire.line()
    if not status.startswith(b"HTTP/1.1 2"):
        raise WireError(f"unexpected status line {status[:40]!r}")
    await wire.skip(_length(await _headers(wire)))


async def _respond(wire: Wire, request_line: str) -> bool:
    """Answer one request; False when the connection has to end."""
    headers = await _headers(wire)
    method, _, rest = request_line.partition(" ")
    path, _, version = rest.partition(" ")
    if method not in _METHODS or not path.startswith("/") or version != "HTTP/1.1":
        await _reply(wire, "400 Bad Request", memoryview(b"bad request\n"))
        return False
    received = _length(headers)
    await wire.skip(received)
    if method == "POST":
        receipt = f'{{"received": {received}}}\n'.encode()
        await _reply(wire, "201 Created", memoryview(receipt))
    else:
        await _reply(wire, "200 OK", tcp.body(_wanted(path)))
    return headers.get("connection", "").lower() != "close"


async def _reply(wire: Wire, status: str, body: memoryview) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nServer: podloxx-demo\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    await wire.send(head.encode(), body)


async def _headers(wire: Wire) -> dict[str, str]:
    """The header lines up to the empty one, names in lower case."""
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = (await wire.line()).decode("latin-1")
        if not line:
            return headers
        name, colon, value = line.partition(":")
        if not colon:
            raise WireError(f"not a header: {line[:40]!r}")
        headers[name.strip().lower()] = value.strip()
    raise WireError("too many headers")


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdigit() or int(text) > tcp.LARGEST_BODY:
        raise WireError(f"unusable Content-Length {text[:40]!r}")
    return int(text)


def _wanted(path: str) -> int:
    """The size that the query of `path` asks for; 0 without one."""
    _, _, text = path.partition("?bytes=")
    return min(int(text), tcp.LARGEST_BODY) if text.isascii() and text.isdigit() else 0
