"""One line that tells how it goes, renewed in place on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any, Final, TextIO

_PLAIN_EVERY_S: Final = 10.0
"""Where no terminal shows the line it is a log, which nobody wants every second."""


class StatusLine:
    """Writes to `stream`; `now` is a monotonic clock in seconds."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._last_s = float("-inf")

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{text}")
        elif time.monotonic() - self._last_s >= _PLAIN_EVERY_S:
            self._last_s = time.monotonic()
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line, so that what follows stands below it."""
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()


def summary(overview: dict[str, Any], url: str, running_s: float) -> str:
    """The line for an answer of `/traffic/overview`."""
    lost = sum(overview["loss"].values())
    minutes, seconds = divmod(int(running_s), 60)
    parts = [
        f"{minutes}:{seconds:02d}",
        f"{overview['totalPods']} pods",
        f"{overview['packetsPerSec']} packets/s",
        f"inside {overview['internalBandwidthPerSec']}/s",
        f"outside {overview['externalBandwidthPerSec']}/s",
        f"{lost} lost" if lost else "nothing lost",
        url,
    ]
    return " | ".join(parts)
