"""Every source gives the same flow deltas for the same traffic."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from services.capture.fold import Folder
from services.flows.delta import COUNTERS, FLOW_KEY
from tests.netns.test_sources_exact import SINGLE
from tests.support import generators as frames
from tests.support.netns import Namespace
from tests.support.watch import HOST, HOST6, OF_LINKS, POD, Watch, watching

_ICMP6 = 58
_ALL_OF_THE_LINK = 0xFF02 << 48


async def test_all_sources_tell_the_same(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(watching(node, "veth0", kind=kind)) for kind in OF_LINKS]
        await asyncio.to_thread(talk, node, pod)
        for watch in watches:
            await watch.settled()
            watch.assert_exact()
        told = {watch.source.name: await _deltas(watch) for watch in watches}
    first = told["socket"]
    assert len(first) > 25
    for name, deltas in told.items():
        assert deltas == first, name


async def _deltas(watch: Watch) -> list[tuple[object, ...]]:
    # All that arrived while the others were settled is drained by the last look alone.
    await watch.settled()
    flows = Folder(10_000).fold(watch.rows)
    # IPv6 looks round whenever it likes: some sources were attached in time, others were not.
    groups = (flows["peer_hi"] == _ALL_OF_THE_LINK) | (flows["local_hi"] == _ALL_OF_THE_LINK)
    flows = flows[(flows["protocol"] != _ICMP6) | ~groups]
    names = [*(FLOW_KEY.names or ()), *COUNTERS]
    return sorted(tuple(int(row[name]) for name in names) for row in flows)


def talk(node: Namespace, pod: Namespace) -> None:
    """Frames of every sort in both directions, and real connections."""
    every = [frame for _, frame, *_ in SINGLE]
    frames.inject(pod, "eth0", every * 3)
    frames.inject(node, "veth0", every * 2)
    packet = frames.ipv4(POD, HOST, frames.TCP, frames.tcp_segment(1111, 2222, bytes(9500)))
    for where, name in ((pod, "eth0"), (node, "veth0")):
        frames.inject_segmented(where, name, frames.ethernet(0x0800, packet), transport_at=34, size=1000)
    for target in (HOST, HOST6):
        frames.tcp(pod, node, target, 7001, size=3_000_000)
        with frames.udp_sink(node, target, 7000):
            frames.udp(pod, target, 7000, count=500, size=333, source_port=40000)
            frames.udp_segmented(pod, target, 7000, count=10, segments=31, size=1200)
