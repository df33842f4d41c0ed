"""Counting in the kernel while everything moves: traffic both ways, drains, interfaces that vanish, indexes used again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from services.capture import netlink
from tests.support import generators as frames
from tests.support.netns import Namespace, veth
from tests.support.wait import until
from tests.support.watch import HOST, HOST6, POD, POD6, opened, watching

IN_KERNEL = pytest.mark.parametrize("kind", ["ebpf", "tcx"])
INDEX = 777
SIZE = 92
"""Bytes of every frame, of both families, so that packets and bytes tell each other."""
LIVES = 6


def flood_of(source: str, target: str, source6: str, target6: str) -> list[bytes]:
    """Frames of equal size and of many flows of both families."""
    made = []
    for port in range(1000, 1200):
        made.append(
            frames.ethernet(0x0800, frames.ipv4(source, target, 17, frames.udp_datagram(port, 53, bytes(SIZE - 42))))
        )
        made.append(
            frames.ethernet(0x86DD, frames.ipv6(source6, target6, 17, frames.udp_datagram(port, 53, bytes(SIZE - 62))))
        )
    return made


FROM_POD = flood_of(POD, HOST, POD6, HOST6)
TO_POD = flood_of(HOST, POD, HOST6, POD6)


@dataclass(slots=True)
class Flood:
    """One direction's sender; it goes on until it is stopped or its interface is gone."""

    namespace: Namespace
    interface: str
    many: list[bytes]
    sent: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send rounds of all frames."""
        with contextlib.suppress(OSError):
            while not self.stopping.is_set():
                frames.inject(self.namespace, self.interface, self.many)
                self.sent += len(self.many)


@contextlib.contextmanager
def flooding(*floods: Flood) -> Iterator[None]:
    """All of them at once, in threads of their own."""
    threads = [threading.Thread(target=flood.run) for flood in floods]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for flood in floods:
            flood.stopping.set()
        for thread in threads:
            thread.join()


@dataclass(frozen=True, slots=True)
class Last:
    """What the kernel says of an interface in the event that it is gone."""

    tx_packets: int
    tx_bytes: int
    tx_dropped: int


class Ends:
    """Events of interfaces that went, in one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.call(netlink.subscribe)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def last(self, interface: str) -> Last | None:
        """What an interface had counted when it went, once; None until it is told."""
        with contextlib.suppress(BlockingIOError):
            while True:
                for message in MarshalRtnl().parse(self._socket.recv(1 << 20)):
                    if message["event"] == "RTM_DELLINK" and message.get_attr("IFLA_IFNAME") == interface:
                        stats = message.get_attr("IFLA_STATS64")
                        return Last(stats["tx_packets"], stats["tx_bytes"], stats["tx_dropped"])
        return None


@IN_KERNEL
async def test_draining_beside_traffic_both_ways_loses_nothing(quiet: tuple[Namespace, Namespace], kind: str) -> None:
    node, pod = quiet
    floods = Flood(pod, "eth0", FROM_POD), Flood(node, "veth0", TO_POD)
    async with opened(kind=kind) as source, watching(node, "veth0", source=source) as watch:
        with flooding(*floods):
            drains = 0
            while drains < 40 or min(flood.sent for flood in floods) < 2000:
                await watch.drain()
                drains += 1
        await watch.settled()
        watch.assert_exact()
    assert (watch.tx.packets, watch.rx.packets) == (floods[0].sent, floods[1].sent)


@IN_KERNEL
async def test_interfaces_that_vanish_under_load_leave_exact_counts_and_their_index(
    quiet: tuple[Namespace, Namespace], kind: str
) -> None:
    node, pod = quiet
    in_node, in_pod = Ends(node), Ends(pod)
    try:
        async with opened(kind=kind) as source:
            for attachment in range(1, LIVES + 1):
                # The same index and name each time.
                veth(node, "veth7", pod, pod_name="eth7", options=f"index {INDEX}")
                async with watching(node, "veth7", source=source, attachment=attachment) as watch:
                    floods = Flood(pod, "eth7", FROM_POD), Flood(node, "veth7", TO_POD)
                    with flooding(*floods):
                        await until(
                            lambda floods=floods: min(flood.sent for flood in floods) > 400, "both directions flow"
                        )
                        for _ in range(attachment):
                            await watch.drain()
                        node.ip("link del veth7")
                    await source.detach(attachment)
                    await watch.drain()
                theirs, ours = in_pod.last("eth7"), in_node.last("veth7")
                assert theirs is not None
                assert ours is not None
                # A link forgets what it received together with its other end, which knows what it sent.
                assert (watch.tx.packets, watch.tx.link_bytes) == (theirs.tx_packets, theirs.tx_bytes)
                # What finds the other end gone is dropped behind the hooks that count.
                assert watch.rx.packets == ours.tx_packets + ours.tx_dropped
                assert watch.rx.link_bytes == ours.tx_bytes + ours.tx_dropped * SIZE
                assert not watch.loss
            assert len((await source.drain()).rows) == 0
    finally:
        in_node.close()
        in_pod.close()
