"""How windows are cut around attaching and detaching."""

from __future__ import annotations

import numpy as np

from services.capture.agent import Agent
from services.capture.fold import Folder
from services.capture.links import Link, LinkChange
from services.capture.raw_flow import RAW_FLOW
from services.capture.sources import Drained
from services.flows import address
from services.flows.delta import InterfaceCounters, Window


class Ticking:
    """A clock that advances by one microsecond per reading."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic_us(self) -> int:
        self.now += 1
        return self.now


class Counted:
    """A source that counts one packet per attached link and drain; `refuse` names lost links."""

    name = "counted"

    def __init__(self) -> None:
        self.attached: list[int] = []
        self.detached: list[int] = []
        self.refuse: set[str] = set()
        self.senders: dict[int, frozenset[address.Address]] = {}

    async def attach(self, link: Link, attachment: int) -> None:
        if link.name in self.refuse:
            raise OSError(19, "No such device")
        self.attached.append(attachment)

    async def detach(self, attachment: int) -> None:
        self.detached.append(attachment)

    async def drain(self) -> Drained:
        rows = np.zeros(len(self.attached), RAW_FLOW)
        rows["attachment"], rows["bytes"] = self.attached, 100
        drained = Drained(rows, {}, self.senders)
        self.attached = [one for one in self.attached if one not in self.detached]
        return drained

    async def close(self) -> None:
        pass


def link(index: int, name: str) -> Link:
    """A pod's host-side veth."""
    return Link(index=index, name=name, kind="veth", peer_netns=1, addresses=(), up=True)


def agent() -> tuple[Agent, Counted, list[Window]]:
    """An agent over a counted source, and the windows it emits."""
    source, windows = Counted(), list[Window]()
    return Agent(source, Folder(10), Ticking(), windows.append), source, windows


async def test_a_link_is_in_every_window_from_its_attachment_on() -> None:
    one, _, windows = agent()
    await one.follow(LinkChange((link(3, "veth1"),), ()), {3: InterfaceCounters(1, 2, 3, 4)})
    await one.cut({3: InterfaceCounters(5, 6, 7, 8)})
    assert windows[0].attachments == ()
    seen = windows[1].attachments[0]
    assert (seen.interface, seen.index, seen.source) == ("veth1", 3, "counted")
    assert seen.first_counters == InterfaceCounters(1, 2, 3, 4)
    assert seen.counters == InterfaceCounters(5, 6, 7, 8)


async def test_each_window_tells_what_its_agent_had_captured_before() -> None:
    one, source, windows = agent()
    await one.follow(LinkChange((link(3, "veth1"),), ()), {3: InterfaceCounters(1, 2, 3, 4)})
    await one.cut({})
    # What is drained while another link comes counts as well.
    await one.follow(LinkChange((link(4, "veth2"),), (link(9, "veth9"),)), {})
    await one.cut({})
    told = [
        {entry.interface: entry.passed.tx_bytes + entry.passed.rx_bytes for entry in w.attachments} for w in windows
    ]
    assert told == [{}, {"veth1": 0}, {"veth1": 100}, {"veth1": 200, "veth2": 0}]
    assert len(source.attached) == 2


async def test_windows_follow_each_other_without_gap_or_overlap() -> None:
    one, _, windows = agent()
    await one.follow(LinkChange((link(3, "veth1"),), ()), {})
    await one.cut({})
    await one.follow(LinkChange((), (link(3, "veth1"),)), {})
    await one.cut({})
    assert [w.start_us for w in windows[1:]] == [w.end_us for w in windows[:-1]]


async def test_what_a_vanished_link_counted_last_comes_with_its_last_window() -> None:
    one, source, windows = agent()
    await one.follow(LinkChange((link(3, "veth1"),), ()), {})
    await one.follow(LinkChange((), (link(3, "veth1"),)), {})
    last = windows[-1]
    assert source.detached == [1]
    assert last.attachments[0].detached_us is not None
    assert last.flows["tx_bytes"].sum() == 100
    await one.cut({})
    assert windows[-1].attachments == ()


async def test_an_index_that_is_used_again_is_another_attachment() -> None:
    one, _, windows = agent()
    await one.follow(LinkChange((link(3, "veth1"),), ()), {})
    await one.follow(LinkChange((link(3, "veth2"),), (link(3, "veth1"),)), {})
    await one.cut({})
    assert [(entry.id, entry.interface) for entry in windows[-1].attachments] == [(2, "veth2")]


async def test_a_link_that_is_gone_before_it_is_attached_is_passed_over() -> None:
    one, source, windows = agent()
    source.refuse.add("veth1")
    await one.follow(LinkChange((link(3, "veth1"), link(4, "veth2")), ()), {})
    await one.cut({})
    assert [entry.interface for entry in windows[-1].attachments] == ["veth2"]


async def test_addresses_seen_from_the_pod_are_added_and_bounded() -> None:
    one, source, windows = agent()
    await one.follow(LinkChange((link(3, "veth1"),), ()), {})
    source.senders = {1: frozenset(address.parse(f"10.0.0.{at}") for at in range(100))}
    await one.cut({})
    first = windows[-1].attachments[0].addresses
    assert len(first) == 16
    source.senders = {1: frozenset({address.parse("10.9.9.9")})}
    await one.cut({})
    assert windows[-1].attachments[0].addresses == first
