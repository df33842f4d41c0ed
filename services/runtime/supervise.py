"""Runs a service: signals end it in order, errors become one sentence and an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import CoroutineType
from typing import Final, TypeVar

from services import __version__
from services.runtime import log
from services.runtime.errors import PodloxxError
from services.runtime.settings import CommonSettings, load, redacted

_SHUTDOWN_S: Final = 10.0
"""What a service may take to end; Kubernetes kills after 30 s, the launcher after its own time."""
_ABORT_S: Final = 1.0
"""What cancelling may take after that."""
_PARENT_POLL_S: Final = 1.0
_OWN_TASKS: Final = frozenset({"supervisor", "deadline", "parent"})
_log = log.get_logger(__name__)
_S = TypeVar("_S", bound=CommonSettings)


class Stop:
    """The request to end, which everything that waits can wait for as well."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._sleepers: set[asyncio.Future[None]] = set()
        self._reason = ""

    @property
    def reason(self) -> str:
        """Why the service is to end; empty until then."""
        return self._reason

    @property
    def requested(self) -> bool:
        """Whether the service is to end."""
        return self._event.is_set()

    def request(self, reason: str = "by itself") -> None:
        """Ask the service to end; the first reason counts."""
        self._reason = self._reason or reason
        self._event.set()
        for sleeper in self._sleepers:
            _wake(sleeper)

    async def wait(self) -> None:
        """Wait until the service is to end."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> bool:
        """Wait so long, or less if the service is to end; True in that case."""
        # Not a time-out around `wait`: that ends by cancelling, after which Python 3.11 no longer
        # tells a coverage tool what the waiting coroutines do next.
        if not self.requested:
            loop = asyncio.get_running_loop()
            woken: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(seconds, _wake, woken)
            self._sleepers.add(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._sleepers.discard(woken)
        return self.requested


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def main(service: str, settings_cls: type[_S], run: Callable[[_S, Stop], Awaitable[None]], argv: Sequence[str]) -> int:
    """Run a service's `run` until it returns or a signal ends it; the exit code."""
    abort = _Abort(service)
    try:
        # The one place besides the launcher's where the environment is read.
        settings = load(settings_cls, argv, os.environ)  # noqa: TID251
        log.configure(service, settings.log_level, settings.log_format)
        _check_parent(settings.parent_pid)
        _log.info("starting", version=__version__, settings=redacted(settings))
        asyncio.run(_supervised(settings, run, abort))
    except PodloxxError as error:
        return _say(service, error)
    except BaseExceptionGroup as group:
        ours, others = group.split(PodloxxError)
        if ours is None or others is not None:
            raise
        return _say(service, _first(ours))
    finally:
        abort.disarm()
    return 0


def _say(service: str, error: PodloxxError) -> int:
    print(f"{service}: {error}", file=sys.stderr)
    return error.exit_code


def _check_parent(parent: int) -> None:
    # It may have died before the kernel was asked to tell us of its death.
    if parent and os.getppid() != parent:
        raise PodloxxError(f"process {parent} (--parent-pid), which started this one, is gone: nothing to do")


async def _supervised(settings: _S, run: Callable[[_S, Stop], Awaitable[None]], abort: _Abort) -> None:
    supervisor = asyncio.current_task()
    assert supervisor is not None, "asyncio.run runs it in a task"
    supervisor.set_name("supervisor")
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.request, number.name)
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(_work(settings, run, stop), name="service")
        watchers = [tasks.create_task(_deadline(stop, abort), name="deadline")]
        if settings.parent_pid:
            watchers.append(tasks.create_task(_follow_parent(settings.parent_pid, stop), name="parent"))
        await asyncio.wait([work])
        for watcher in watchers:
            watcher.cancel()
    _log.info("ended", reason=stop.reason or "done")


async def _work(settings: _S, run: Callable[[_S, Stop], Awaitable[None]], stop: Stop) -> None:
    await run(settings, stop)


async def _deadline(stop: Stop, abort: _Abort) -> None:
    await stop.wait()
    await asyncio.sleep(_SHUTDOWN_S)
    sentence = f"did not end within {_SHUTDOWN_S:.0f} s of being asked to ({stop.reason})"
    hung = sorted(_where(task) for task in asyncio.all_tasks() if task.get_name() not in _OWN_TASKS)
    _log.error("shutdown-too-slow", after_s=_SHUTDOWN_S, waiting=hung)
    abort.arm(sentence)
    raise PodloxxError(sentence)


def _where(task: asyncio.Task[object]) -> str:
    """A task's name and the coroutines that wait in it, the innermost last."""
    waiting: object = task.get_coro()
    chain = []
    while isinstance(waiting, CoroutineType):
        chain.append(waiting.cr_code.co_qualname)
        waiting = waiting.cr_await
    return f"{task.get_name()}: {' > '.join(chain)}"


async def _follow_parent(parent: int, stop: Stop) -> None:
    """The second line behind the kernel's parent-death signal, which a credential change clears."""
    while os.getppid() == parent:
        if await stop.sleep(_PARENT_POLL_S):
            return
    stop.request("the parent process is gone")


class _Abort:
    """Ends the process if a service that was asked and then cancelled goes on all the same."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._timer: threading.Timer | None = None

    def arm(self, sentence: str) -> None:
        """Give the service a last while."""
        self._timer = threading.Timer(_ABORT_S, self._abort, [sentence])
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        """The service has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _abort(self, sentence: str) -> None:  # pragma: no cover - ends the process, and with it what measures
        sys.stderr.write(f"{self._service}: {sentence}, nor when it was cancelled\n")
        sys.stderr.flush()
        os._exit(PodloxxError.exit_code)


def _first(group: BaseExceptionGroup[PodloxxError]) -> PodloxxError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
