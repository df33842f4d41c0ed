"""A heartbeat file, whose age tells a probe (`python -m services.runtime.health FILE SECONDS`) whether a process still does its work."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from services.runtime.errors import UsageError


class Heartbeat:
    """Touches a file at every beat; without a path it does nothing."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def beat(self) -> None:
        """Say that the work goes on; raises UsageError where the file cannot be written."""
        if self._path is None:
            return
        try:
            self._path.touch()
        except OSError as error:
            raise UsageError(f"cannot write --heartbeat-file {self._path}: {error.strerror}") from error


def age_s(path: Path, now_s: float) -> float:
    """Seconds between a heartbeat's last beat and `now_s` (Unix time); raises FileNotFoundError."""
    return now_s - path.stat().st_mtime


def main(argv: Sequence[str], now_s: float) -> int:
    """The exit code of a probe: `FILE SECONDS`, 0 where the last beat is no older; the reason goes to standard error."""
    name, longest_s = argv
    try:
        found = age_s(Path(name), now_s)
    except OSError as error:
        print(f"no heartbeat: {name}: {error.strerror}", file=sys.stderr)
        return 1
    if found > float(longest_s):
        print(f"the last heartbeat is {found:.0f} s old, more than {longest_s} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], time.time_ns() / 1e9))
