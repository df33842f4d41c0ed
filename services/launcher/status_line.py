"""One line that tells how it goes, renewed in place on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

from services.runtime.plain import plain

_PLAIN_EVERY_S: Final = 10.0
"""Where no terminal shows the line it is a log, which nobody wants every second."""


class StatusLine:
    """Writes to `stream`; `now` is a monotonic clock in seconds, `columns` the terminal's width."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._terminal = self._stream.isatty()
        self._now = now
        self._columns = columns
        self._last_s = float("-inf")

    def show(self, text: str) -> None:
        """Replace the line."""
        text = plain(text)
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{_fitting(text, max(self._columns() - 1, 1))}")
        elif self._now() - self._last_s >= _PLAIN_EVERY_S:
            self._last_s = self._now()
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line, so that what follows stands below it."""
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()


def _fitting(text: str, width: int) -> str:
    """What of a line fits: one that wraps cannot be replaced, and half an address is of no use."""
    if len(text) <= width:
        return text
    return text[: width + len(" | ")].rpartition(" | ")[0] or text[:width]


def summary(overview: dict[str, Any], url: str, running_s: float) -> str:
    """The line for an answer of `/traffic/overview`."""
    lost = sum(overview["loss"].values())
    minutes, seconds = divmod(int(running_s), 60)
    hours, minutes = divmod(minutes, 60)
    pods = overview["totalPods"]
    parts = [
        f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}",
        f"{pods} pod" if pods == 1 else f"{pods} pods",
        f"{overview['packetsPerSec']} packets/s",
        f"inside {overview['internalBandwidthPerSec']}/s",
        f"outside {overview['externalBandwidthPerSec']}/s",
        f"{lost} lost",
        url,
    ]
    return " | ".join(parts)
