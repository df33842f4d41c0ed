"""How busy each conversation of the demo is at a moment: a slow wave with bursts, fixed by a seed."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Final

LOWEST: Final = 0.15
HIGHEST: Final = 4.0
WAVE_DEPTH: Final = 0.6
BURST_SLOT_S: Final = 8.0  # a burst lasts one slot: long enough to see it rise in the timeline
BURST_CHANCE: Final = 0.15
LONGEST_PAUSE_S: Final = 10.0
STAGGER_S: Final = 0.3  # the first exchanges of a process are spread over this time


class Load:
    """The curve of one conversation.

    `at(t)` is a factor around 1, between LOWEST and HIGHEST, `t` in seconds since the world
    began. The same seed and name give the same curve in every process and every run.
    """

    def __init__(self, seed: int, name: str) -> None:
        self._key = f"{seed}/{name}"
        rng = random.Random(self._key)
        self._period_s = rng.uniform(40.0, 110.0)
        self._phase = rng.random()

    def at(self, elapsed_s: float) -> float:
        """The factor at that time."""
        turn = elapsed_s / self._period_s + self._phase
        wave = 1.0 + WAVE_DEPTH * math.sin(2.0 * math.pi * turn)
        slot = random.Random(f"{self._key}/{int(elapsed_s // BURST_SLOT_S)}")
        burst = slot.uniform(1.8, 2.6) if slot.random() < BURST_CHANCE else 1.0
        return min(HIGHEST, max(LOWEST, wave * burst))


class Pace:
    """The rhythm of one conversation: pauses that follow its load curve.

    `now` is a monotonic clock in seconds, `started_s` its value when the world began.
    """

    def __init__(self, seed: int, name: str, started_s: float, now: Callable[[], float]) -> None:
        self.rng = random.Random(f"{seed}/{name}/pace")
        self._load = Load(seed, name)
        self._started_s = started_s
        self._now = now

    def load(self) -> float:
        """The factor now."""
        return self._load.at(max(0.0, self._now() - self._started_s))

    async def stagger(self) -> None:
        """Wait a moment before the first exchange, so that a process does not start in one bang."""
        await asyncio.sleep(self.rng.uniform(0.0, STAGGER_S))

    def pause_s(self, rate: float) -> float:
        """Seconds that a random (Poisson) client of `rate` exchanges per second would wait."""
        return min(LONGEST_PAUSE_S, self.rng.expovariate(rate * self.load()))

    async def pause(self, rate: float) -> None:
        """Wait for `pause_s`."""
        await asyncio.sleep(self.pause_s(rate))

    def body_size(self, typical: int) -> int:
        """A size in bytes around `typical`: mostly near, at times up to 8 times as large."""
        return max(1, int(typical * min(8.0, self.rng.lognormvariate(0.0, 0.6))))
