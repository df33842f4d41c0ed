"""The processes of a session: started, watched, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import services
from services.launcher.child import User, command
from services.runtime.errors import PodloxxError
from services.runtime.log import get_logger

_log = get_logger(__name__)

_END_S: Final = 12.0
"""Longer than a service's own deadline, so that its last words are heard."""
_TAIL: Final = 4000
T = TypeVar("T")


class ChildError(PodloxxError):
    """A child ended although it should not have; its own sentence and exit code, if it left any."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(slots=True)
class Child:
    """One process; `log` is where it writes."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def failure(self) -> ChildError:
        """Why it ended, in its own words where it left a sentence."""
        code = self.process.returncode or 0
        lines = self.log.read_bytes()[-_TAIL:].decode(errors="replace").strip().splitlines()
        said = [line.removeprefix(f"{self.name}: ") for line in lines if line.startswith(f"{self.name}: ")]
        if said:
            return ChildError(said[-1], code if 0 < code < 5 else 1)
        how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
        last = f"; its last line was: {lines[-1]}" if lines else ""
        return ChildError(f"{self.name} ended {how}{last}", 1)


@dataclass(slots=True)
class Children:
    """All children of a session, in the order in which they were started."""

    folder: Path
    parent_pid: int
    running: list[Child] = field(default_factory=list)

    async def start(
        self,
        name: str,
        argv: Sequence[str],
        user: User,
        *,
        capabilities: frozenset[str] = frozenset(),
        netns: Path | None = None,
    ) -> Child:
        """Start a program; its output goes to a file in the session's folder."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command(argv, user, capabilities=capabilities, netns=netns),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=Path(services.__file__).resolve().parent.parent,
                # CTRL+C on the terminal reaches the launcher alone, which ends them in order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self.running.append(child)
        return child

    async def service(
        self,
        name: str,
        settings: Mapping[str, str | float],
        user: User,
        *,
        label: str = "",
        capabilities: frozenset[str] = frozenset(),
        netns: Path | None = None,
    ) -> Child:
        """Start `python -m services.<name>` with these settings."""
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
        argv = [sys.executable, "-m", f"services.{name}", f"--parent-pid={self.parent_pid}", *flags]
        child = await self.start(label or name, argv, user, capabilities=capabilities, netns=netns)
        child.name = name
        return child

    async def unless_one_ends(
        self, work: asyncio.Task[T], *, but: Child | None = None, end_requested: asyncio.Event | None = None
    ) -> T | None:
        """The result of `work`, or None once the end is requested.

        Raises ChildError as soon as a child ends before that; `but` may end with exit code 0.
        """
        waits = {asyncio.ensure_future(_failed(child, may_end=child is but)): child for child in self.running}  # noqa: TID251
        asked = asyncio.ensure_future(end_requested.wait()) if end_requested else None  # noqa: TID251
        try:
            others = [asked] if asked else []
            await asyncio.wait([work, *waits, *others], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            for wait, child in waits.items():
                if wait.done():
                    raise child.failure
            return None
        finally:
            for task in (*waits, *([asked] if asked else []), work):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work

    async def end(self, first: Sequence[str] = ()) -> None:
        """End all: those named first, then the others, the store last."""
        order = [*first, *(child.name for child in self.running if child.name != "redis"), "redis"]
        for name in dict.fromkeys(order):
            ending = [child for child in self.running if child.name == name]
            for child in ending:
                with contextlib.suppress(ProcessLookupError):
                    child.process.terminate()
            for child in ending:
                await _ended(child)
        self.running.clear()

    def kill(self) -> None:
        """End all at once."""
        for child in self.running:
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()


async def _failed(child: Child, *, may_end: bool) -> None:
    """Return once a child ended as it should not have."""
    code = await child.process.wait()
    if may_end and code == 0:
        await asyncio.Event().wait()


async def _ended(child: Child) -> None:
    try:
        await asyncio.wait_for(child.process.wait(), _END_S)
    except TimeoutError:
        _log.warning("child-killed", child=child.name)
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()
