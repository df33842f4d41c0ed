"""How child processes are started: with the least privileges, and never outliving the launcher."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import services
from services.runtime.errors import PodloxxError

_UIDS: Final = range(61184, 65520)
"""systemd's range for users that exist only as long as a service; nobody else hands these out."""
_UID_MAP: Final = Path("/proc/self/uid_map")


@dataclass(frozen=True, slots=True)
class User:
    """Who a child runs as; None is "as the launcher", without its capabilities."""

    uid: int | None
    gid: int | None


def command(
    inner: Sequence[str], user: User, *, capabilities: frozenset[str] = frozenset(), netns: Path | None = None
) -> list[str]:
    """The command line that runs `inner` as `user` with just these capabilities (`net_raw` …).

    Nothing in it forks, so the child is the launcher's own; the death signal is set last, after
    the change of user, which would clear it. Raises PodloxxError where util-linux is missing.
    """
    if missing := [tool for tool in ("setpriv", "nsenter") if shutil.which(tool) is None]:
        raise PodloxxError(f"{' and '.join(missing)} of util-linux cannot be found: install that package")
    argv = ["setpriv", "--no-new-privs", "--pdeathsig=KILL"]
    if os.geteuid() == 0:
        wanted = ",".join(["-all", *(f"+{name}" for name in sorted(capabilities))])
        argv += [f"--inh-caps={wanted}", f"--ambient-caps={wanted}", f"--bounding-set={wanted}"]
        if user.uid is not None:
            argv += [f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]
    enter = [] if netns is None else ["nsenter", f"--net={netns}", "--"]
    return [*enter, *argv, "--", *inner]


def session_users(names: Sequence[str]) -> tuple[dict[str, User], str]:
    """A user per child, all of one group; and why they are the launcher's own, if they are."""
    reason = _shared_reason()
    if reason:
        return dict.fromkeys(names, User(None, None)), reason
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    free = [uid for uid in _UIDS if uid not in taken]
    chosen = secrets.SystemRandom().sample(free, len(names))
    group = chosen[0]
    return {name: User(uid, group) for name, uid in zip(names, chosen, strict=True)}, ""


def _shared_reason() -> str:
    if os.geteuid() != 0:
        return "the launcher is not root"
    if _UID_MAP.read_text().split()[:3] != ["0", "0", "4294967295"]:
        return "in this user namespace there are no other users"
    for path in (sys.executable, os.path.realpath(sys.executable), os.__file__, services.__file__):
        if not _open_to_all(Path(path)):
            return f"other users may not read {path}, which the services need"
    return ""


def _open_to_all(path: Path) -> bool:
    readable = path.stat().st_mode & stat.S_IROTH
    return bool(readable) and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)
