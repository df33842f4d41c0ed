"""Runs the services of a session on this machine until it is to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from services.launcher import session as sessions
from services.launcher import store as stores
from services.launcher.child import User, session_users
from services.launcher.children import Child, Children
from services.launcher.session import Session
from services.launcher.status_line import StatusLine, summary
from services.launcher.store import Store
from services.runtime.errors import PodloxxError, UsageError

_READY_S: Final = 20.0
"""Python starts in under a second; a machine under load may take twenty times as long."""
_POLL_S: Final = 0.05
_USERS: Final = ("redis", "agent", "aggregator", "viewer")
_SERVICE_USER: Final = {"capture": "agent", "aggregator": "aggregator", "api": "viewer"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for, whatever the mode."""

    port: int
    listen: str
    browser: bool
    for_s: float | None
    verbose: bool
    api: Mapping[str, str | float]
    aggregator: Mapping[str, str | float]


@dataclass(slots=True)
class Rig:
    """A session's store and services."""

    session: Session
    store: Store
    children: Children
    users: Mapping[str, User]
    end_requested: asyncio.Event

    async def service(
        self,
        name: str,
        settings: Mapping[str, str | float],
        *,
        label: str = "",
        capabilities: frozenset[str] = frozenset(),
        netns: Path | None = None,
    ) -> Child:
        """Start a service that connects to the session's store as its user."""
        user = _SERVICE_USER[name]
        return await self.children.service(
            name,
            {**self.store.settings(user), **settings},
            self.users[user],
            label=label,
            capabilities=capabilities,
            netns=netns,
        )

    async def wait_ready(self, wanted: Wanted, base_url: str, *, agents: int) -> None:
        """Wait until the API serves what so many agents report; raises PodloxxError naming what does not come."""
        async with asyncio.TaskGroup() as tasks:
            ready = tasks.create_task(_ready(base_url, headers(wanted), agents))
            await self.children.unless_one_ends(ready, end_requested=self.end_requested)


@contextlib.asynccontextmanager
async def rig(say: Callable[[str], None]) -> AsyncIterator[Rig]:
    """A session with its store; afterwards no process and no file of it is left."""
    sessions.clean()
    users, shared = session_users(_USERS)
    if shared and os.geteuid() == 0:
        say(f"services run as root without capabilities, because {shared}")
    server = users["redis"]
    session = sessions.begin(server.gid)
    children = Children(session.folder, os.getpid())
    end_requested = asyncio.Event()
    _on_signals(end_requested, children)
    try:
        store = stores.prepare(session, server, users)
        await children.start("redis", store.argv, server)
        async with asyncio.TaskGroup() as tasks:
            await children.unless_one_ends(tasks.create_task(_socket(store.socket)))
        yield Rig(session, store, children, users, end_requested)
    finally:
        try:
            # Capture first: its last windows are still booked, and shown.
            await children.end(first=("capture", "aggregator", "api"))
        finally:
            sessions.end(session)


async def show(one: Rig, wanted: Wanted, port: int, *, but: Child | None = None) -> None:
    """Print the address, open the browser, keep the status line; ends when the session is to end.

    Raises ChildError when a child ends before, except `but` with exit code 0.
    """
    if one.end_requested.is_set():
        return
    url = f"http://{_bracketed(wanted.listen)}:{port}"
    print(f"podloxx shows live traffic at {url} (CTRL+C ends it and leaves nothing behind)", flush=True)
    if wanted.browser and can_open_browser():
        webbrowser.open(url)
    line = StatusLine()
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(one, wanted, line, base_url(wanted, port)))
            await one.children.unless_one_ends(watch, but=but)
    finally:
        line.end()


def free_port(listen: str, port: int) -> int:
    """`port` itself if it is free, any free one for 0; raises UsageError where it is taken."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen, port))
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        raise UsageError(
            f"port {port} on {listen} cannot be used ({error.strerror}): end what uses it, or choose another with --port"
        ) from error
    except OverflowError:
        raise UsageError(f"--port {port} is no port: they go from 0 to 65535") from None


def can_open_browser() -> bool:
    """Whether somebody sits here: a display, or a system that needs none."""
    if sys.platform in {"darwin", "win32"}:
        return True
    # A browser started by root on somebody's display would run as root.
    return os.geteuid() != 0 and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))  # noqa: TID251


def _on_signals(end_requested: asyncio.Event, children: Children) -> None:
    def asked() -> None:
        if end_requested.is_set():
            print("\nending at once", file=sys.stderr)
            children.kill()
        end_requested.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)


async def _watch(one: Rig, wanted: Wanted, line: StatusLine, url: str) -> None:
    started = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as client:
        while not one.end_requested.is_set():
            running_s = time.monotonic() - started
            if wanted.for_s is not None and running_s >= wanted.for_s:
                return
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, json.JSONDecodeError, KeyError):
                async with client.get(f"{url}/traffic/overview", headers=headers(wanted)) as answer:
                    overview: dict[str, Any] = await answer.json()
                    line.show(summary(overview, url, running_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(one.end_requested.wait(), 1.0)


def headers(wanted: Wanted) -> dict[str, str]:
    """What the launcher's own requests carry: a host that is served anywhere, and the token."""
    token = wanted.api.get("token_file")
    bearer = {"Authorization": f"Bearer {Path(str(token)).read_text().strip()}"} if token else {}
    return {"Host": "localhost", **bearer}


async def _ready(base_url: str, sent: Mapping[str, str], agents: int) -> None:
    said = "it does not answer"
    end = time.monotonic() + _READY_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1), headers=sent) as client:
        while time.monotonic() < end:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with client.get(f"{base_url}/traffic/overview") as answer:
                    found = await answer.json(content_type=None)
                    said = found.get("detail", "")
                    if answer.status == 200:
                        reporting = found["nodesReporting"]
                        if reporting >= agents:
                            return
                        said = f"{reporting} of {agents} agents report"
            await asyncio.sleep(_POLL_S)
    raise PodloxxError(f"no traffic to show at {base_url} within {_READY_S:.0f} s: {said}")


async def _socket(path: Path) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.close()
            return
        await asyncio.sleep(_POLL_S)
    raise PodloxxError(f"redis-server did not open its socket within {_READY_S:.0f} s")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def base_url(wanted: Wanted, port: int) -> str:
    """Where the launcher itself calls the API."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(wanted.listen, wanted.listen)
    return f"http://{_bracketed(host)}:{port}"
