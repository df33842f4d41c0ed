"""Which steps of Redis's clock are believed, and where batches of before them are placed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from services.aggregator.timeline import Timeline
from services.flows.delta import Batch
from tests.support.agents import SECOND, ScriptedAgent, window
from tests.support.clocks import HandClock

HOUR = 3600 * SECOND


@dataclass
class Clocks:
    """Ours, Redis's, and those of machines, which begin with ours."""

    ours: HandClock = field(default_factory=HandClock)
    redis_us: int = 1000 * HOUR
    """Before our own."""
    slept_us: int = 0
    """For how long our own machine slept."""
    shifts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.timeline = Timeline(self.ours)
        self.read()

    def read(self, took_us: int = 0) -> None:
        """Ask Redis; it answered in the middle of the time that took."""
        asked_us = self.ours.monotonic_us()
        self.ours.pass_s(took_us / SECOND)
        self.timeline.read(asked_us + took_us // 2 + self.redis_us + self.slept_us, asked_us)

    def place(self, machine: str, offset_us: int, *, error_us: int = 1000) -> int:
        """By how much a batch of the last second, with such an offset, is moved."""
        second = self.ours.monotonic_us() // SECOND - 1
        batch = ScriptedAgent(machine=machine).batch(window((), second=second))
        placed = self.timeline.place(replace(batch, offset_us=offset_us, error_us=error_us), self.shifts.append)
        return placed.offset_us - offset_us


@pytest.fixture
def clocks() -> Clocks:
    one = Clocks()
    assert one.place("a", one.redis_us) == one.place("b", one.redis_us) == 0
    return one


@pytest.mark.parametrize("step_us", [HOUR, -HOUR, SECOND])
def test_a_step_that_an_agent_tells_too_is_believed_once(clocks: Clocks, step_us: int) -> None:
    before_us = clocks.timeline.about_now_us()
    clocks.redis_us += step_us
    clocks.read()
    assert clocks.timeline.about_now_us() == before_us
    # Sent before, and then after it.
    assert clocks.place("b", clocks.redis_us - step_us) == 0
    assert clocks.shifts == []
    assert clocks.place("a", clocks.redis_us) == 0
    assert clocks.shifts == [step_us]
    assert clocks.timeline.about_now_us() == before_us + step_us
    assert clocks.place("b", clocks.redis_us - step_us) == step_us
    assert clocks.place("b", clocks.redis_us) == 0
    assert clocks.shifts == [step_us]


def test_of_several_steps_some_may_be_told_of(clocks: Clocks) -> None:
    for step_us in (HOUR, -3 * HOUR, HOUR):
        clocks.redis_us += step_us
        clocks.read()
    assert clocks.place("a", clocks.redis_us - HOUR) == 0
    assert clocks.shifts == [-2 * HOUR]
    assert clocks.place("b", clocks.redis_us + 2 * HOUR) == -3 * HOUR
    assert clocks.place("a", clocks.redis_us) == 0
    assert clocks.shifts == [-2 * HOUR, HOUR]


def test_where_a_machine_slept_nobody_elses_times_move(clocks: Clocks) -> None:
    assert clocks.place("a", clocks.redis_us + HOUR) == 0
    assert clocks.place("a", clocks.redis_us + HOUR) == 0
    assert clocks.shifts == []


def test_where_our_own_machine_slept_nothing_moves(clocks: Clocks) -> None:
    clocks.slept_us = HOUR
    clocks.read()
    for _ in range(31):
        clocks.ours.pass_s(1)
        clocks.read()
        assert clocks.place("a", clocks.redis_us) == 0
    assert clocks.shifts == []
    assert clocks.timeline.about_now_us() == clocks.ours.monotonic_us() + clocks.redis_us + HOUR
    # What an agent tells a minute later is its own.
    assert clocks.place("a", clocks.redis_us + HOUR) == 0
    assert clocks.shifts == []


def test_what_clocks_drift_is_followed(clocks: Clocks) -> None:
    for _ in range(100):
        clocks.redis_us += 50_000
        clocks.read()
        assert clocks.place("a", clocks.redis_us) == 0
    assert clocks.shifts == []
    assert clocks.timeline.about_now_us() == clocks.ours.monotonic_us() + clocks.redis_us


def test_an_answer_that_took_long_is_no_step_and_hides_none(clocks: Clocks) -> None:
    clocks.redis_us += 2 * SECOND
    clocks.read(took_us=10 * SECOND)
    clocks.read()
    assert clocks.place("a", clocks.redis_us) == 0
    assert clocks.shifts == [2 * SECOND]


def test_a_machine_that_is_first_heard_told_of_what_had_been_shortly_before(clocks: Clocks) -> None:
    for step_us in (-HOUR, 2 * HOUR):
        before_us = clocks.redis_us
        clocks.redis_us += step_us
        clocks.read()
        assert clocks.place("a", clocks.redis_us) == 0
        assert clocks.place(f"old {step_us}", before_us) == step_us
        assert clocks.place(f"new {step_us}", clocks.redis_us) == 0


def test_files_and_machines_without_a_name_are_left_as_they_are(clocks: Clocks) -> None:
    clocks.redis_us += HOUR
    clocks.read()
    assert clocks.place("a", clocks.redis_us) == 0
    assert clocks.place("", 0) == 0
    assert clocks.place("", clocks.redis_us - HOUR) == 0


def test_what_is_kept_is_bounded(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.aggregator.timeline._MOST_MACHINES", 3)
    for at in range(100):
        clocks.redis_us += HOUR
        clocks.read()
        clocks.place(f"m{at}", clocks.redis_us)
    assert len(clocks.timeline._machines) == 3
    assert len(clocks.timeline._steps) <= 65


def test_a_batch_is_moved_as_a_whole(clocks: Clocks) -> None:
    clocks.redis_us += HOUR
    clocks.read()
    clocks.place("a", clocks.redis_us)
    batch = Batch("node-a", "boot-a", 1, clocks.redis_us - HOUR, 7, (window((), second=3),), {"x": 1}, "a")
    placed = clocks.timeline.place(batch, clocks.shifts.append)
    assert placed == replace(batch, offset_us=clocks.redis_us)
