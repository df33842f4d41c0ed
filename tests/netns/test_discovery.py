from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address

import pytest

from services.capture import interfaces, netlink
from services.capture.interfaces import Link, LinkChange, LinkMonitor, Selection
from services.capture.links import NodeAddress, Route
from services.runtime.errors import PodloxxError, UsageError
from tests.support import generators as frames
from tests.support.following import AUTOMATIC, following, pair, within
from tests.support.limits import no_more_files
from tests.support.netns import Namespace, namespaces, veth
from tests.support.wait import until


@pytest.fixture
def node_and_pod() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces("node", "pod") as (node, pod):
        yield node, pod


# --- What is there


def test_pods_are_found_and_nothing_else(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    with namespaces("outside") as (outside,):
        node.ip(
            pair("cali1", pod),
            pair("lxc_health", pod),
            "link add both0 type veth peer name both1",
            "link add cni0 type bridge",
            "link add vx0 type vxlan id 7 dstport 4789",
            pair("eth0", outside),
            pair("eth1", outside),
            "addr add 172.18.0.2/16 dev eth0",
            "addr add 172.19.0.2/16 dev eth1",
            "addr add 10.1.0.1/32 dev cali1",
            "addr add fd01::1/128 dev cali1 nodad",
            "link set eth0 up",
            "link set cali1 up",
            "route add 10.1.0.7/32 dev cali1",
            "route add fd01::7/128 dev cali1",
            "route add default via 172.18.0.1",
        )

        async def scenario() -> tuple[Link, ...]:
            async with LinkMonitor(AUTOMATIC) as monitor:
                return monitor.links()

        (found,) = within(node, scenario)
    assert (found.name, found.kind, found.pod_side, found.up) == ("cali1", "veth", False, True)
    assert found.peer_netns is not None
    assert set(found.addresses) == {ip_address("10.1.0.7"), ip_address("fd01::7")}


def test_routes_are_read_with_all_their_next_hops(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(
        pair("a0", pod, options="index 100"),
        pair("b0", pod, options="index 101"),
        "link set a0 up",
        "link set b0 up",
        "addr add 10.1.0.1/24 dev a0",
        "addr add fd01::1/64 dev a0 nodad",
        "addr add 10.2.0.1/32 dev b0",
        "route add default nexthop via 10.1.0.2 dev a0 nexthop dev b0",
        "route add default via 10.1.0.3 table 100",
        "route add 10.77.0.0/16 via inet6 fd01::2 dev a0",
        "route add 10.78.0.1/32 dev b0",
        "route add unreachable 10.79.0.1/32",
    )
    routes = set(within(node, netlink.read_routes))
    assert routes >= {
        Route(100, via=True, default=True),
        Route(101, default=True),
        Route(100, via=True),
        Route(101, host=ip_address("10.78.0.1")),
    }
    assert not any(route.host in {ip_address("10.79.0.1"), ip_address("10.1.0.1")} for route in routes)
    addresses = set(within(node, netlink.read_addresses))
    assert addresses >= {
        NodeAddress(100, ip_address("10.1.0.1"), alone=False),
        NodeAddress(100, ip_address("fd01::1"), alone=False),
        NodeAddress(101, ip_address("10.2.0.1"), alone=True),
    }


def test_a_table_of_the_whole_internet_is_not_read_to_its_end(
    node_and_pod: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, pod = node_and_pod
    node.ip(
        pair("a0", pod), "link set a0 up", *(f"route add 10.5.{at // 250}.{at % 250}/32 dev a0" for at in range(3000))
    )
    monkeypatch.setattr(netlink, "_MAX_ROUTES", 1000)
    assert len(within(node, netlink.read_routes)) <= 2000


def test_an_unknown_name_is_refused_at_once(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(pair("eth0", pod))

    async def scenario() -> None:
        async with LinkMonitor(Selection.parse("", "eth0,eth9")):
            raise AssertionError("entered")

    with pytest.raises(UsageError, match=r"there is no interface eth9 here; there are eth0, lo"):
        within(node, scenario)


def test_that_interfaces_cannot_be_read_is_told(node_and_pod: tuple[Namespace, Namespace]) -> None:
    async def scenario() -> None:
        async with LinkMonitor(AUTOMATIC) as monitor:
            with no_more_files(), pytest.raises(PodloxxError, match="cannot read this machine's network interfaces"):
                await monitor.counters()

    within(node_and_pod[0], scenario)


# --- What changes


def test_links_that_come_and_go_are_told_at_once(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(pair("veth0", pod))

    async def scenario() -> None:
        async with following() as seen:
            await until(lambda: seen.added() == ["veth0"], "the first is told")
            for name in ("veth1", "veth2"):
                node.ip(pair(name, pod))
                await until(partial(seen.has_added, name), f"{name} is told", 5.0)
            node.ip("link del veth0")
            await until(lambda: seen.removed() == ["veth0"], "its end is told", 5.0)
            assert seen.names() == ["veth1", "veth2"]
            assert len(await seen.monitor.counters()) == 2

    within(node, scenario)


def test_a_burst_of_300_links_made_and_deleted_is_told_in_full(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    made = [f"veth{at}" for at in range(300)]

    async def scenario() -> None:
        async with following() as seen:
            commands = [pair(name, pod) for name in made] + [f"link del {name}" for name in made]
            await asyncio.to_thread(node.ip, *commands)
            await until(lambda: len(seen.removed()) == len(made), "all ends are told")
            assert Counter(seen.added()) == Counter(made)
            assert Counter(seen.removed()) == Counter(made)
            assert_consistent(seen.told)
            assert len(seen.told) < 100, "changes that cut windows come in a bounded number"

    within(node, scenario)


def assert_consistent(told: list[LinkChange]) -> None:
    """Removed is only what is there, and added only what is not."""
    there: set[int] = set()
    for change in told:
        gone = {link.index for link in change.removed}
        assert gone <= there
        there -= gone
        come = {link.index for link in change.added}
        assert not come & there
        there |= come


def test_a_link_that_came_and_went_in_one_burst_is_told_twice(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod

    async def scenario() -> None:
        async with following() as seen:
            # The event loop stands still meanwhile, so all of it is one burst.
            node.ip(pair("veth1", pod), pair("veth2", pod), "link del veth1", pair("veth3", pod))
            await until(lambda: "veth3" in seen.added(), "the last is told")
            assert sorted(seen.added()) == ["veth1", "veth2", "veth3"]
            assert seen.removed() == ["veth1"]
            assert_consistent(seen.told)

    within(node, scenario)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("veth7", "index 77"), ("veth7", "index 77")),
        (("veth7", "index 77"), ("veth7", "index 78")),
        (("veth7", "index 77"), ("veth8", "index 77")),
    ],
    ids=["same index and name", "same name", "same index"],
)
@pytest.mark.parametrize("lost", [False, True], ids=["events arrive", "events are lost"])
def test_a_link_made_again_is_another_link(
    node_and_pod: tuple[Namespace, Namespace],
    monkeypatch: pytest.MonkeyPatch,
    first: tuple[str, str],
    second: tuple[str, str],
    *,
    lost: bool,
) -> None:
    node, pod = node_and_pod
    node.ip(pair(first[0], pod, options=first[1]))
    if lost:
        monkeypatch.setattr(interfaces, "_MAX_EVENTS", 2)

    async def scenario() -> None:
        async with following() as seen:
            await until(lambda: len(seen.told) == 1, "the first is told")
            node.ip(f"link del {first[0]}", pair(second[0], pod, options=second[1]))
            await until(lambda: seen.added() == [first[0], second[0]], "the second is told")
            assert seen.removed() == [first[0]]
            assert seen.told[1].removed[0].name == first[0]
            assert_consistent(seen.told)

    within(node, scenario)


def test_what_the_kernel_had_no_room_to_tell_is_found_by_looking(
    node_and_pod: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, pod = node_and_pod
    monkeypatch.setattr(netlink, "_EVENT_BUFFER_BYTES", 4096)
    lost = []
    monkeypatch.setattr(interfaces._log, "warning", lambda event, **_: lost.append(event))
    before, after = [f"veth{at}" for at in range(50)], [f"azv{at}" for at in range(50)]
    node.ip(*(pair(name, pod) for name in before))

    async def scenario() -> None:
        async with following() as seen:
            await until(lambda: len(seen.added()) == 50, "the first ones are told")
            node.ip(*(f"link del {name}" for name in before[:25]), *(pair(name, pod) for name in after))
            await until(lambda: sorted(seen.names()) == sorted(before[25:] + after), "all are known")
            assert sorted(seen.removed()) == sorted(before[:25])
            assert_consistent(seen.told)
        assert "link-events-lost" in lost

    within(node, scenario)


def test_a_link_whose_other_end_moves_to_a_pod_later_is_found(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod

    async def scenario() -> None:
        async with following() as seen:
            node.ip("link add veth1 type veth peer name tmp1", "link set veth1 up")
            node.ip(f"link set tmp1 netns {pod.name}")
            pod.ip("link set tmp1 up")
            await until(lambda: seen.added() == ["veth1"], "it is told")

    within(node, scenario)


def test_a_link_that_leaves_for_another_namespace_is_gone(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(pair("veth1", pod))

    async def scenario() -> None:
        async with following() as seen:
            await until(lambda: seen.added() == ["veth1"], "it is told")
            node.ip(f"link set veth1 netns {pod.name}")
            await until(lambda: seen.removed() == ["veth1"], "its end is told")

    within(node, scenario)


def test_joining_and_leaving_a_bridge_changes_nothing(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip("link add cni0 type bridge", pair("veth1", pod))

    async def scenario() -> None:
        async with following() as seen:
            node.ip("link set veth1 master cni0", "link set veth1 nomaster", "link set veth1 up", "link set veth1 down")
            node.ip(pair("veth2", pod))
            await until(lambda: seen.added() == ["veth1", "veth2"], "a later event is told")
            assert not seen.removed()

    within(node, scenario)


def test_a_link_with_another_name_is_told_as_another_link(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(pair("veth1", pod), pair("tmp2", pod))

    async def scenario() -> None:
        async with following(Selection.parse("veth", "")) as seen:
            await until(lambda: seen.added() == ["veth1"], "the first is told")
            node.ip("link set veth1 name veth9")
            await until(lambda: seen.names() == ["veth9"], "its new name is told")
            node.ip("link set tmp2 name veth2")
            await until(lambda: seen.names() == ["veth9", "veth2"], "it came by its new name")
            node.ip("link set veth9 name tmp9")
            await until(lambda: seen.names() == ["veth2"], "it went by its new name")
            assert seen.removed() == ["veth1", "veth9"]
            assert_consistent(seen.told)

    within(node, scenario)


def test_a_named_link_may_come_back(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(pair("eth7", pod))

    async def scenario() -> None:
        async with following(Selection.parse("", "eth7")) as seen:
            node.ip("link del eth7")
            await until(lambda: seen.removed() == ["eth7"], "its end is told")
            node.ip(pair("eth7", pod))
            await until(lambda: seen.added() == ["eth7", "eth7"], "its return is told")

    within(node, scenario)


# --- What the kernel does not tell


def test_addresses_of_pods_that_come_later_are_read_again(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(pair("cali1", pod), "link set cali1 up")

    async def scenario() -> None:
        async with following(refresh_s=0.05) as seen:
            node.ip("route add 10.1.0.7/32 dev cali1")
            await until(lambda: seen.monitor.links()[0].addresses == (ip_address("10.1.0.7"),), "it is known")
            assert len(seen.told) == 1, "the link did not change"

    within(node, scenario)


def test_a_link_that_turns_out_to_be_an_uplink_is_given_up(node_and_pod: tuple[Namespace, Namespace]) -> None:
    node, pod = node_and_pod
    node.ip(pair("eth0", pod), "link set eth0 up")

    async def scenario() -> None:
        async with following(refresh_s=0.05) as seen:
            await until(lambda: seen.added() == ["eth0"], "it looks like a pod's")
            node.ip("addr add 172.18.0.2/16 dev eth0", "route add default via 172.18.0.1")
            await until(lambda: seen.removed() == ["eth0"], "it is given up")

    within(node, scenario)


# --- Counters


@pytest.mark.parametrize("own", [False, True], ids=["host side", "own side"])
def test_counters_are_the_kernels_from_the_pods_view(node_and_pod: tuple[Namespace, Namespace], *, own: bool) -> None:
    node, pod = node_and_pod
    index = veth(node, "veth0", pod)
    frames.inject(pod, "eth0", [frames.ethernet(0x88B5, bytes(50))] * 7)
    frames.inject(node, "veth0", [frames.ethernet(0x88B5, bytes(60))] * 5)
    where, name = (pod, "eth0") if own else (node, "veth0")
    index = where.index(name)

    async def scenario() -> None:
        # A default route makes the pod's eth0 an uplink: its own traffic is meant.
        if own:
            pod.ip("route add default dev eth0")
        async with LinkMonitor(Selection.parse("", name)) as monitor:
            assert monitor.links()[0].pod_side is own
            counters = (await monitor.counters())[index]
            assert (counters.tx_packets, counters.tx_bytes) == (7, 7 * 64)
            assert (counters.rx_packets, counters.rx_bytes) == (5, 5 * 74)

    within(where, scenario)
