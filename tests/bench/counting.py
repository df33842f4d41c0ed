"""One source on one interface, drained once a second until SIGTERM; then the packets seen and what was lost, as JSON.

For `cgroup` it is a control group's number instead of an interface.
"""

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
    link = Link(int(interface), "group") if name == "cgroup" else Link(socket.if_nametoindex(interface), interface)
    attachment = link.index if name == "cgroup" else 1
    await source.attach(link, attachment)
    print("ready", flush=True)
    packets = lost = 0
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        drained = await source.drain()
        packets += int(drained.rows["packets"][drained.rows["attachment"] == attachment].sum())
        lost += sum(drained.loss.values())
    await source.close()
    print(json.dumps({"packets": packets, "lost": lost}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
