"""`podloxx-launch` as a process, as a user starts it, and what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.netns import Namespace

PROGRAM = Path(sys.executable).parent / "podloxx-launch"
ROOT = Path(__file__).parents[2]
_started: set[int] = set()
_names: set[str] = set()
"""Of sessions whose launcher is among those."""


@dataclass(slots=True)
class Launched:
    """A running launcher; `inside` is the namespace it runs in."""

    process: subprocess.Popen[str]
    inside: Namespace | None
    port: int = 0
    said: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> Any:
        """The JSON behind a path."""
        status, body, _ = self.ask(path, **headers)
        assert status == 200, (status, body)
        return json.loads(body)

    def ask(self, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of an answer."""

        def request() -> tuple[int, bytes, dict[str, str]]:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", path, headers={name.replace("_", "-"): v for name, v in headers.items()})
                answer = connection.getresponse()
                return answer.status, answer.read(), dict(answer.headers)

        return self.inside.call(request) if self.inside else request()

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as CTRL+C does; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


def command(*arguments: str, inside: Namespace | None = None) -> list[str]:
    """The command line of the launcher."""
    argv = [str(PROGRAM), *arguments]
    return inside.command(*argv) if inside else argv


@contextlib.contextmanager
def launched(*arguments: str, inside: Namespace | None = None) -> Iterator[Launched]:
    """The launcher, running and showing its page on a free port; ended at the end."""
    argv = command(*arguments, "--port=0", "--no-browser", inside=inside)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        one = Launched(process, inside)
        ours(process.pid)
        try:
            one.port = port_of(one)
            ours(process.pid)
            yield one
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.communicate(timeout=40)
            finally:
                process.kill()


def ran(*arguments: str, inside: Namespace | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """The launcher, run to its end."""
    argv = command(*arguments, inside=inside)
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options
    ) as process:
        ours(process.pid)
        try:
            out, said = process.communicate(timeout=60)
        finally:
            process.kill()
    return subprocess.CompletedProcess(argv, process.returncode, out, said)


@contextlib.asynccontextmanager
async def piped(*argv: str | Path, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Any program with what it says in pipes; it is gone at the end and the pipes are closed, whatever became of it.

    One that is left makes whichever test fail in which the garbage collector finds it.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # To the end of both pipes, which closes them.
        await process.communicate()


def unmeasured() -> dict[str, str]:
    """The environment for processes of users who may not write what was measured of their coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # noqa: TID251


def children_of(pid: int) -> set[int]:
    """The processes that `pid` started, and theirs."""
    found: set[int] = set()
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown} - found
        found |= grown
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def sessions() -> dict[str, int]:
    """The folders of all sessions, each with its launcher's process id."""
    found = {}
    for folder in (*Path("/run").glob("podloxx-*"), *Path("/tmp").glob("podloxx-*")):
        with contextlib.suppress(OSError, ValueError):
            found[str(folder)] = int(json.loads((folder / "launcher.json").read_text())["pid"])
    return found


def ours(pid: int) -> None:
    """Remember a launcher that a test has started, and its session once there is one."""
    _started.add(pid)
    _names.update(folder.rpartition("-")[2] for folder, launcher in sessions().items() if launcher in _started)


def leftovers() -> set[str]:
    """Folders and namespaces of sessions that these tests began and whose launcher is gone.

    Other runs of the tests on this machine have sessions as well, and kill their launchers too.
    """
    there = {folder: pid for folder, pid in sessions().items() if pid in _started}
    _names.update(folder.rpartition("-")[2] for folder in there)
    busy = {folder.rpartition("-")[2] for folder, pid in there.items() if alive(pid)}
    spaces = {str(path) for name in _names - busy for path in Path("/run/netns").glob(f"plx-{name}-*")}
    return spaces | {folder for folder, pid in there.items() if not alive(pid)}


def port_of(one: Launched) -> int:
    assert one.process.stdout is not None
    stdout = one.process.stdout
    for line in stdout:
        one.said.append(line)
        if match := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
            return int(match[1])
    one.process.wait()
    assert one.process.stderr is not None
    raise AssertionError(f"it ended with {one.process.returncode}: {one.process.stderr.read()}")


async def port_told(process: asyncio.subprocess.Process, within_s: float) -> int:
    """The port of a launcher's page once it is told."""
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(within_s):
        while line := (await process.stdout.readline()).decode():
            if found := re.search(r"live traffic at http://127\.0\.0\.1:(\d+)", line):
                return int(found[1])
    raise AssertionError((await process.stderr.read()).decode())
