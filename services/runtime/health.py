"""A heartbeat file: its age tells a probe whether a process still does its work."""

from __future__ import annotations

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
