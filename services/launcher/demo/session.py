"""Which demo sessions there are: their names, who owns them, and what dead ones left behind."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.launcher.demo import namespaces, wiring
from services.launcher.session import write_whole
from services.runtime.errors import PodloxxError, UsageError

PREFIX: Final = "plx"
SESSION_NAME: Final = re.compile(r"[a-z0-9]{1,16}")

# Our whole name, not the prefix alone: a stranger's `plx-…` is none of ours.
_NAMESPACE: Final = re.compile(r"plx-([a-z0-9]{1,16})-(?:node-[a-z]|internet|pod-[a-z0-9-]+)")
_START_TIME_FIELD: Final = 19  # of /proc/PID/stat, counted after the name in parentheses


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that cannot be taken for another that got its number later."""

    pid: int
    start_ticks: int  # since boot


def checked(session: str) -> str:
    """`session` itself; UsageError when it cannot be part of a namespace's name."""
    if not SESSION_NAME.fullmatch(session):
        raise UsageError(f"A session is named by 1 to 16 lower-case letters and digits, not {session!r}.")
    return session


def node_namespace(session: str, node: str) -> str:
    """`node` is the node's whole name."""
    return f"{PREFIX}-{session}-{node}"


def internet_namespace(session: str) -> str:
    """The namespace of all hosts outside."""
    return f"{PREFIX}-{session}-internet"


def pod_namespace(session: str, role: str) -> str:
    """`role` is the pod's short name."""
    return f"{PREFIX}-{session}-pod-{role}"


def session_of(namespace: str) -> str | None:
    """The session that the namespace belongs to; None for a stranger's."""
    match = _NAMESPACE.fullmatch(namespace)
    return match[1] if match else None


def namespaces_of(session: str) -> list[str]:
    """All namespaces of one session that are there now."""
    return [name for name in namespaces.names() if session_of(name) == session]


def this_process() -> Owner:
    """The process that this code runs in."""
    return Owner(os.getpid(), _start_ticks(os.getpid()) or 0)


def state_file(runtime_dir: Path, session: str) -> Path:
    """Who owns the session: `{version, pid, start_ticks}`."""
    return runtime_dir / f"demo-{session}.json"


def plan_file(runtime_dir: Path, session: str) -> Path:
    """What the session's pods do."""
    return runtime_dir / f"demo-{session}-plan.json"


def directory_file(runtime_dir: Path, session: str) -> Path:
    """Whose address is whose, for the aggregator."""
    return runtime_dir / f"demo-{session}-directory.json"


def claim(runtime_dir: Path, session: str) -> None:
    """Note this process as the session's owner."""
    owner = this_process()
    content = {"version": 1, "pid": owner.pid, "start_ticks": owner.start_ticks}
    write_whole(state_file(runtime_dir, session), json.dumps(content).encode())


def forget(runtime_dir: Path, session: str) -> None:
    """Remove the session's files."""
    for path in (state_file, plan_file, directory_file):
        path(runtime_dir, session).unlink(missing_ok=True)


def alive_by(runtime_dir: Path) -> Callable[[str], bool]:
    """A judge for `clean_leftovers`: does the launcher of this session still live?

    A session without a state file here may be another runtime directory's: it counts as alive
    while a process lives in one of its namespaces (the pods' processes die with their launcher).
    """

    def alive(session: str) -> bool:
        owner = _owner(runtime_dir, session)
        if owner is not None:
            return _start_ticks(owner.pid) == owner.start_ticks
        return any(session_of(name) == session for name in namespaces.inhabited())

    return alive


def clean_leftovers(session_alive: Callable[[str], bool], runtime_dir: Path | None = None) -> list[str]:
    """Remove the namespaces of every session that is not alive; their names are returned.

    With `runtime_dir` the dead sessions' files there go too. Blocks for some milliseconds per
    namespace and enters them: not for the event loop's thread (`asyncio.to_thread`).
    PrivilegeError when root is needed and missing.
    """
    found = {session for name in namespaces.names() if (session := session_of(name))}
    if runtime_dir is not None:
        found |= _sessions_with_files(runtime_dir)
    removed: list[str] = []
    for session in sorted(found):
        if session_alive(session):
            continue
        removed += remove_namespaces(session)
        if runtime_dir is not None:
            forget(runtime_dir, session)
    return removed


def remove_namespaces(session: str) -> list[str]:
    """Remove all namespaces of the session with the links in them; their names are returned."""
    ours = namespaces_of(session)
    for name in ours:
        try:
            if namespaces.exists(name):
                wiring.strip(name)
        except PodloxxError:
            if namespaces.exists(name):  # else another start cleaned it at the same time
                raise
        namespaces.remove(name)
    return ours


def _sessions_with_files(runtime_dir: Path) -> set[str]:
    found = (re.fullmatch(r"demo-([a-z0-9]{1,16})\.json", p.name) for p in runtime_dir.glob("demo-*"))
    return {match[1] for match in found if match}


def _owner(runtime_dir: Path, session: str) -> Owner | None:
    """Who owns the session by its state file; None without one that can be read."""
    try:
        raw = json.loads(state_file(runtime_dir, session).read_bytes())
        return Owner(int(raw["pid"]), int(raw["start_ticks"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[_START_TIME_FIELD])
