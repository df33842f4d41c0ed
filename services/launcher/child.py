"""How child processes are started: with the least privileges, and never outliving the launcher."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import services
from services.runtime.errors import PodloxxError

LINUX: Final = sys.platform == "linux"
"""Elsewhere only clusters are looked at: what that starts needs no privileges, and ends when its parent is gone."""
_UIDS: Final = range(61184, 65520)
"""systemd's range for users that exist only as long as a service; nobody else hands these out."""
_PROC: Final = Path("/proc/self")
_CAPABILITIES: Final = {
    "chown": 0,
    "dac_override": 1,
    "dac_read_search": 2,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "net_admin": 12,
    "net_raw": 13,
    "sys_admin": 21,
    "perfmon": 38,
    "bpf": 39,
}
"""Those that matter here, by the kernel's numbers."""
_TO_CHANGE_USERS: Final = ("chown", "dac_override", "kill", "setgid", "setuid")
"""To become another user, to hand it its files, to end it, and to remove what it made."""
_IMPORTED: Final = ("aiohttp", "msgpack", "numpy", "redis", "structlog")
"""One package of each sort that the services import: they may lie in several places."""


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
    if not LINUX:
        return list(inner)
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


def effective() -> frozenset[str]:
    """The capabilities of this process, of those that matter here; none where there is no such thing."""
    if not LINUX:
        return frozenset()
    lines = (_PROC / "status").read_text().splitlines()
    [mask] = [int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")]
    return frozenset(name for name, number in _CAPABILITIES.items() if mask >> number & 1)


def session_users(names: Sequence[str], programs: Iterable[Path] = ()) -> tuple[dict[str, User], str]:
    """A user per child, all of one group; and why they are not users of their own, if so.

    `programs` are files that they run, besides Python.
    """
    reason = bound_to_launcher()
    if reason:
        return dict.fromkeys(names, User(None, None)), reason
    # Only here: no other system than a Unix has them.
    import grp
    import pwd

    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    chosen = secrets.SystemRandom().sample([uid for uid in _UIDS if uid not in taken], len(names))
    # Also for children that share a user: nobody else is in this group.
    group = chosen[0]
    needed = [*map(Path, (sys.executable, os.path.realpath(sys.executable), os.__file__, services.__file__))]
    needed += [Path(spec.origin) for name in _IMPORTED if (spec := find_spec(name)) and spec.origin]
    private = next((path for path in (*needed, *programs) if not open_to_all(path)), None)
    if private is None:
        return {name: User(uid, group) for name, uid in zip(names, chosen, strict=True)}, ""
    reason = f"other users may not read {private}, which the services need"
    owners = {owner for path in (*needed, *programs) for owner in _barred_by(path)}
    if len(owners) == 1 and (owner := owners.pop()) != 0:
        return dict.fromkeys(names, User(owner, group)), reason
    return dict.fromkeys(names, User(None, None)), reason


def in_user_namespace() -> bool:
    """Whether our root is that of a user namespace, and so nobody outside."""
    return not _maps(range(2**32 - 1), (_PROC / "uid_map").read_text())


def open_to_all(path: Path) -> bool:
    """Whether every user may read the file."""
    return not _barred_by(path)


def bound_to_launcher() -> str:
    """Why children can be nobody but the launcher; empty where they can."""
    if not LINUX:
        return "this is not Linux"
    if os.geteuid() != 0:
        return "the launcher is not root"
    if missing := [name for name in _TO_CHANGE_USERS if name not in effective()]:
        return f"the launcher lacks {', '.join('CAP_' + name.upper() for name in missing)}"
    for ids in ("uid_map", "gid_map"):
        if not _maps(_UIDS, (_PROC / ids).read_text()):
            return "in this user namespace there are no other users"
    if (_PROC / "setgroups").read_text().strip() == "deny":
        return "in this user namespace groups cannot be given up"
    return ""


def _maps(wanted: range, table: str) -> bool:
    """Whether a user namespace knows all of these ids, by its uid_map or gid_map."""
    entries = [[int(number) for number in line.split()] for line in table.splitlines()]
    return any(first <= wanted[0] and wanted[-1] < first + count for first, _, count in entries)


def _barred_by(path: Path) -> list[int]:
    """The owners of the file and folders that keep others from reading `path`."""
    found = []
    for one in dict.fromkeys((path.absolute(), path.resolve())):
        steps = [(one, stat.S_IROTH), *((parent, stat.S_IXOTH) for parent in one.parents)]
        found += [at.stat().st_uid for at, needed in steps if not at.stat().st_mode & needed]
    return found
