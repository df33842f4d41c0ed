"""One pod's process: serves and asks what its part of the plan says, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Final

from services.launcher.demo import bulk, cache, database, dns, http, proxy
from services.launcher.demo.load import Pace
from services.launcher.demo.plan import Kind, Part, Plan, PlanError, Serve, Talk, decode
from services.launcher.demo.tally import Tally

REPORT_S: Final = 1.0
PARENT_CHECK_S: Final = 1.0

Now = Callable[[], float]


Work = Coroutine[None, None, None]

_SERVERS: Final[Mapping[Kind, Callable[[Serve, Tally], Work]]] = {
    "http": http.serve,
    "cache": cache.serve,
    "database": database.serve,
    "bulk-tcp": bulk.serve_tcp,
    "bulk-udp": bulk.serve_udp,
    "proxy-tcp": proxy.serve_tcp,
    "proxy-udp": proxy.serve_udp,
}
_CLIENTS: Final[Mapping[Kind, Callable[[Talk, Pace, Tally], Work]]] = {
    "http": http.talk,
    "cache": cache.talk,
    "database": database.talk,
    "bulk-tcp": bulk.talk_tcp,
    "bulk-udp": bulk.talk_udp,
}


def serving(plan: Plan, serve: Serve, tally: Tally) -> Work:
    """The server for `serve`; it runs until cancelled."""
    if serve.kind == "dns":
        return dns.serve(serve, tally, plan.names)
    return _SERVERS[serve.kind](serve, tally)


def talking(plan: Plan, talk: Talk, pace: Pace, tally: Tally) -> Work:
    """The client for `talk`; PlanError for a proxy, which asks only on behalf of others."""
    if talk.kind == "dns":
        return dns.talk(talk, pace, tally, plan.names)
    if talk.kind not in _CLIENTS:
        raise PlanError(f"nobody can talk as {talk.kind}")
    return _CLIENTS[talk.kind](talk, pace, tally)


def _works(role: str, plan: Plan, part: Part, tally: Tally, now: Now) -> list[Work]:
    works = [serving(plan, serve, tally) for serve in part.serves]
    for talk in part.talks:
        pace = Pace(plan.seed, f"{role}>{talk.target}:{talk.port}", plan.started_s, now)
        works.append(talking(plan, talk, pace, tally))
    return works


async def run(role: str, plan: Plan, tally: Tally, stop: asyncio.Event, now: Now = time.monotonic) -> None:
    """Do the part of `role` until `stop` is set.

    PlanError when there is no such part; an ExceptionGroup with an OSError when an address or
    a port of the plan cannot be used here.
    """
    part = plan.part(role)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in _works(role, plan, part, tally, now)]
        await stop.wait()
        for task in tasks:
            task.cancel()


async def _report(path: Path, role: str, tally: Tally, stop: asyncio.Event) -> None:
    """Append the counters once a second; a line is one write, so a reader never sees half."""
    with path.open("ab", buffering=0) as file:
        while not stop.is_set():
            file.write(tally.report(role, final=False))
            await _wait(stop, REPORT_S)


async def _stay_with(parent: int, stop: asyncio.Event) -> None:
    """Stop once the launcher is gone: a second line, behind the kernel's death signal."""
    while not stop.is_set():
        if os.getppid() != parent:
            stop.set()
        await _wait(stop, PARENT_CHECK_S)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def _live(role: str, plan: Plan, report: Path | None, parent: int) -> None:
    stop = asyncio.Event()
    tally = Tally()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.set_exception_handler(lambda *_: tally.failed())  # counted: a pod keeps no log
    async with asyncio.TaskGroup() as group:
        if parent:
            group.create_task(_stay_with(parent, stop))
        if report:
            group.create_task(_report(report, role, tally, stop))
        await run(role, plan, tally, stop)
    if report:
        with report.open("ab", buffering=0) as file:
            file.write(tally.report(role, final=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 after SIGTERM, 1 when an address is not usable here, 2 for an unusable plan."""
    parser = argparse.ArgumentParser(prog="podloxx-demo-pod")
    parser.add_argument("role")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--report", type=Path, help="append counters here, a line of JSON a second")
    parser.add_argument("--parent", type=int, default=0, help="end when this is not the parent")
    arguments = parser.parse_args(argv)
    # CTRL+C in the terminal is the launcher's to handle; it ends its pods in its own order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        plan = decode(arguments.plan.read_bytes())
        plan.part(arguments.role)
    except (OSError, PlanError) as error:
        print(f"{arguments.role}: {error}", file=sys.stderr)
        return 2
    code = 0
    try:
        asyncio.run(_live(arguments.role, plan, arguments.report, arguments.parent))
    except* OSError as group:
        print(f"{arguments.role}: {_first(group)}", file=sys.stderr)
        code = 1
    return code


def _first(group: BaseExceptionGroup[OSError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
