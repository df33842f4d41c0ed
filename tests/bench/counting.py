"""One source on one interface, drained once a second until SIGTERM; then the packets seen and what was lost, as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys

from services.capture.links import Link
from services.capture.sources.choice import opened


async def main(name: str, interface: str, capacity: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    source = opened(name, capacity)
    await source.attach(Link(socket.if_nametoindex(interface), interface), 1)
    print("ready", flush=True)
    packets = lost = 0
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        drained = await source.drain()
        packets += int(drained.rows["packets"].sum())
        lost += sum(drained.loss.values())
    await source.close()
    print(json.dumps({"packets": packets, "lost": lost}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
