"""An agent that may not read pods' own interfaces is replaced by one that may, and the other way."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from services.aggregator.totals import Totals
from services.capture.agent import Agent
from services.capture.fold import Folder
from services.capture.interfaces import LinkChange, LinkMonitor, Selection
from services.runtime.clock import SystemClock
from tests.netns.test_hidden_datapath import by_rule, row, talk
from tests.support.hidden_datapath import World, counters, world
from tests.support.station import Batches, Station, inside
from tests.support.wait import until
from tests.support.watch import opened
from tests.support.worlds import directory

_PODS = ("web", "api", "open0")


@pytest.fixture
def place() -> Iterator[World]:
    with world() as one:
        yield one


class Agents:
    """One agent after the other on the same links, for the same totals."""

    def __init__(self) -> None:
        self.totals = Totals(directory(), 1000)
        self._boots = (f"boot-{number}" for number in itertools.count())

    @contextlib.asynccontextmanager
    async def next(self, *, allowed: bool) -> AsyncIterator[Station]:
        """An agent; not `allowed` it may not ask about other namespaces."""
        async with (
            LinkMonitor(Selection(names=("web0", "api0", "open0"))) as monitor,
            opened(10_000, kind="ebpf", namespace=None) as source,
        ):
            monitor._pod_side.allowed = allowed  # as at the kernel's first refusal
            take = Batches(self.totals, next(self._boots)).take
            one = Station(monitor, Agent(source, Folder(10_000), SystemClock(), take, monitor.hidden), self.totals)
            await one.follow(LinkChange(monitor.links(), ()))
            yield one


def own(place: World) -> dict[str, list[int]]:
    """What pods' own interfaces counted."""
    return {name: list(counters(space)) for name, space in zip(_PODS, (place.web, place.api, place.open), strict=True)}


def since(place: World, before: dict[str, list[int]]) -> dict[str, list[int]]:
    """What they counted since then."""
    return {pod: [a - b for a, b in zip(now, before[pod], strict=True)] for pod, now in own(place).items()}


@pytest.mark.parametrize("between", [False, True], ids=["without a gap", "with a gap"])
def test_who_gains_the_right_books_nothing_that_passed_unseen_before(place: World, between: bool) -> None:
    async def scenario() -> None:
        agents = Agents()
        talk(place, rounds=1)
        begin = own(place)
        async with agents.next(allowed=False) as one:
            for _ in range(4):
                talk(place, rounds=1)
                await one.flush()
            had = {pod: row(one, pod) for pod in _PODS}
        gap = own(place)
        if between:
            talk(place, rounds=1)
        missed = since(place, gap)
        gap = own(place)
        async with agents.next(allowed=True) as one:
            await one.flush()
            for pod in _PODS:
                booked = by_rule(one, pod).get("agent-gap", [0] * 4)
                # What the node's end had while nobody watched: all that was sent, and of a hidden pod nothing else.
                assert booked[:2] == missed[pod][:2]
                assert all(a <= b for a, b in zip(booked, missed[pod], strict=True))
            assert by_rule(one, "open0").get("agent-gap", [0] * 4) == missed["open0"]
            gaps = {entry.interface: entry.sums.gap for entry in one.node.interfaces}
            assert list(gaps["web0"].four)[:2] == missed["web"][:2]
            assert all(a <= b for a, b in zip(gaps["web0"].four, missed["web"], strict=True))
            for _ in range(3):
                talk(place, rounds=1)
                await one.flush()
            total = since(place, begin)
            for pod in _PODS:
                assert all(a <= b for a, b in zip(row(one, pod), total[pod], strict=True)), pod
            after = since(place, gap)
            for pod in _PODS:
                new = [a - b - c for a, b, c in zip(row(one, pod), had[pod], by_gap(one, pod), strict=True)]
                assert all(a <= b for a, b in zip(new, after[pod], strict=True)), pod
                assert new[:2] == after[pod][:2]

    inside(place.node, scenario)


def by_gap(one: Station, pod: str) -> list[int]:
    """What was booked as passed between agents."""
    return by_rule(one, pod).get("agent-gap", [0] * 4)


def test_who_has_the_right_as_the_one_before_books_the_whole_gap(place: World) -> None:
    async def scenario() -> None:
        agents = Agents()
        talk(place, rounds=1)
        begin = own(place)
        async with agents.next(allowed=True) as one:
            await one.flush()
        # Nothing was hidden while that one watched, only before it and after it.
        talk(place, rounds=1)
        async with agents.next(allowed=True) as one:
            talk(place, rounds=1)

            async def whole() -> bool:
                await one.flush()
                return {pod: row(one, pod) for pod in _PODS} == since(place, begin)

            await until(whole, "each pod has what its interface counted since the first agent")
            assert by_gap(one, "api")[2] > 1 << 20

    inside(place.node, scenario)


def test_who_loses_the_right_books_no_more_than_passed(place: World) -> None:
    async def scenario() -> None:
        agents = Agents()
        begin = own(place)
        async with agents.next(allowed=True) as one:
            for _ in range(3):
                talk(place, rounds=1)
                await one.flush()
        talk(place, rounds=1)
        async with agents.next(allowed=False) as one:
            for _ in range(3):
                talk(place, rounds=1)
                await one.flush()
            total = since(place, begin)
            for pod in _PODS:
                assert all(a <= b for a, b in zip(row(one, pod), total[pod], strict=True)), pod

    inside(place.node, scenario)
