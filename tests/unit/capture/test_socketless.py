"""What pods' own interfaces counted beyond what their sockets had."""

from __future__ import annotations

from services.capture.control_groups import Owner
from services.capture.links import Link
from services.capture.socketless import Socketless
from services.flows import address
from services.flows.address import Address
from services.flows.delta import Attachment, InterfaceCounters

WEB = Owner("web", "ab" * 32, "web-uid")
SIDECAR = Owner("sidecar", "cd" * 32, "web-uid")
API = Owner("api", "ef" * 32, "api-uid")
UNIT = Owner("ssh.service")


def counters(rx: int, tx: int = 0) -> InterfaceCounters:
    return InterfaceCounters(tx, tx // 100, rx, rx // 100)


class Sides:
    """Interfaces by index: what they counted, and the addresses behind them."""

    def __init__(self, **addresses: str) -> None:
        self.counted: dict[int, InterfaceCounters] = {}
        self.behind = {int(name[1:]): address.parse(text) for name, text in addresses.items()}
        self.asked = 0

    def links(self) -> tuple[Link, ...]:
        return tuple(Link(index, f"veth{index}", peer_netns=index) for index in self.counted)

    def own(self) -> dict[int, InterfaceCounters]:
        return dict(self.counted)

    def own_addresses(self, link: Link) -> frozenset[Address]:
        self.asked += 1
        return frozenset({self.behind[link.index]} if link.index in self.behind else ())


def points(*owners: Owner, **addresses: str) -> dict[Owner, Attachment]:
    """A point of each, numbered in turn."""
    return {
        owner: Attachment(
            number,
            owner.name,
            0,
            "cgroup",
            0,
            addresses=(address.parse(addresses[owner.name]),) if owner.name in addresses else (),
        )
        for number, owner in enumerate(owners, 1)
    }


def begun(sides: Sides | None = None) -> Socketless:
    """What interfaces counted so far is past."""
    one = Socketless(sides)
    one.begin()
    return one


def take(
    one: Socketless, known: dict[Owner, Attachment], captured: dict[int, InterfaceCounters], *gone: Owner
) -> dict[int, InterfaceCounters]:
    return one.take(known, captured, known.keys() - set(gone))


def test_what_is_on_its_way_is_never_told_and_the_rest_is_told_once() -> None:
    sides = Sides(_3="10.1.0.2")
    one = begun(sides)
    known = points(WEB, web="10.1.0.2")
    # Read now, and compared with what sockets have by the next time.
    sides.counted[3] = counters(1000)
    assert take(one, known, {1: counters(700)}) == {}
    assert take(one, known, {1: counters(200)}) == {1: counters(100)}
    assert take(one, known, {}) == {}


def test_what_interfaces_counted_before_is_past_and_new_ones_begin_with_nothing() -> None:
    sides = Sides(_3="10.1.0.2", _4="10.1.0.3")
    sides.counted[3] = counters(5000)
    one = begun(sides)
    known = points(WEB, API, web="10.1.0.2", api="10.1.0.3")
    sides.counted |= {3: counters(5100), 4: counters(300)}
    take(one, known, {})
    assert take(one, known, {}) == {1: counters(100), 2: counters(300)}


def test_containers_of_a_pod_are_one_and_units_have_nothing() -> None:
    sides = Sides(_3="10.1.0.2")
    one = begun(sides)
    known = points(UNIT, SIDECAR, WEB, web="10.1.0.2")
    sides.counted[3] = counters(1000)
    take(one, known, {1: counters(10_000), 2: counters(400), 3: counters(500)})
    assert take(one, known, {}) == {2: counters(100)}


def test_whose_addresses_several_have_is_nobodys() -> None:
    sides = Sides(_3="10.1.0.2")
    one = begun(sides)
    known = points(WEB, API, web="10.1.0.2", api="10.1.0.2")
    sides.counted[3] = counters(1000)
    take(one, known, {})
    assert take(one, known, {}) == {}


def test_an_address_that_is_used_again_is_of_who_is_there() -> None:
    sides = Sides(_3="10.1.0.2")
    one = begun(sides)
    known = points(WEB, API, web="10.1.0.2", api="10.1.0.2")
    sides.counted[3] = counters(1000)
    take(one, known, {}, WEB)
    assert take(one, known, {}, WEB) == {2: counters(1000)}


def test_of_an_interface_that_went_the_last_reading_counts_and_its_successor_is_another_one() -> None:
    sides = Sides(_3="10.1.0.2", _4="10.1.0.3")
    one = begun(sides)
    known = points(WEB, web="10.1.0.2")
    sides.counted[3] = counters(1000)
    take(one, known, {})
    del sides.counted[3]
    sides.counted[4] = counters(70)
    assert take(one, known, {1: counters(900)}) == {1: counters(100)}
    both = points(WEB, API, api="10.1.0.3")
    assert take(one, both, {}) == {2: counters(70)}


def test_sockets_may_have_more_than_an_interface() -> None:
    sides = Sides(_3="10.1.0.2")
    one = begun(sides)
    known = points(WEB, web="10.1.0.2")
    sides.counted[3] = counters(100)
    take(one, known, {1: counters(5000, tx=5000)})
    assert take(one, known, {}) == {}


def test_namespaces_are_not_asked_for_addresses_while_everybody_is_known() -> None:
    sides = Sides(_3="10.1.0.2", _4="10.1.0.9")
    one = begun(sides)
    sides.counted |= {3: counters(0), 4: counters(0)}
    for _ in range(20):
        take(one, points(WEB, web="10.1.0.2"), {})
    assert sides.asked <= 3


def test_nothing_is_told_where_nothing_can_be_read() -> None:
    one = begun()
    assert take(one, points(WEB, web="10.1.0.2"), {1: counters(100)}) == {}
