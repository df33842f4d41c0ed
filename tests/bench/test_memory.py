"""Memory and processor time of a whole agent with a real store and a real aggregator behind it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.bench.report import Report
from tests.bench.world import CAPTURER, INTERFACE, World
from tests.support.group_talk import group
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

_ROOT: Final = Path(__file__).parents[2]
_SECONDS: Final = 5.0
_MB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as /proc shows it."""

    pid: int
    source: str = ""

    def own_ns(self) -> int:
        """The processor time of all its threads so far."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def resident_mb(self) -> float:
        """What is resident, in MB."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024 / _MB

    def maps_mb(self) -> float:
        """What the kernel charges for its BPF maps, in MB."""
        sizes: dict[str, int] = {}
        for entry in Path(f"/proc/{self.pid}/fdinfo").iterdir():
            # Files that it opens for a moment are gone by now.
            with contextlib.suppress(FileNotFoundError):
                # A map may be open more than once.
                found = re.search(r"^memlock:\s+(\d+)\nmap_id:\s+(\d+)$", entry.read_text(), re.MULTILINE)
                sizes |= {found[2]: int(found[1])} if found else {}
        return sum(sizes.values()) / _MB


@pytest.fixture(params=[["ebpf", "--interface", INTERFACE], ["cgroup"]], ids=["ebpf", "cgroup"])
def agent(place: World, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    """An agent on the watched interface, or on all control groups, whose batches are booked."""
    redis = RedisServer(tmp_path)
    redis.start()
    common = ["--redis-url", redis.url, "--log-format", "json"]
    directory = tmp_path / "directory.json"
    directory.write_text("{}")
    with ExitStack() as stack:
        stack.callback(redis.stop)
        for command in (
            [sys.executable, "-m", "services.aggregator", *common],
            place.node.command(
                *CAPTURER,
                sys.executable,
                "-m",
                "services.capture",
                *common,
                *("--node", "node", "--capture", *request.param),
            ),
        ):
            log = stack.enter_context((tmp_path / f"{command[-1]}.log").open("wb"))
            process = stack.enter_context(subprocess.Popen(command, cwd=_ROOT, stdout=log, stderr=log))
            stack.callback(process.terminate)
        own = Process(process.pid, request.param[0])
        wait_until(lambda: own.maps_mb() > 0, "the agent counts")
        yield own


def running(agent: Process, seconds: float) -> float:
    """Let the agent work; the part of a processor that it took."""
    before, begun = agent.own_ns(), time.monotonic_ns()
    time.sleep(seconds)
    return (agent.own_ns() - before) / (time.monotonic_ns() - begun)


@pytest.fixture
def member() -> Iterator[Path]:
    """A control group of the sender's own."""
    with group("flood") as path:
        yield path


def test_memory_and_time_of_the_agent(
    agent: Process, place: World, programs: dict[str, Path], report: Report, member: Path
) -> None:
    time.sleep(2 * _SECONDS)
    idle = running(agent, _SECONDS)
    lines = [("nothing", f"{agent.resident_mb():.0f}", f"{agent.maps_mb():.0f}", f"{100 * idle:.2f} %", "")]
    for flows in (100, 10_000, 100_000):
        flood = (
            place.datagrams(programs["datagrams"], member, flows, 64, _SECONDS)
            if agent.source == "cgroup"
            else place.flood(programs["flood"], "from the pod", flows, 64, _SECONDS)
        )
        before = agent.own_ns()
        sent = int(subprocess.check_output(flood, text=True).split()[0])
        busy = (agent.own_ns() - before) / 1e9 / _SECONDS
        # The last second's flows are drained by now.
        time.sleep(2)
        each = (agent.own_ns() - before) / sent
        lines.append(
            (
                f"{sent / _SECONDS / 1e6:.1f} Mpps of {flows:,} flows",
                f"{agent.resident_mb():.0f}",
                f"{agent.maps_mb():.0f}",
                f"{100 * busy:.1f} %",
                f"{each:.1f}",
            )
        )
    report.table(
        f"The whole agent, source {agent.source}, with one pod",
        ("traffic", "resident MB", "kernel's maps MB (in part resident)", "of one processor", "ns a packet"),
        lines,
    )
    whose = "of the agent" if agent.source == "ebpf" else f"of the agent with {agent.source}"
    report.goal(f"resident MB {whose} after 100,000 flows a second", agent.resident_mb(), at_most=70 + 40)
    assert agent.resident_mb() < 300
    assert idle < 0.5
