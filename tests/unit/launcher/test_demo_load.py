"""The demo's load: it moves, it is bounded, it is the same for the same seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.launcher.demo.load import HIGHEST, LONGEST_PAUSE_S, LOWEST, Load, Pace


@given(seed=st.integers(), name=st.text(max_size=20), elapsed_s=st.floats(min_value=0, max_value=1e6))
def test_the_load_stays_in_its_bounds(seed: int, name: str, elapsed_s: float) -> None:
    assert LOWEST <= Load(seed, name).at(elapsed_s) <= HIGHEST


def test_the_same_seed_gives_the_same_curve() -> None:
    curves = [[Load(7, "a").at(t) for t in range(300)] for _ in range(2)]
    assert curves[0] == curves[1]


def test_seed_and_name_change_the_curve() -> None:
    curves = {tuple(Load(seed, name).at(t) for t in range(60)) for seed in (1, 2) for name in ("a", "b")}
    assert len(curves) == 4


def test_the_load_visibly_moves_within_two_minutes() -> None:
    for name in ("a", "b", "c", "d"):
        values = [Load(1, name).at(t) for t in range(120)]
        assert max(values) > 1.5 * min(values)


def test_bursts_come_and_go() -> None:
    load = Load(1, "a")
    steps = [load.at(t + 1) / load.at(t) for t in range(600)]
    assert max(steps) > 1.6
    assert min(steps) < 0.65


def test_the_average_load_is_near_one() -> None:
    values = [Load(1, f"n{n}").at(float(t)) for n in range(20) for t in range(0, 3600, 7)]
    assert 0.9 < sum(values) / len(values) < 1.4


def test_the_pace_reads_the_time_since_the_world_began() -> None:
    clock = [1000.0]
    pace = Pace(3, "x", 1000.0, lambda: clock[0])
    expected = Load(3, "x")
    seen = []
    for elapsed in (0.0, 33.0, 250.0):
        clock[0] = 1000.0 + elapsed
        seen.append(pace.load() == expected.at(elapsed))
    assert all(seen)


def test_no_pause_is_longer_than_the_bound() -> None:
    pace = Pace(1, "x", 0.0, lambda: 0.0)
    assert max(pace.pause_s(1e-9) for _ in range(50)) == LONGEST_PAUSE_S
    assert max(pace.pause_s(1e9) for _ in range(50)) < 1e-6


def test_sizes_spread_around_the_typical_one() -> None:
    pace = Pace(1, "x", 0.0, lambda: 0.0)
    sizes = sorted(pace.body_size(10_000) for _ in range(1000))
    assert 8_000 < sizes[500] < 12_500
    assert sizes[0] < 4_000
    assert 25_000 < sizes[-1] <= 80_000
    assert pace.body_size(0) == 1
