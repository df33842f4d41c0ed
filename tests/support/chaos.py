"""Chaos: one fault after the other, as a seed says, under traffic that never ends; how soon all is well again after each."""

from __future__ import annotations

import random
import signal
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.cables import Break
from tests.support.torture_deeds import DEEDS, Deed, elapse
from tests.support.torture_rig import AGGREGATOR, API, NODES, RIVAL, Rig, Seen
from tests.support.wait import wait_until

_MENDED_S: Final = 60.0
"""When nobody waits any longer; what is promised is less."""
_STEPS_S: Final = (1.0, 30.0, 600.0, 3600.0, 8 * 3600.0)
_SETTLED_EVERY: Final = 8
"""Faults between two comparisons to the byte."""


def network_breaks(rig: Rig, rng: random.Random) -> None:
    """The way of one, two or all to Redis is a black hole, resets everything, or loses much."""
    names = rng.sample(list(rig.cables), rng.randint(1, len(rig.cables)))
    how = rng.choice([*Break])
    rig.note(f"network of {', '.join(names)}: {how.value}")
    for name in names:
        rig.cables[name].cut(how)
    elapse(rng.uniform(0.5, 6))
    for name in rng.sample(names, len(names)):
        rig.cables[name].mend()


def clock_steps(rig: Rig, rng: random.Random) -> None:
    """Redis's clock is set on or back, by a second or a night, and perhaps set right after a while."""
    assert rig.clock is not None
    step_s = rng.choice(_STEPS_S) * rng.choice((-1, 1))
    rig.note(f"Redis's clock: {step_s:+.0f} s")
    rig.whole_history = False
    rig.clock.step(step_s)
    elapse(rng.uniform(0, 3))
    if rng.random() < 0.5:
        rig.note("and back")
        rig.clock.step(-step_s)


def store_stalls(rig: Rig, rng: random.Random) -> None:
    """Redis does nothing for a while."""
    rig.note("Redis stands still")
    rig.server.signal(signal.SIGSTOP)
    elapse(rng.uniform(0.2, 5))
    rig.server.signal(signal.SIGCONT)


def store_is_slow(rig: Rig, rng: random.Random) -> None:
    """Redis takes a third of a second for each command, of everybody, for some seconds."""
    rig.note("Redis is slow")
    for _ in range(rng.randint(5, 15)):
        rig.admin.execute_command("CLIENT", "PAUSE", 300, "ALL")
        elapse(0.32)


FAULTS: Final[Mapping[str, Deed]] = {
    # That one loses a session, as it says.
    **{name: deed for name, deed in DEEDS.items() if name != "all-lost"},
    **{deed.__name__.replace("_", "-"): deed for deed in (network_breaks, store_stalls, store_is_slow, clock_steps)},
}


@dataclass(slots=True)
class Chaos:
    """What a run did, and what it found."""

    rig: Rig
    rng: random.Random
    recovered_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By fault, how long after its end all that had passed by then was in the totals and in the API."""
    done: int = 0
    """Single faults: most deeds are some of them."""
    restarts: int = 0
    largest_kb: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    """Bytes by which the totals were below and above the truth, when nothing was on its way any more."""

    def go_on_for(self, seconds: float) -> None:
        """Break things for so long; compares all totals with the truth again and again, and at the end."""
        end = time.monotonic() + seconds
        order: list[str] = []
        while time.monotonic() < end:
            # Each fault comes as often as any other.
            order = order or self.rng.sample(list(FAULTS), len(FAULTS))
            self._break(order.pop())
            if sum(map(len, self.recovered_s.values())) % _SETTLED_EVERY == 0:
                self._settle()
        self._settle()

    def _break(self, fault: str) -> None:
        starts = self._starts()
        FAULTS[fault](self.rig, self.rng)
        self.rig.services[RIVAL].kill()
        self.rig.mend()
        began, passed = time.monotonic(), self.rig.truth()
        wait_until(lambda: self._tells(passed), f"all is well after {fault}: {self.rig.did[-5:]}", _MENDED_S)
        self.recovered_s[fault].append(time.monotonic() - began)
        self.restarts += self._starts() - starts

    def _settle(self) -> None:
        self.rig.settle(resume=False)
        stored, truth = self.rig.stored(), self.rig.truth()
        more = [stored[node][at] - truth[node][at] for node in NODES for at in (0, 2)]
        self.lost += sum(-one for one in more if one < 0)
        self.doubled += sum(one for one in more if one > 0)
        self.rig.talk.resume()
        for name in (AGGREGATOR, API, *NODES):
            service = self.rig.services[name]
            assert service.runs, (name, service.events()[-5:])
            assert service.process is not None
            self.largest_kb[name] = max(self.largest_kb.get(name, 0), anonymous_kb(service.process.pid))
        self.done += len(self.rig.did)
        self.rig.did.clear()

    def _starts(self) -> int:
        return sum(service.starts for service in self.rig.services.values())

    def _tells(self, passed: dict[str, Seen]) -> bool:
        """Whether the totals have all that had passed, and the API says that it is current."""
        # What a fault ended after it was mended, as a supervisor would find.
        self.rig.mend()
        stored = self.rig.without_failing(self.rig.stored)
        if stored is None:
            return False
        pairs = (pair for node in NODES for pair in zip(stored[node], passed[node], strict=True))
        return all(found >= wanted for found, wanted in pairs) and self.rig.is_current()


def anonymous_kb(pid: int) -> int:
    """The memory of a process that is its own."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1])
