"""TCP with segmentation offload through a watched veth, against the same with nobody watching."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.bench.methods import NONE, capturing, methods
from tests.bench.report import Report
from tests.bench.world import SENDER, World

_NODE: Final = "10.9.0.1"
_SECONDS: Final = 2
_SERVER: Final = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
GOALS: Final = ("ebpf", "tcx")


def transferred(place: World) -> float:
    """Gigabits a second of one TCP stream from the pod to its node."""
    server = place.node.command(*_SERVER, "iperf3", "--server", "--one-off", "--forceflush")
    client = place.pod.command(*SENDER, "iperf3", "--client", _NODE, "--time", str(_SECONDS), "--json")
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "listening" not in process.stdout.readline():
            assert process.poll() is None
        done = json.loads(subprocess.check_output(client, text=True))
        process.communicate(timeout=30)
    return float(done["end"]["sum_received"]["bits_per_second"]) / 1e9


def one_transfer(command: list[str], place: World) -> float:
    """The same, watched by `command`, or by nobody where that is empty."""
    if not command:
        return transferred(place)
    with capturing(command, place) as capture:
        speed = transferred(place)
        capture.settle()
    return speed


@pytest.mark.timeout(900)
def test_throughput_of_tcp(place: World, programs: dict[str, Path], report: Report, rounds: int) -> None:
    commands = methods(programs)
    speeds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(max(rounds, 5)):
        for name, command in commands.items():
            speeds[name].append(one_transfer(command, place))
    ratios = {
        name: statistics.median(one / bare for one, bare in zip(measured, speeds[NONE], strict=True))
        for name, measured in speeds.items()
    }
    bare = statistics.median(speeds[NONE])
    report.table(
        f"TCP with segmentation offload, pod to node; {bare:.1f} Gbit/s without capture",
        ("source", "Gbit/s", "of uncaptured"),
        [
            (name, f"{statistics.median(measured):.1f}", f"{ratios[name]:.3f}")
            for name, measured in speeds.items()
            if name != NONE
        ],
    )
    for name in GOALS:
        report.goal(f"{name}: TCP throughput of uncaptured", ratios[name], at_least=0.97)
        assert ratios[name] > 0.5, f"{name} halves what passes"
