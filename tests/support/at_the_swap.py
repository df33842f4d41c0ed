"""An agent that is struck in the middle of a swap: `python -m tests.support.at_the_swap ORDER ARGUMENTS...`."""

from __future__ import annotations

import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.capture.app import run
from services.capture.bpf.tables import Array, Tables
from services.capture.sources import kernel
from services.runtime import supervise
from services.runtime.settings import CaptureSettings


class Place(StrEnum):
    """Where in a swap."""

    BEFORE = "before the swap"
    SWAPPED = "between swap and reading"
    HALF_READ = "between reading one family's table and the other's"


def order(path: Path, place: Place, number: signal.Signals) -> None:
    """Have the agent that was given this path as its order send itself a signal there, once."""
    partial = path.with_suffix(".partial")
    partial.write_text(f"{number} {place}")
    partial.replace(path)


class Struck(Tables):
    """Tables whose owner is struck while it takes what was counted."""

    path: Path

    def take(self) -> tuple[Array, Array]:
        self._strike(Place.BEFORE)
        return super().take()

    def _emptied(self, half: int, family: str) -> Array:
        self._strike(Place.SWAPPED if family == "4" else Place.HALF_READ)
        return super()._emptied(half, family)

    def _strike(self, place: Place) -> None:
        try:
            number, _, where = self.path.read_text().partition(" ")
        except FileNotFoundError:
            return
        if where == place:
            self.path.unlink()
            os.kill(os.getpid(), int(number))


def main() -> None:
    """Run the agent with such tables."""
    Struck.path = Path(sys.argv[1])
    source: Any = kernel
    source.Tables = Struck
    sys.exit(supervise.main("capture", CaptureSettings, run, sys.argv[2:]))


if __name__ == "__main__":
    main()
