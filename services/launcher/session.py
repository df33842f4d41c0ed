"""A session's private folder: who owns it, what is in it, and what dead sessions left."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.launcher.child import User, open_to_all
from services.runtime.errors import LeftoverError, PodloxxError

_PREFIX: Final = "podloxx-"
_NAME: Final = re.compile(r"podloxx-([a-z0-9]{8})")
_UNNAMED: Final = re.compile(r"\.podloxx-(\d+)-\w+")
"""A session that is being made, with its launcher's number."""
_STATE: Final = "launcher.json"
_PS_S: Final = 5.0
_START_TICKS_FIELD: Final = 19
"""Of /proc/PID/stat, counted after the name in parentheses."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the launcher."""

    name: str
    folder: Path

    def secret(self, name: str, content: bytes, user: User) -> Path:
        """A file that only `user` may read."""
        path = self.folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if user.uid is not None and user.gid is not None:
                os.fchown(descriptor, user.uid, user.gid)
            file.write(content)
        return path

    def lend(self, path: Path, user: User) -> Path:
        """The file's absolute path; where others may not read it that of a copy for `user` alone.

        Files in the session's own folder are for the services as they are.
        """
        if user.uid is None or open_to_all(path) or path.parent == self.folder:
            return path.absolute()
        return self.secret(f"lent-{path.name}", path.read_bytes(), user)


def write_whole(path: Path, content: bytes) -> None:
    """Write so that a reader sees the old file or the new one; readable by all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o644)
    partial.replace(path)


def base() -> Path:
    """The folder in which sessions have theirs: gone with a reboot, writable for us."""
    # The runtime folder of a user is the only variable besides PODLOXX_… that is read.
    given = os.environ.get("XDG_RUNTIME_DIR", "")  # noqa: TID251
    for candidate in (Path("/run") if os.geteuid() == 0 else Path(given or tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
        # Socket paths end at 107 characters.
        if os.access(candidate, os.W_OK) and len(str(candidate)) < 60:
            return candidate
    raise PodloxxError("no folder for the session's sockets: neither XDG_RUNTIME_DIR nor /tmp can be written")


def begin(gid: int | None) -> Session:
    """A new session; members of `gid` may pass its folder, nobody else."""
    name = secrets.token_hex(4)
    folder = base() / f"{_PREFIX}{name}"
    # Complete before it has its name: another launcher that cleans up takes a folder without a
    # state for a dead session's.
    made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}{os.getpid()}-", dir=folder.parent))
    state = {"pid": os.getpid(), "start_ticks": _start_ticks(os.getpid())}
    (made / _STATE).write_text(json.dumps(state))
    made.rename(folder)
    if gid is not None:
        os.chown(folder, -1, gid)
        folder.chmod(0o710)
    return Session(name, folder)


def end(session: Session) -> None:
    """Remove the session's folder; raises LeftoverError naming what stays."""
    try:
        shutil.rmtree(session.folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LeftoverError(f"{session.folder} could not be removed: {error.strerror}; remove it by hand") from error


def clean() -> list[str]:
    """Remove the folders of sessions whose launcher is gone; their names."""
    removed = []
    for folder in base().iterdir():
        match = _NAME.fullmatch(folder.name) or _UNNAMED.fullmatch(folder.name)
        if match and folder.is_dir() and not folder.is_symlink() and not _alive(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed


def alive(name: str) -> bool | None:
    """Whether a session's launcher lives; None for a name without a folder."""
    folder = base() / f"{_PREFIX}{name}"
    return _alive(folder) if folder.is_dir() else None


def _alive(folder: Path) -> bool:
    try:
        if folder.stat().st_uid != os.geteuid():
            return True
        if match := _UNNAMED.fullmatch(folder.name):
            return _start_ticks(int(match[1])) is not None
        state = json.loads((folder / _STATE).read_bytes())
        return state["start_ticks"] is not None and _start_ticks(int(state["pid"])) == state["start_ticks"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _start_ticks(pid: int) -> int | str | None:
    """When a process started, so that a number that is used again is not taken for it."""
    if sys.platform != "linux":
        return _start_told(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[_START_TICKS_FIELD])


def _start_told(pid: int) -> str | None:
    """The same as `ps` tells it, where there is no /proc."""
    argv = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PS_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
