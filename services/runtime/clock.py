"""Time as an argument: what reads a clock is given one."""

from __future__ import annotations

import time
from pathlib import Path
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


def kernel_run() -> str:
    """What the kernel calls its run since it started, in which its monotonic clock is one and the same for all.

    Empty where it has no name for it.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
