"""Runs a service: signals end it in order, errors become one sentence and an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from services.runtime import log
from services.runtime.errors import PodloxxError
from services.runtime.settings import CommonSettings, load

_SHUTDOWN_S: Final = 10.0
"""What a service may take to end; Kubernetes kills after 30 s, the launcher after its own time."""
_PARENT_POLL_S: Final = 1.0
_S = TypeVar("_S", bound=CommonSettings)


class Stop:
    """The request to end, which everything that waits can wait for as well."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def requested(self) -> bool:
        """Whether the service is to end."""
        return self._event.is_set()

    def request(self) -> None:
        """Ask the service to end."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until the service is to end."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> bool:
        """Wait so long, or less if the service is to end; True in that case."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


def main(service: str, settings_cls: type[_S], run: Callable[[_S, Stop], Awaitable[None]], argv: Sequence[str]) -> int:
    """Run a service's `run` until it returns or a signal ends it; the exit code."""
    try:
        # The one place besides the launcher's where the environment is read.
        settings = load(settings_cls, argv, os.environ)  # noqa: TID251
        log.configure(service, settings.log_level, settings.log_format)
        asyncio.run(_supervised(settings, run))
    except PodloxxError as error:
        return _say(service, error)
    except BaseExceptionGroup as group:
        ours, others = group.split(PodloxxError)
        if ours is None or others is not None:
            raise
        return _say(service, _first(ours))
    return 0


def _say(service: str, error: PodloxxError) -> int:
    print(f"{service}: {error}", file=sys.stderr)
    return error.exit_code


async def _supervised(settings: _S, run: Callable[[_S, Stop], Awaitable[None]]) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.request)
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(_work(settings, run, stop), name="service")
        watchers = [tasks.create_task(_deadline(stop, work), name="deadline")]
        if settings.parent_pid:
            watchers.append(tasks.create_task(_follow_parent(settings.parent_pid, stop), name="parent"))
        await asyncio.wait([work])
        for watcher in watchers:
            watcher.cancel()


async def _work(settings: _S, run: Callable[[_S, Stop], Awaitable[None]], stop: Stop) -> None:
    await run(settings, stop)


async def _deadline(stop: Stop, work: asyncio.Task[None]) -> None:
    await stop.wait()
    await asyncio.sleep(_SHUTDOWN_S)
    where = [frame.f_code.co_qualname for frame in work.get_stack(limit=3)]
    log.get_logger(__name__).error("shutdown-too-slow", after_s=_SHUTDOWN_S, waiting_in=where)
    raise PodloxxError(f"did not end within {_SHUTDOWN_S:.0f} s of being asked to")


async def _follow_parent(parent: int, stop: Stop) -> None:
    """The second line behind the kernel's parent-death signal, which a credential change clears."""
    while os.getppid() == parent:
        if await stop.sleep(_PARENT_POLL_S):
            return
    stop.request()


def _first(group: BaseExceptionGroup[PodloxxError]) -> PodloxxError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
