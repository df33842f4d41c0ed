"""A clock that a test moves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class HandClock:
    """Stands still until told otherwise."""

    now_us: int = 1_000_000

    def monotonic_us(self) -> int:
        return self.now_us

    def pass_s(self, seconds: float) -> None:
        """Let time go by."""
        self.now_us += int(seconds * 1_000_000)
