"""Servers and clients of the demo's pods on loopback, in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Coroutine

from services.launcher.demo.load import Pace
from services.launcher.demo.tally import Side, Tally

LOOPBACKS = ("127.0.0.1", "::1")
_GIVEN: set[int] = set()


def free_port(address: str) -> int:
    """A port that neither TCP nor UDP uses on `address` right now.

    Below the kernel's own choices, so that no client takes it before the server does. None is given twice.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        if port in _GIVEN:
            continue
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((address, port))
                udp.bind((address, port))
            except OSError:
                continue
            _GIVEN.add(port)
            return port


def pace(seed: int = 1, name: str = "test") -> Pace:
    return Pace(seed, name, time.monotonic(), time.monotonic)


def total(tally: Tally, side: Side) -> tuple[int, int]:
    """All (sent, received) bytes of one side."""
    rows = [row for key, row in tally.rows() if key.side == side]
    return sum(row.tx_bytes for row in rows), sum(row.rx_bytes for row in rows)


@contextlib.asynccontextmanager
async def background(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `works` for the time of the block; their errors are the test's."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def say(address: str, port: int, *blocks: bytes) -> bytes:
    """Send `blocks` over TCP, end the sending, return all that comes back."""
    async with asyncio.timeout(5):
        while True:
            try:
                reader, writer = await asyncio.open_connection(address, port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0)  # the server's task has not come to its turn yet
        try:
            for block in blocks:
                writer.write(block)
            writer.write_eof()
            return await reader.read()
        finally:
            writer.close()
