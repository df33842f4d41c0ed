"""All that a cluster of the tests has on the machine goes by one name: its processes, namespaces, links and files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tests.support import cgroups, netns
from tests.support.netns import Namespace

PREFIX: Final = "plxkube"
_SPACES: Final = Path("/run/netns")
_KEPT: Final = "kept"
# The program becomes the shell's process, so it is in the group before it has a child.
_ENTER: Final = 'echo $$ >"$0" && exec "$@"'


@dataclass(slots=True)
class Site:
    """One cluster's name; `folder` has its files, and a lock that is held as long as whoever started it lives."""

    name: str
    lock: IO[str] | None = field(default=None, repr=False)
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)
    """What was started here, by name."""

    @classmethod
    def make(cls, *, kept: bool) -> Site:
        """A new one; one that is `kept` outlives its starter and is only ever removed by name."""
        site = cls(f"{PREFIX}{secrets.token_hex(4)}")
        site.folder.mkdir(mode=0o755)
        (site.folder / "log").mkdir()
        if kept:
            (site.folder / _KEPT).touch()
        site.lock = (site.folder / "lock").open("w")
        fcntl.flock(site.lock, fcntl.LOCK_EX)
        return site

    @property
    def folder(self) -> Path:
        return Path(tempfile.gettempdir(), self.name)

    @property
    def kept(self) -> bool:
        return (self.folder / _KEPT).exists()

    def space(self, label: str) -> Namespace:
        """Its network namespace of this label."""
        return Namespace(f"{self.name}-{label}")

    def start(self, name: str, *argv: str | Path, group: str = "system") -> subprocess.Popen[bytes]:
        """Start a program in the control group `group` of this cluster; what it writes is in `log/<name>`."""
        # One that is kept outlives this process, all others end with it.
        bound = [] if self.kept else ["setpriv", "--pdeathsig", "KILL"]
        enter = ["sh", "-c", _ENTER, str(cgroups.entrance(f"{self.name}/{group}"))]
        with (self.folder / "log" / name).open("ab") as log:
            process = subprocess.Popen(
                [*bound, *enter, *map(str, argv)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self.programs[name] = process
        return process

    def check(self) -> None:
        """Fail where a program has ended, with what it said."""
        ended = {name: one.returncode for name, one in self.programs.items() if one.poll() is not None}
        tails = [self.log(name) for name in ended]
        assert not ended, "\n".join([f"ended by themselves: {ended}", *tails])

    def log(self, *names: str, lines: int = 15) -> str:
        """The end of what each of these programs wrote; of all without a name."""
        tails = []
        for path in sorted((self.folder / "log").iterdir()):
            if not names or path.name in names:
                tails += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(tails)

    def owned(self) -> bool:
        """Whether somebody runs it: its starter lives, or it is kept."""
        if self.kept:
            return True
        try:
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def remove(self) -> None:
        """End all its processes and remove all its traces; quiet about what is gone already."""
        if self.name in cgroups.there(self.name):
            cgroups.end(self.name)
        for process in self.programs.values():
            # Killed, but nobody has asked how it ended; where it never reached its group it still runs.
            process.kill()
            process.wait()
        for path in _SPACES.glob(f"{self.name}-*"):
            netns.remove(Namespace(path.name))
        link = host_link(self.name)
        if Path("/sys/class/net", link).exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                netns.run("ip", "link", "del", "dev", link)
        for mount in reversed(mounts(self.folder)):
            netns.run("umount", "--lazy", mount)
        cgroups.remove(self.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not (left := traces(self.name)), f"left of {self.name}: {left}"
        if self.lock:
            self.lock.close()


def host_link(name: str) -> str:
    """The machine's own link to a cluster's control plane; a link's name has 15 characters at most."""
    return f"plx{name.removeprefix(PREFIX)}"


def sites() -> list[Site]:
    """All clusters that have left any trace on this machine."""
    folders = {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")}
    spaces = {path.name.partition("-")[0] for path in _SPACES.glob(f"{PREFIX}*")}
    return [Site(name) for name in sorted(folders | spaces | cgroups.there(PREFIX))]


def sweep() -> list[str]:
    """Remove what killed starters left; the names of those clusters."""
    dead = [site for site in sites() if not site.owned()]
    for site in dead:
        site.remove()
    return [site.name for site in dead]


def traces(name: str) -> list[str]:
    """What is left of a cluster, in words that say where to look."""
    left = [f"process {pid}" for pid in sorted(cgroups.processes(name))]
    left += [f"control group {one}" for one in sorted(cgroups.there(name))]
    left += [str(path) for path in sorted(_SPACES.glob(f"{name}-*"))]
    left += [f"link {one}" for one in os.listdir("/sys/class/net") if one == host_link(name)]  # noqa: PTH208
    left += [f"mount {one}" for one in mounts(Path(tempfile.gettempdir(), name))]
    left += [str(path) for path in [Path(tempfile.gettempdir(), name)] if path.exists()]
    return left


def mounts(folder: Path) -> list[str]:
    """What is mounted below a folder, in the order it was mounted."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if Path(place).is_relative_to(folder)]
