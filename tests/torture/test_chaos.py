"""Everything that breaks, for as long as one likes, under traffic that never ends: each byte is in the totals once."""

from __future__ import annotations

import os
import platform
import random
import statistics
from pathlib import Path
from typing import Final

import pytest

from tests.bench.report import Report
from tests.support.chaos import FAULTS, Chaos
from tests.support.torture_rig import rig
from tests.torture.test_memory import MOST_KB

pytestmark = pytest.mark.timeout(1800)
RECOVERED_S: Final = 15.0


def test_nothing_is_lost_or_doubled_and_all_recovers(
    folder: Path, chaos_s: int, chaos_seed: int, request: pytest.FixtureRequest
) -> None:
    with rig(folder, chaos_seed, apart=True) as one:
        chaos = Chaos(one, random.Random(chaos_seed))
        chaos.go_on_for(chaos_s)
        sent = sum(passed[0] + passed[2] for passed in one.truth().values())
    report = Report(f"Linux {platform.release()}, {os.cpu_count()} processors, seed {chaos_seed}, {chaos_s} s.")
    every = sorted(seconds for found in chaos.recovered_s.values() for seconds in found)
    report.goal("bytes lost", chaos.lost, at_most=0)
    report.goal("bytes doubled", chaos.doubled, at_most=0)
    report.goal("longest recovery, s", every[-1], at_most=RECOVERED_S)
    report.goal("largest process, MB", max(chaos.largest_kb.values()) / 1000, at_most=round(MOST_KB / 1000))
    report.table(
        f"{len(every)} faults of {chaos.done} strokes, {sent:,} bytes passed, {chaos.restarts} processes started again",
        ("fault", "times", "recovery: median, s", "longest, s"),
        [
            (name, str(len(found)), f"{statistics.median(found):.1f}", f"{max(found):.1f}")
            for name in FAULTS
            if (found := chaos.recovered_s.get(name))
        ],
    )
    if page := request.config.getoption("--chaos-page"):
        report.write(Path(page))
    assert (chaos.lost, chaos.doubled) == (0, 0)
    assert every[-1] <= RECOVERED_S
    assert max(chaos.largest_kb.values()) < MOST_KB
