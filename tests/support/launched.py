"""`podloxx-launch` as a process, as a user starts it, and what it leaves."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.netns import Namespace
from tests.support.wait import wait_until

PROGRAM = Path(sys.executable).parent / "podloxx-launch"
ROOT = Path(__file__).parents[2]


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
        try:
            one.port = _port(one)
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
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False, **options)


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
    for folder in Path("/run").glob("podloxx-*"):
        with contextlib.suppress(OSError):
            found[str(folder)] = int(json.loads((folder / "launcher.json").read_text())["pid"])
    return found


def leftovers() -> set[str]:
    """Folders of sessions, and the namespaces of their demos, whose launcher is gone: another test's may run."""
    there = sessions()
    busy = {folder.rpartition("-")[2] for folder, pid in there.items() if alive(pid)}
    named = "plx-" + "[0-9a-f]" * 8
    spaces = {str(path): path.name.split("-")[1] for path in Path("/run/netns").glob(f"{named}-*")}
    dead = {folder for folder, pid in there.items() if not alive(pid)}
    return dead | {path for path, session in spaces.items() if session not in busy}


def _port(one: Launched) -> int:
    assert one.process.stdout is not None
    stdout = one.process.stdout
    for line in stdout:
        one.said.append(line)
        if match := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
            return int(match[1])
    one.process.wait()
    assert one.process.stderr is not None
    raise AssertionError(f"it ended with {one.process.returncode}: {one.process.stderr.read()}")


def wait_for_total(one: Launched, condition: Any, what: str) -> Any:
    """`/traffic/total` once `condition` holds for it."""
    seen: list[Any] = []

    def holds() -> bool:
        seen[:] = [one.get("/traffic/total")]
        return bool(condition(seen[0]))

    wait_until(holds, what, timeout_s=20)
    return seen[0]
