"""The processes of a session: started, watched, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import services
from services.launcher.child import User, command
from services.launcher.child_log import ChildLog, piped
from services.runtime.errors import PodloxxError
from services.runtime.log import get_logger
from services.runtime.settings import as_arguments

_log = get_logger(__name__)

_END_S: Final = 13.0
"""Longer than a service's own deadline, so that its last words are heard."""
_LAST_WORDS_S: Final = 1.0
"""What is in the pipe of a process that has ended is there at once; only a stranger could keep it open."""
_LAST_LINES: Final = 5
T = TypeVar("T")


class ChildError(PodloxxError):
    """A child ended although it should not have; its own sentence and exit code, if it left any."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(slots=True)
class Child:
    """One process; `service` is what it calls itself, `lent` are copies of files by the name that the user gave."""

    name: str
    service: str
    process: asyncio.subprocess.Process
    log: ChildLog
    output: asyncio.ReadTransport
    lent: Mapping[str, str]

    async def wait(self) -> int:
        """Its exit code, once it has ended and all that it said is in `log`."""
        code = await self.process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.log.closed(), _LAST_WORDS_S)
        return code

    @property
    def failure(self) -> ChildError:
        """Why it ended, in its own words where it left a sentence."""
        code = self.process.returncode or 0
        lines = self.log.lines
        said = [line.removeprefix(f"{self.service}: ") for line in lines if line.startswith(f"{self.service}: ")]
        if said:
            sentence = said[-1]
            for copy, given in self.lent.items():
                sentence = sentence.replace(copy, given)
            return ChildError(sentence, code if 0 < code < 5 else 1)
        how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
        last = "".join(f"\n  {line}" for line in lines[-_LAST_LINES:])
        return ChildError(f"{self.name} ended {how}{'; the last that it said:' if last else ''}{last}", 1)


@dataclass(slots=True)
class Children:
    """All children of a session, in the order in which they were started.

    `echo` is called with each line that one of them says.
    """

    folder: Path
    parent_pid: int
    echo: Callable[[str], None] | None = None
    running: list[Child] = field(default_factory=list)
    lent: dict[str, str] = field(default_factory=dict)

    async def start(
        self,
        name: str,
        argv: Sequence[str],
        user: User,
        *,
        service: str = "",
        capabilities: frozenset[str] = frozenset(),
        netns: Path | None = None,
    ) -> Child:
        """Start a program, the service of that name where it is one."""
        log = ChildLog(self.folder / f"{name}.log", self._echo(name))
        output, transport = await piped(log)
        try:
            # Called on the main thread: the death signal comes when the thread ends that forked.
            process = await asyncio.create_subprocess_exec(
                *command(argv, user, capabilities=capabilities, netns=netns),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=Path(services.__file__).resolve().parent.parent,
                # CTRL+C on the terminal reaches the launcher alone, which ends them in order.
                start_new_session=True,
            )
        except BaseException:
            transport.close()
            raise
        finally:
            os.close(output)
        child = Child(name, service or name, process, log, transport, self.lent)
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
        flags = as_arguments(parent_pid=self.parent_pid, **settings)
        argv = [sys.executable, "-m", f"services.{name}", *flags]
        return await self.start(label or name, argv, user, service=name, capabilities=capabilities, netns=netns)

    async def unless_one_ends(
        self, work: Coroutine[Any, Any, T], *, but: Child | None = None, end_requested: asyncio.Event | None = None
    ) -> T | None:
        """The result of `work`, or None once the end is requested.

        Raises ChildError as soon as a child ends before that; `but` may end with exit code 0.
        """
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work)
            failing = {tasks.create_task(_failed(child, may_end=child is but)): child for child in self.running}
            asked = [] if end_requested is None else [tasks.create_task(end_requested.wait())]
            await asyncio.wait([working, *failing, *asked], return_when=asyncio.FIRST_COMPLETED)
            # Before the cancels, after which all of them are done.
            failed = [child for task, child in failing.items() if task.done()]
            done = working.done()
            for task in (working, *failing, *asked):
                task.cancel()
        if done:
            return working.result()
        if failed:
            raise failed[0].failure
        return None

    @property
    def last_words(self) -> str:
        """The last line of each child, to be put behind a sentence."""
        last = [(child.name, child.log.lines) for child in self.running]
        return "".join(f"\n  {name}: {lines[-1]}" for name, lines in last if lines)

    async def end(self, first: Sequence[str] = ()) -> None:
        """End all: the services named first, then the others, the store last."""
        order = [*first, *(child.service for child in self.running if child.service != "redis"), "redis"]
        for service in dict.fromkeys(order):
            ending = [child for child in self.running if child.service == service]
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

    def _echo(self, name: str) -> Callable[[str], None] | None:
        echo = self.echo
        return None if echo is None else lambda line: echo(f"{name}: {line}")


async def _failed(child: Child, *, may_end: bool) -> None:
    """Return once a child ended as it should not have."""
    if await child.wait() == 0 and may_end:
        await asyncio.Event().wait()


async def _ended(child: Child) -> None:
    try:
        await asyncio.wait_for(child.process.wait(), _END_S)
    except TimeoutError:
        _log.warning("child-killed", child=child.name)
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()
    finally:
        await child.wait()
        child.output.close()
