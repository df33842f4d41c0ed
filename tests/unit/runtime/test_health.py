"""The heartbeat file and the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime.clock import SystemClock
from services.runtime.errors import UsageError
from services.runtime.health import Heartbeat, age_s


def test_a_beat_renews_the_file(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    Heartbeat(str(path)).beat()
    assert age_s(path, path.stat().st_mtime + 3) == 3


def test_without_a_path_nothing_is_written() -> None:
    Heartbeat("").beat()


def test_a_file_that_cannot_be_written_is_named() -> None:
    with pytest.raises(UsageError, match="--heartbeat-file /nowhere/alive: No such file"):
        Heartbeat("/nowhere/alive").beat()


def test_no_beat_no_age(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        age_s(tmp_path / "alive", 0)


def test_the_clock_counts_microseconds_and_never_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_us() for _ in range(1000)]
    assert readings == sorted(readings)
