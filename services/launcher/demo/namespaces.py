"""Named network namespaces under /run/netns: make, enter, list, remove.

Every function acts on the calling thread only (a network namespace belongs to a thread), so
the event loop's thread never leaves its own namespace: the world is built in a thread apart.
`/proc/thread-self` is used all over, as `/proc/self` means the process's main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.runtime.errors import PodloxxError, PrivilegeError

RUN_DIR: Final = Path("/run/netns")
"""Where iproute2 has them."""

_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SHARED: Final = 1 << 20
_MNT_DETACH: Final = 2
_OWN: Final = "/proc/thread-self/ns/net"
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_PRIVATE: list[Path] = []
"""Our own folder in their place, where nobody else could see them anyway."""

PRIVILEGE_SENTENCE: Final = (
    "The demo makes network namespaces, which needs CAP_SYS_ADMIN and CAP_NET_ADMIN: "
    "run it as root (sudo podloxx-launch demo)."
)


def keep_in(folder: Path) -> None:
    """Keep the names of this process's namespaces in `folder`, as a user namespace may not write to /run/netns."""
    folder.mkdir(mode=0o700)
    _PRIVATE[:] = [folder]


def path_of(name: str) -> Path:
    """Where the namespace `name` is found by `nsenter --net=`."""
    return _folder() / name


def create(name: str) -> None:
    """Make the namespace `name`; the thread is back in its own afterwards.

    PrivilegeError without CAP_SYS_ADMIN, PodloxxError when the name is taken.
    """
    with _translating(name), _back_home():
        _share_run_dir()
        os.close(os.open(path_of(name), os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
        try:
            _check(_LIBC.unshare(_CLONE_NEWNET), "unshare")
            _mount(_OWN, path_of(name), _MS_BIND)
        except OSError:
            path_of(name).unlink()
            raise


def remove(name: str) -> None:
    """Remove the name; the kernel ends the namespace with its last process. Idempotent."""
    path = path_of(name)
    with _translating(name):
        if _LIBC.umount2(os.fsencode(path), _MNT_DETACH) != 0:
            code = ctypes.get_errno()
            # EINVAL: a name without a namespace, left by a crash between the two steps.
            if code not in {errno.EINVAL, errno.ENOENT}:
                raise OSError(code, os.strerror(code), str(path))
        path.unlink(missing_ok=True)


def names() -> list[str]:
    """All names there are, also those of others."""
    try:
        return sorted(path.name for path in _folder().iterdir())
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Run the block's code of this thread in the namespace `name`."""
    with _translating(name), opened(name) as fd, _back_home():
        _check(_LIBC.setns(fd, _CLONE_NEWNET), "setns")
        yield


@contextlib.contextmanager
def opened(name: str) -> Iterator[int]:
    """A file descriptor of the namespace `name`, as netlink takes it for a link's other end."""
    fd = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def set_net(key: str, value: int) -> None:
    """Write `/proc/sys/net/<key>` of the thread's namespace; PodloxxError where that is barred."""
    try:
        Path("/proc/sys/net", key).write_text(str(value), encoding="ascii")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise PodloxxError(
            "The demo sets net.* of its own namespaces, but /proc/sys is read-only here: "
            "in a container, give it the full privileges of a host."
        ) from error


def has_ipv6() -> bool:
    """Whether this kernel was started with IPv6 at all."""
    return Path("/proc/sys/net/ipv6").exists()


def exists(name: str) -> bool:
    """Whether the name stands for a namespace; a crash can leave a plain file."""
    try:
        return path_of(name).stat().st_dev == Path(_OWN).stat().st_dev
    except FileNotFoundError:
        return False


def inhabited() -> set[str]:
    """The names in whose namespace some process lives."""
    living = {_identity(Path("/proc", pid.name, "ns/net")) for pid in Path("/proc").iterdir() if pid.name.isdigit()}
    return {name for name in names() if (identity := _identity(path_of(name))) and identity in living}


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells namespaces apart; None for what ended meanwhile or is not ours to see."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _folder() -> Path:
    return _PRIVATE[0] if _PRIVATE else RUN_DIR


def _share_run_dir() -> None:
    """Make /run/netns what iproute2 makes of it: a shared mount, so that others see our names."""
    if _PRIVATE:
        return
    RUN_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        _mount("", RUN_DIR, _MS_SHARED | _MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
            raise
        _mount(str(RUN_DIR), RUN_DIR, _MS_BIND | _MS_REC)
        _mount("", RUN_DIR, _MS_SHARED | _MS_REC)


def _mount(source: str, target: Path, flags: int) -> None:
    result = _LIBC.mount(os.fsencode(source), os.fsencode(target), b"none", ctypes.c_ulong(flags), None)
    _check(result, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


@contextlib.contextmanager
def _back_home() -> Iterator[None]:
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            _check(_LIBC.setns(home, _CLONE_NEWNET), "setns")
        except PermissionError:
            # The root of a user namespace cannot go back to a network that is not its own. What this
            # thread does next has to be somewhere, but not in the namespace that it leaves.
            _check(_LIBC.unshare(_CLONE_NEWNET), "unshare")
        finally:
            os.close(home)


@contextlib.contextmanager
def _translating(name: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise PrivilegeError(PRIVILEGE_SENTENCE) from error
    except FileExistsError as error:
        raise PodloxxError(f"The network namespace {name} is there already: end the session that made it.") from error
    except OSError as error:
        raise PodloxxError(
            f"The network namespace {name} cannot be used: {error.strerror} ({error.filename})."
        ) from error
