"""Every way to capture that is compared, run as a process of its own beside a flood."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.world import CAPTURER, INTERFACE, World
from tests.support.wait import wait_until
from tests.support.watch import OF_LINKS

_ROOT: Final = Path(__file__).parents[2]
_CAPACITY: Final = 262_144
NONE: Final = "none"
TCPDUMP: Final = ["tcpdump", "-n", "-B", "131072", "-i", INTERFACE, "-w", "/dev/null"]
_READY: Final = ("ready", "listening on")
_IDLE_POLLS: Final = 100
_IDLE_NS: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """Nanoseconds a packet on the sender's path and of the capturing process, and packets sent and seen a second."""

    path: float
    own: float
    sent: float
    seen: float


def counting(name: str, what: str = INTERFACE) -> list[str]:
    """The command of one of our sources, on an interface or by a control group's number."""
    return [sys.executable, "-m", "tests.bench.counting", name, what, str(_CAPACITY)]


def methods(programs: Mapping[str, Path]) -> dict[str, list[str]]:
    """The command of each method by its name, first that of no capture at all."""
    # The flood comes from a packet socket, which is in no control group.
    ours = {name: counting(name) for name in OF_LINKS}
    peers = {name: [str(programs[name]), INTERFACE] for name in ("libpcap", "gopacket") if name in programs}
    return {NONE: [], **ours, "tcpdump": TCPDUMP, **peers}


@dataclass(slots=True)
class Capture:
    """A running method; `seen` is known when it has ended."""

    process: subprocess.Popen[str]
    seen: int = 0

    def own_ns(self) -> int:
        """The processor time of all its threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def settle(self) -> int:
        """Its processor time once it has read everything: it is idle by then."""
        times: list[int] = []

        def is_idle() -> bool:
            times.append(self.own_ns())
            return len(times) > _IDLE_POLLS + 50 and times[-1] - times[-_IDLE_POLLS] < _IDLE_NS

        wait_until(is_idle, "everything that was captured has been read", timeout_s=60)
        return times[-1]


@contextlib.contextmanager
def capturing(command: list[str], place: World) -> Iterator[Capture]:
    """The method at work on the node, until the block ends."""
    argv = place.node.command(*CAPTURER, *command)
    # Unbuffered in effect: lines are read one at a time until it captures.
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=_ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        while not any(word in line for word in _READY):
            assert line, f"{command} ended before it was ready"
            line = process.stdout.readline()
        capture = Capture(process)
        yield capture
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        capture.seen = _seen(out)


def one_round(command: list[str], place: World, flood: list[str]) -> Round:
    """One flood, watched by `command`, or by nobody where that is empty."""
    if not command:
        sent, path, took = _sent(flood)
        return Round(path, 0.0, sent / took, sent / took)
    with capturing(command, place) as capture:
        before = capture.own_ns()
        sent, path, took = _sent(flood)
        own = (capture.settle() - before) / sent
    return Round(path, own, sent / took, capture.seen / took)


def _sent(flood: list[str]) -> tuple[int, float, float]:
    """Frames sent, nanoseconds for each, seconds for all."""
    count, each = subprocess.check_output(flood, text=True).split()
    return int(count), float(each), int(count) * float(each) / 1e9


def _seen(out: str) -> int:
    found = re.search(r"(\d+) packets? captured", out)
    return int(found[1]) if found else int(json.loads(out.splitlines()[-1])["packets"])
