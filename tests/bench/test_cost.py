"""What each source costs per packet, beside tcpdump, a loop over libpcap and the original's method in the same run.

`path` is the time that the capture adds to the sender's path, `own` the processor time that it takes
itself. What is asserted is only what holds on any machine, and by far.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.methods import NONE, TCPDUMP, Round, counting, methods, one_round
from tests.bench.report import Report
from tests.bench.world import Way, World
from tests.support.group_talk import group

KERNEL = ("ebpf", "tcx")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of traffic; `seconds` are enough for drains to be part of it."""

    way: Way
    flows: int
    size: int
    seconds: float = 3.0

    def __str__(self) -> str:
        return f"{self.flows:,} flows of {self.size} bytes {self.way}"


CASES = [
    Case("from the pod", 100, 64),
    Case("to the pod", 100, 64),
    Case("from the pod", 100, 1400),
    Case("to the pod", 100, 1400),
    Case("from the pod", 10_000, 64),
    Case("from the pod", 100_000, 64, 5.0),
    Case("to the pod", 100_000, 64, 5.0),
]


@dataclass(frozen=True, slots=True)
class Cost:
    """The medians of one method."""

    path: float
    own: float
    sent: float
    seen: float

    @property
    def total(self) -> float:
        return self.path + self.own

    @property
    def share(self) -> float:
        """Of the packets, in per cent."""
        return round(100 * self.seen / self.sent, 6)


def costs(rounds: dict[str, list[Round]]) -> dict[str, Cost]:
    """By method; `path` is what it adds to the path of the same round's flood without capture."""
    bare = [one.path for one in rounds[NONE]]
    return {
        name: Cost(
            statistics.median(one.path - base for one, base in zip(measured, bare, strict=True)),
            statistics.median(one.own for one in measured),
            statistics.median(one.sent for one in measured),
            statistics.median(one.seen / one.sent for one in measured)
            * statistics.median(one.sent for one in measured),
        )
        for name, measured in rounds.items()
    }


def interleaved(commands: dict[str, list[str]], place: World, flood: list[str], rounds: int) -> dict[str, list[Round]]:
    """Rounds of each method, taken in turns."""
    measured: dict[str, list[Round]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            measured[name].append(one_round(command, place, flood))
    return measured


def told(report: Report, what: str, measured: dict[str, list[Round]]) -> dict[str, Cost]:
    """Report what each method costs, beside the peers that were measured; the costs."""
    cost = costs(measured)
    bare = statistics.median(one.path for one in measured[NONE])
    peers = [name for name in ("tcpdump", "libpcap", "gopacket") if name in cost]
    report.table(
        f"{what}; {bare:.0f} ns a packet without capture",
        ("source", "path ns", "own ns", *(f"of {name}" for name in peers), "sent Mpps", "seen Mpps", "seen"),
        [
            (
                name,
                f"{one.path:.0f}",
                f"{one.own:.1f}",
                *(f"{one.total / cost[peer].total:.2f}" for peer in peers),
                f"{one.sent / 1e6:.2f}",
                f"{one.seen / 1e6:.2f}",
                f"{one.share:.3f} %",
            )
            for name, one in cost.items()
            if name != NONE
        ],
    )
    return cost


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cost_per_packet(place: World, programs: dict[str, Path], report: Report, rounds: int, case: Case) -> None:
    commands = methods(programs)
    flood = place.flood(programs["flood"], case.way, case.flows, case.size, case.seconds)
    measured = interleaved(commands, place, flood, rounds)
    cost = told(report, str(case), measured)
    _goals(report, case, cost)
    for name in KERNEL:
        assert all(one.seen == one.sent for one in measured[name]), f"{name} did not see all"
        assert cost[name].total < cost["socket"].total


@pytest.fixture
def member() -> Iterator[Path]:
    """A control group of the sender's own."""
    with group("flood") as path:
        yield path


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("flows", "size"), [(100, 64), (100, 1400), (10_000, 64)])
def test_cost_by_control_group(
    place: World, programs: dict[str, Path], report: Report, rounds: int, member: Path, flows: int, size: int
) -> None:
    number = str(member.stat().st_ino & 0xFFFFFFFF)
    commands = {NONE: [], **{name: counting(name) for name in KERNEL}}
    commands |= {"cgroup": counting("cgroup", number), "tcpdump": TCPDUMP}
    flood = place.datagrams(programs["datagrams"], member, flows, size, 1.5)
    measured = interleaved(commands, place, flood, max(rounds, 5))
    told(report, f"{flows:,} flows of {size} bytes from a socket of the pod", measured)
    assert all(one.seen == one.sent for one in measured["cgroup"]), "cgroup did not see all"


def _goals(report: Report, case: Case, cost: dict[str, Cost]) -> None:
    dump = cost["tcpdump"]
    if (case.flows, case.size) == (100, 64):
        report.goal(f"tcx: path of tcpdump's, {case.way}", cost["tcx"].path / dump.path, at_most=0.35)
        aim = 0.60 if case.way == "from the pod" else 0.70
        report.goal(f"ebpf: path of tcpdump's, {case.way}", cost["ebpf"].path / dump.path, at_most=aim)
        report.goal(f"ring: all of tcpdump's, {case.way}", cost["ring"].total / dump.total, at_most=1.5)
        report.goal(f"ring: Mpps seen, {case.way}", cost["ring"].seen / 1e6, at_least=1.0)
        for name, aim in (("libpcap", 0.55), ("gopacket", 0.15)):
            if name in cost:
                report.goal(f"ebpf: all of {name}'s, {case.way}", cost["ebpf"].total / cost[name].total, at_most=aim)
    aims = {"tcx": 0.40, "ebpf": 0.55}
    if case.size == 1400:
        aims = {"tcx": 0.15, "ebpf": 0.25}
    elif case.flows == 100_000:
        aims = {"tcx": 2.0, "ebpf": 2.0}
    for name, aim in aims.items():
        report.goal(f"{name}: all of tcpdump's, {case}", cost[name].total / dump.total, at_most=aim)
        report.goal(f"{name}: seen in %, {case}", cost[name].share, at_least=100.0)
