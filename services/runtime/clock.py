"""Time as an argument: what reads a clock is given one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A clock for durations."""

    def monotonic_us(self) -> int:
        """Microseconds since some fixed moment; never steps back."""


class SystemClock:
    """The machine's monotonic clock."""

    def monotonic_us(self) -> int:
        """Microseconds since boot, without time asleep."""
        return time.monotonic_ns() // 1000
