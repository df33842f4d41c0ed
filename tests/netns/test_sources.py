from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from services.capture.links import Link
from services.capture.sources.socket import SocketSource
from services.runtime.errors import PodloxxError, PrivilegeError
from tests.support import generators as frames
from tests.support.limits import no_more_files
from tests.support.netns import Namespace, veth
from tests.support.tap import IFF_TUN, VNET_BYTES, fragmentation_offload, tap_device
from tests.support.wait import until
from tests.support.watch import HOST, HOST6, POD, POD6, Watch, opened, peers, watching

DATAGRAM = frames.udp_datagram(1111, 2222, bytes(100))
IPV4_UDP = frames.ipv4(POD, HOST, frames.UDP, DATAGRAM)
IPV6_UDP = frames.ipv6(POD6, HOST6, frames.UDP, DATAGRAM)
NOT_IP = frames.ethernet(0x88B5, bytes(50))


# --- Loss


async def test_what_the_kernel_drops_is_reported_to_the_packet(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    flood = [frames.ethernet(0x0800, IPV4_UDP)] * 5000
    async with opened(receive_buffer_bytes=64 << 10) as source, watching(node, "veth0", source=source) as watch:
        # Nobody reads meanwhile, as this does not yield to the event loop.
        sent = frames.inject(pod, "eth0", flood)
        await watch.settled()
    assert watch.loss.keys() == {"kernel-drop"}
    rows = watch.rows[watch.rows["protocol"] == frames.UDP]
    assert 0 < rows["packets"].sum() < sent.packets
    assert rows["bytes"].sum() == rows["packets"].sum() * len(flood[0])
    seen = watch.tx.packets + watch.rx.packets
    assert seen + watch.loss["kernel-drop"] == watch.counted.rx_packets + watch.counted.tx_packets
    assert watch.counted.rx_packets >= sent.packets


async def test_a_super_packet_that_waits_takes_little_room(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    async with opened(receive_buffer_bytes=1 << 20) as source, watching(node, "veth0", source=source) as watch:
        # 20 MB pass unread by; without its pages being given back, 2 MB of buffer would hold 30
        # super-packets.
        frames.tcp(pod, node, HOST, 5001, size=20 << 20)
        await watch.settled()
    watch.assert_exact()


async def test_a_segmentation_that_has_no_number_costs_one_frame_and_is_reported(
    pair: tuple[Namespace, Namespace],
) -> None:
    node, _ = pair
    with tap_device(node, "tap0") as tap:
        async with watching(node, "tap0") as watch:
            # IP fragmentation offload is the one such kind that can be made without a driver.
            for _ in range(3):
                os.write(
                    tap,
                    fragmentation_offload(1480, 34)
                    + frames.ethernet(0x0800, frames.ipv4(POD, HOST, 17, frames.udp_datagram(1111, 2222, bytes(3000)))),
                )
            await watch.settled()
            assert watch.loss == {"unknown-segmentation": 1}
            os.write(tap, bytes(VNET_BYTES) + frames.ethernet(0x0800, IPV4_UDP))
            await watch.settled()
    assert watch.tx.packets == 3
    assert watch.tx.segments == 3
    assert watch.tx.link_bytes == 2 * (42 + 3000) + (42 + 100)


# --- Which frames


async def test_no_frame_of_another_link_is_counted(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    veth(node, "veth1", pod, pod_name="eth1")
    stop = threading.Event()

    def chatter() -> None:
        while not stop.is_set():
            frames.inject(pod, "eth0", [NOT_IP] * 100)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        async with opened() as source:
            for attachment in range(1, 20):
                with node.entered():
                    await source.attach(Link(node.index("veth1"), "veth1"), attachment)
                await source.detach(attachment)
            drained = await source.drain()
    finally:
        stop.set()
        thread.join()
    assert len(drained.rows) == 0


async def test_each_link_is_counted_under_its_own_attachment(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    veth(node, "veth1", pod, pod_name="eth1")
    async with (
        opened() as source,
        watching(node, "veth0", source=source, attachment=10) as first,
        watching(node, "veth1", source=source, attachment=11) as second,
    ):
        frames.inject(pod, "eth0", [NOT_IP] * 3)
        frames.inject(pod, "eth1", [frames.ethernet(0x88B6, bytes(70))] * 4)
        await until(lambda: node.counters("veth1").rx_packets >= 4, "all have arrived")
        drained = await source.drain()
    rows = drained.rows[np.isin(drained.rows["peer_port"], [0x88B5, 0x88B6])]
    assert sorted(
        (int(row["attachment"]), int(row["peer_port"]), int(row["packets"]), int(row["bytes"])) for row in rows
    ) == [
        (first.attachment, 0x88B5, 3, 3 * 64),
        (second.attachment, 0x88B6, 4, 4 * 84),
    ]


async def test_a_link_may_be_looked_at_from_its_own_side(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    async with watching(pod, "eth0", pod_side=True) as watch:
        with frames.udp_sink(node, HOST, 7000):
            sent = await asyncio.to_thread(frames.udp, pod, HOST, 7000, count=10, size=100)
            await watch.settled()
    watch.assert_exact()
    rows = watch.rows[watch.rows["protocol"] == frames.UDP]
    assert rows["direction"].tolist() == [0]
    assert rows["bytes"].sum() == sent.link_bytes
    assert peers(watch) >= {(POD, HOST)}


async def test_the_addresses_of_senders_are_told(pair: tuple[Namespace, Namespace], watch: Watch) -> None:
    _, pod = pair
    sources = [POD, "0.0.0.0", "127.0.0.1", "169.254.7.7"]
    frames.inject(pod, "eth0", [frames.ethernet(0x0800, frames.ipv4(one, HOST, 17, DATAGRAM)) for one in sources])
    frames.inject(pod, "eth0", [frames.ethernet(0x86DD, IPV6_UDP)])
    frames.inject(watch.namespace, "veth0", [frames.ethernet(0x0800, frames.ipv4("10.9.0.77", POD, 17, DATAGRAM))])
    await watch.settled()
    assert watch.senders - {ip_address("::")} == {ip_address(POD), ip_address(POD6)}


async def test_a_pod_that_forges_addresses_keeps_its_own(pair: tuple[Namespace, Namespace], watch: Watch) -> None:
    forged = [frames.ethernet(0x0800, frames.ipv4(f"10.66.0.{n}", HOST, 17, DATAGRAM)) for n in range(200)]
    frames.inject(pair[1], "eth0", [*forged, *[frames.ethernet(0x0800, IPV4_UDP)] * 2])
    await watch.settled()
    assert ip_address(POD) in watch.senders
    assert len(watch.senders) == 16


async def test_a_link_without_link_headers_is_plain_ip(pair: tuple[Namespace, Namespace]) -> None:
    node, _ = pair
    with tap_device(node, "tun0", mode=IFF_TUN) as tun:
        async with watching(node, "tun0") as watch:
            os.write(tun, bytes(VNET_BYTES) + IPV4_UDP)
            os.write(tun, bytes(VNET_BYTES) + IPV6_UDP)
            await watch.settled()
    watch.assert_exact()
    assert peers(watch) >= {(POD, HOST), (POD6, HOST6)}


# --- Links that come and go


async def test_a_link_that_vanishes_under_traffic_leaves_its_counts(
    pair: tuple[Namespace, Namespace], watch: Watch
) -> None:
    node, pod = pair
    sent = frames.inject(pod, "eth0", [NOT_IP] * 300)
    counted = node.counters("veth0") - watch.before
    pod.ip("link del eth0")
    await until(lambda: "veth0" not in node.links(), "the link is gone")
    await watch.source.detach(watch.attachment)
    await watch.drain()
    assert watch.tx.packets == counted.rx_packets >= sent.packets
    assert watch.tx.link_bytes == counted.rx_bytes
    assert not watch.loss


async def test_what_arrived_before_a_detach_is_counted_by_the_next_drain(
    pair: tuple[Namespace, Namespace], watch: Watch
) -> None:
    sent = frames.inject(pair[1], "eth0", [NOT_IP] * 2000)
    await watch.source.detach(watch.attachment)
    frames.inject(pair[1], "eth0", [NOT_IP] * 10)
    await watch.drain()
    rows = watch.rows[watch.rows["peer_port"] == 0x88B5]
    assert (rows["packets"].sum(), rows["bytes"].sum()) == (sent.packets, sent.link_bytes)
    await watch.drain()
    assert watch.rows[watch.rows["peer_port"] == 0x88B5]["packets"].sum() == sent.packets


async def test_a_link_that_goes_down_and_up_again_is_counted_on(
    pair: tuple[Namespace, Namespace], watch: Watch
) -> None:
    node, pod = pair
    for _ in range(3):
        node.ip("link set veth0 down", "link set veth0 up")
        await until(lambda: "LOWER_UP" in node.run("ip", "link", "show", "dev", "veth0"), "a carrier")
        frames.inject(pod, "eth0", [NOT_IP] * 5)
        await watch.settled()
    watch.assert_exact()
    assert watch.rows[watch.rows["peer_port"] == 0x88B5]["packets"].sum() == 15


async def test_a_link_may_be_attached_before_it_is_up(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    node.ip("link set veth0 down")
    async with watching(node, "veth0") as watch:
        node.ip("link set veth0 up")
        await until(lambda: "LOWER_UP" in node.run("ip", "link", "show", "dev", "veth0"), "a carrier")
        frames.inject(pod, "eth0", [NOT_IP] * 5)
        await watch.settled()
    watch.assert_exact()
    assert watch.tx.packets >= 5


async def test_an_index_that_is_used_again_is_another_attachment(pair: tuple[Namespace, Namespace]) -> None:
    node, pod = pair
    seen = []
    async with opened() as source:
        for attachment in range(1, 6):
            veth(node, "veth7", pod, pod_name="eth7", options="index 777")
            async with watching(node, "veth7", source=source, attachment=attachment) as watch:
                frames.inject(pod, "eth7", [NOT_IP] * attachment)
                await watch.settled()
            node.ip("link del veth7")
            await source.detach(attachment)
            seen.append(int(watch.rows[watch.rows["peer_port"] == 0x88B5]["packets"].sum()))
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("link", [Link(9999, "gone0"), Link(9999, "veth0")], ids=["name", "index"])
async def test_attaching_to_a_link_that_is_gone_says_so(pair: tuple[Namespace, Namespace], link: Link) -> None:
    async with opened() as source:
        with pair[0].entered(), pytest.raises(OSError, check=lambda error: error.errno == errno.ENODEV):
            await source.attach(link, 1)
        assert len((await source.drain()).rows) == 0


async def test_nothing_is_left_open(pair: tuple[Namespace, Namespace]) -> None:
    node, _ = pair
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = SocketSource(1000)
    for attachment in range(30):
        with node.entered():
            await source.attach(Link(node.index("veth0"), "veth0"), attachment)
    for attachment in range(20):
        await source.detach(attachment)
    await source.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- What is missing


def test_without_the_capability_it_says_which() -> None:
    code = "from services.capture.sources.socket import SocketSource; SocketSource(10)"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr.splitlines()[-1].startswith("services.runtime.errors.PrivilegeError: capturing needs the")
    assert "CAP_NET_RAW" in done.stderr


async def test_running_out_of_files_is_told(pair: tuple[Namespace, Namespace]) -> None:
    node, _ = pair
    link = Link(node.index("veth0"), "veth0")
    async with opened() as source:
        with node.entered(), no_more_files(), pytest.raises(PrivilegeError, match=r"ulimit -n"):
            await source.attach(link, 1)
        with node.entered():
            await source.attach(link, 1)


async def test_a_link_type_that_cannot_be_read_is_refused(pair: tuple[Namespace, Namespace]) -> None:
    node, _ = pair
    with tap_device(node, "tun0", mode=IFF_TUN, hardware=512):
        async with opened() as source:
            with node.entered(), pytest.raises(PodloxxError, match=r"tun0: its link type \(ARPHRD 512\)"):
                await source.attach(Link(node.index("tun0"), "tun0"), 1)


@pytest.mark.parametrize("watch", ["socket"], indirect=True)
async def test_a_socket_that_cannot_be_read_is_an_error(pair: tuple[Namespace, Namespace], watch: Watch) -> None:
    tap = watch.source._taps[watch.attachment]
    tap.socket = Broken(tap.socket)
    frames.inject(pair[1], "eth0", [NOT_IP])
    with pytest.raises(PodloxxError, match=r"cannot read the packets of veth0: .*Input/output error"):
        await watch.drain()
    await watch.source.detach(watch.attachment)


class Broken(socket.socket):
    """The same socket, of which nothing can be read."""

    def __init__(self, whole: socket.socket) -> None:
        super().__init__(fileno=whole.detach())

    def recvmsg_into(self, *_: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_without_the_right_to_large_buffers_it_says_so_and_goes_on(pair: tuple[Namespace, Namespace]) -> None:
    code = """
import asyncio
from services.capture.links import Link
from services.capture.sources.socket import SocketSource

async def main():
    source = SocketSource(10, receive_buffer_bytes=1 << 29)
    await source.attach(Link(1, "lo"), 1)
    await source.attach(Link(1, "lo"), 2)
    await source.close()
    print("done")

asyncio.run(main())
"""
    output = pair[0].run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", code)
    assert output.count("small-receive-buffer") == 1
    assert "net.core.rmem_max" in output
    assert output.endswith("done\n")
