"""When what passed before a source was in place is known, and when it is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from services.capture import settling
from services.capture.links import Link
from services.capture.settling import Begun, Settling
from services.flows.delta import InterfaceCounters

LINK = Link(3, "veth0")
BEFORE = InterfaceCounters(1000, 10, 500, 5)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits in vain waits for a moment."""
    monkeypatch.setattr(settling, "_MOST_S", 0.01)
    monkeypatch.setattr(settling, "_PAUSE_S", 0.0)


def each(*numbers: InterfaceCounters | None) -> Callable[[object], InterfaceCounters | None]:
    """One after the other, the last one for ever."""
    told: Iterator[InterfaceCounters | None] = itertools.chain(numbers, itertools.repeat(numbers[-1]))
    return lambda _: next(told)


def four(tx: int, rx: int) -> InterfaceCounters:
    """Packets of 100 bytes each way."""
    return InterfaceCounters(100 * tx, tx, 100 * rx, rx)


async def missed(
    counters: Callable[[Link], InterfaceCounters | None], counted: Callable[[int], InterfaceCounters | None]
) -> dict[int, InterfaceCounters]:
    return dict(await Settling(counters, counted).missed([Begun(7, LINK, BEFORE)]))


async def test_what_the_interface_has_and_the_source_has_not_passed_before() -> None:
    assert await missed(each(four(18, 9)), each(four(5, 1))) == {7: four(3, 3)}


async def test_where_nothing_passed_nothing_is_told() -> None:
    assert await missed(each(four(15, 6)), each(four(5, 1))) == {}


async def test_a_look_between_which_something_passed_does_not_count() -> None:
    counters = each(four(14, 9), four(18, 9), four(18, 9))
    assert await missed(counters, each(four(5, 1))) == {7: four(3, 3)}


async def test_packets_on_their_way_between_interface_and_source_spoil_no_more_than_their_look() -> None:
    # One from the pod that only the interface counted, one to it that only the source did.
    counters = each(four(18, 9), four(18, 9), four(18, 10))
    assert await missed(counters, each(four(4, 2), four(5, 2))) == {7: four(3, 3)}


async def test_under_traffic_without_a_gap_nothing_is_told() -> None:
    passing = (four(at, 9) for at in itertools.count(20))
    assert await missed(lambda _: next(passing), each(four(5, 1))) == {}


@pytest.mark.parametrize(("counters", "counted"), [(None, four(5, 1)), (four(18, 9), None)], ids=["link", "source"])
async def test_what_cannot_be_read_is_not_waited_for(
    counters: InterfaceCounters | None, counted: InterfaceCounters | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "_MOST_S", 60.0)
    assert await missed(each(counters), each(counted)) == {}


async def test_without_new_attachments_nobody_is_asked() -> None:
    def refuse(_: object) -> None:
        raise AssertionError

    assert dict(await Settling(refuse, refuse).missed([])) == {}
