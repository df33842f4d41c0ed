"""The processes of the demo's pods: started in their namespace without any privilege, kept, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import services
from services.launcher import child
from services.runtime.errors import PodloxxError
from services.runtime.log import get_logger

NOBODY: Final = 65534
END_S: Final = 2.0  # a pod ends within some milliseconds of SIGTERM
RESTART_S: Final = 1.0
YOUNG_S: Final = 30.0  # who dies later than this was in order, and was killed from outside
MAX_DEATHS: Final = 4  # of one pod in a row: then it is no accident
LAST_WORDS: Final = 400  # characters of a dead pod's last line that are told

_LOG = get_logger("demo")


@dataclass(frozen=True, slots=True)
class PodFiles:
    """Where a session's processes find their plan, and leave their counters if wanted."""

    plan: Path
    report_dir: Path | None = None


def missing_tools() -> list[str]:
    """The programs of util-linux that pods are started with and that are not there."""
    return [tool for tool in ("nsenter", "setpriv") if shutil.which(tool) is None]


def unprivileged_uid() -> int | None:
    """The uid of the pods; None (stay who we are, without capabilities) where it could not start.

    An interpreter under a home that only its owner may enter (root's pyenv) is such a case, and a
    user namespace, in which there is nobody else.
    """
    if child.bound_to_launcher():
        return None
    paths = (sys.executable, os.path.realpath(sys.executable), os.__file__, __file__)
    return NOBODY if all(_open_to_all(Path(path)) for path in paths) else None


def _open_to_all(path: Path) -> bool:
    """Whether anybody may read the file and pass every directory above it."""
    if not path.stat().st_mode & stat.S_IROTH:
        return False
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)


def command(inner: Sequence[str], netns: Path, uid: int | None) -> list[str]:
    """The command line that runs `inner` in the namespace without any privilege, as `uid` if given.

    It dies with the thread that started it. setpriv sets that last, after the change of user,
    which would clear it; and nothing here forks, so that the process is the launcher's child.
    """
    user = [] if uid is None else [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    drop = ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    return ["nsenter", f"--net={netns}", "--", "setpriv", *user, *drop, "--pdeathsig=KILL", "--", *inner]


async def start(role: str, netns: Path, files: PodFiles, errors: BinaryIO) -> asyncio.subprocess.Process:
    """Start the process of `role` in the namespace; PodloxxError when that is impossible.

    Plan and report are handed over as open files: an unprivileged uid may not pass the
    launcher's private directory. It gets a session of its own, so that the terminal's CTRL+C
    reaches only the launcher.
    """
    inner = [sys.executable, "-m", "services.launcher.demo.pod", role]
    inner += ["--plan", "/dev/stdin", "--parent", str(os.getpid())]
    with contextlib.ExitStack() as stack:
        passed: list[int] = []
        if files.report_dir is not None:
            report = stack.enter_context((files.report_dir / f"{role}.jsonl").open("ab"))
            os.fchmod(report.fileno(), 0o666)  # the pod opens it again under its own uid
            passed.append(report.fileno())
            inner += ["--report", f"/proc/self/fd/{report.fileno()}"]
        try:
            return await asyncio.create_subprocess_exec(
                *command(inner, netns, unprivileged_uid()),
                stdin=stack.enter_context(files.plan.open("rb")),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                pass_fds=passed,
                cwd=Path(services.__file__).resolve().parent.parent,
                start_new_session=True,
            )
        except OSError as error:
            raise PodloxxError(f"The demo's pod {role} cannot be started: {error}.") from error


async def end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL for what is still there after END_S. Idempotent."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        # Not asyncio.timeout: in a task that is being cancelled, as here, Python 3.11.2's takes
        # its own alarm for one more cancel and lets CancelledError out.
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        _LOG.warning("pod_killed", pid=process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()


async def keep(role: str, netns: Path, files: PodFiles) -> None:
    """Keep the process of `role` running until cancelled, as a node does with its pods.

    PodloxxError when it died MAX_DEATHS times in a row, each time young.
    """
    loop = asyncio.get_running_loop()
    deaths = 0
    while True:
        born_s = loop.time()
        with tempfile.TemporaryFile() as errors:
            process = await start(role, netns, files, errors)
            try:
                code = await process.wait()
            finally:
                await end(process)
            words = _last_words(errors)
        deaths = deaths + 1 if loop.time() - born_s < YOUNG_S else 1
        _LOG.warning("pod_died", role=role, code=code, deaths=deaths, said=words)
        if deaths == MAX_DEATHS:
            raise PodloxxError(f"The demo's pod {role} died {deaths} times, last with code {code}: {words}")
        await asyncio.sleep(RESTART_S)


def _last_words(errors: BinaryIO) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - LAST_WORDS))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no message"
