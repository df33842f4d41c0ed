"""Control groups for tests: all processes below a group are known and can be ended, whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.wait import wait_until

_ROOT: Final = Path("/sys/fs/cgroup")
_END_S: Final = 20.0


def make(name: str, *inner: str) -> None:
    """A group and groups inside it, in every hierarchy, with all that the machine gives."""
    for hierarchy in _hierarchies():
        for path in (hierarchy / name, *(hierarchy / name / one for one in inner)):
            path.mkdir(exist_ok=True)
            for given in ("cpuset.cpus", "cpuset.mems"):
                if hierarchy != _ROOT and (path / given).exists():
                    (path / given).write_text((path.parent / given).read_text())
        if hierarchy == _ROOT:
            controllers = (_ROOT / "cgroup.controllers").read_text().split()
            for path in (_ROOT, _ROOT / name):
                (path / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in controllers))


def entrance(name: str) -> Path:
    """The file that a process writes its id to in order to be in the group."""
    known = {hierarchy.name: hierarchy for hierarchy in _hierarchies()}
    return known.get("pids", next(iter(known.values()))) / name / "cgroup.procs"


def folders(name: str) -> list[Path]:
    """The folders of a group, one per hierarchy."""
    return [hierarchy / name for hierarchy in _hierarchies() if (hierarchy / name).is_dir()]


def processes(name: str) -> set[int]:
    """The processes of a group and of all groups inside it."""
    found: set[int] = set()
    for path in _paths(name):
        # Groups come and go meanwhile.
        with contextlib.suppress(OSError):
            found.update(map(int, (path / "cgroup.procs").read_text().split()))
    return found


def end(name: str) -> None:
    """End all processes below a group, and wait until they are gone."""

    def ended() -> bool:
        left = processes(name)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(ended, f"no process is left in the control group {name}", _END_S)


def remove(name: str) -> None:
    """Remove a group with all groups inside it, which have no process any more."""
    for path in sorted(_paths(name), key=lambda path: len(path.parts), reverse=True):

        def gone(path: Path = path) -> bool:
            # A process that ended still counts for a moment.
            with contextlib.suppress(OSError):
                path.rmdir()
            return not path.exists()

        wait_until(gone, f"{path} is removed")


def there(prefix: str) -> set[str]:
    """The names of the outermost groups that begin with `prefix`."""
    return {path.name for hierarchy in _hierarchies() for path in hierarchy.glob(f"{prefix}*")}


def _paths(name: str) -> Iterator[Path]:
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name):
            yield Path(folder)


def _hierarchies() -> list[Path]:
    """One with version 2; with version 1 one per controller, besides which version 2 may have a place of its own."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [
        Path(where) for _, where, kind, *_ in mounts if kind in {"cgroup", "cgroup2"} and _ROOT in Path(where).parents
    ]
    return found or [_ROOT]
