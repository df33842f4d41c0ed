"""The heartbeat file and the clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.clock import SystemClock
from services.runtime.errors import UsageError
from services.runtime.health import Heartbeat, age_s, main

ROOT = Path(__file__).parents[3]


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


def test_a_probe_passes_while_the_last_beat_is_young(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alive"
    Heartbeat(str(path)).beat()
    beaten = path.stat().st_mtime
    assert main([str(path), "30"], beaten + 30) == 0
    assert capsys.readouterr().err == ""
    assert main([str(path), "30"], beaten + 31) == 1
    assert capsys.readouterr().err == "the last heartbeat is 31 s old, more than 30 s\n"


def test_a_probe_fails_before_the_first_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "alive"), "30"], 0) == 1
    assert capsys.readouterr().err == f"no heartbeat: {tmp_path}/alive: No such file or directory\n"


def test_a_probe_is_a_process_that_reads_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    Heartbeat(str(path)).beat()
    argv = [sys.executable, "-m", "services.runtime.health", str(path)]
    assert subprocess.run([*argv, "60"], cwd=ROOT, check=False).returncode == 0
    os.utime(path, (0, 0))
    assert subprocess.run([*argv, "60"], cwd=ROOT, check=False, capture_output=True).returncode == 1
