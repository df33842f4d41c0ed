"""Runs the services of a session on this machine until it is to end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from services.launcher import browser, leftovers
from services.launcher import session as sessions
from services.launcher import store as stores
from services.launcher.child import User, session_users
from services.launcher.children import Child, Children
from services.launcher.session import Session
from services.launcher.status_line import StatusLine, summary
from services.launcher.store import Reached
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.plain import plain

_READY_S: Final = 20.0
"""Python starts in under a second; a machine under load may take twenty times as long."""
_POLL_S: Final = 0.05
_USERS: Final = ("redis", "agent", "aggregator", "viewer")
_SERVICE_USER: Final = {"capture": "agent", "aggregator": "aggregator", "api": "viewer"}
_FULL: Final = "command not allowed when used memory > 'maxmemory'"
"""What Redis says to services, and they in their log."""
_USERS_FILES: Final = ("directory_file", "token_file")
"""Settings that name a file of the user's, which need not be open to the services."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for, whatever the mode."""

    port: int
    listen: str
    browser: bool
    for_s: float | None
    verbose: bool
    store_memory: str
    api: Mapping[str, str | float]
    aggregator: Mapping[str, str | float]


@dataclass(slots=True)
class Ear:
    """Hears what the children say: passes it on if wanted, and notes that the store is full."""

    wanted: Wanted
    store_full: bool = False

    @property
    def sentence(self) -> str:
        """What to do about a store that is full."""
        return f"the totals need more than {self.wanted.store_memory}: allow more with --store-memory"

    def __call__(self, line: str) -> None:
        """Take a line."""
        if _FULL in line:
            self.store_full = True
        if self.wanted.verbose:
            echo(line)


@dataclass(slots=True)
class Rig:
    """A session's store and services."""

    session: Session
    store: Reached
    children: Children
    users: Mapping[str, User]
    end_requested: asyncio.Event
    ear: Ear
    way: Mapping[str, str] = field(default_factory=dict)
    """What the API is told of the way to the store, where that is a long one."""

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
        role = _SERVICE_USER[name]
        return await self.children.service(
            name,
            {**self.store.settings(role), **self._lent(settings, self.users[role])},
            self.users[role],
            label=label,
            capabilities=capabilities,
            netns=netns,
        )

    async def wait_ready(self, wanted: Wanted, base_url: str, *, agents: int, but: Child | None = None) -> None:
        """Wait until the API serves what so many agents report; `but` may end with exit code 0.

        Raises PodloxxError naming what does not come.
        """
        ready = _missing(base_url, headers(wanted), agents)
        missing = await self.children.unless_one_ends(ready, but=but, end_requested=self.end_requested)
        if missing:
            raise PodloxxError(
                f"no traffic to show at {base_url} within {_READY_S:.0f} s: {missing}{self.children.last_words}"
            )

    def _lent(self, settings: Mapping[str, str | float], user: User) -> dict[str, str | float]:
        """The settings with the user's files where `user` can read them."""
        changed = dict(settings)
        for name in _USERS_FILES:
            if given := str(settings.get(name, "")):
                path = self.session.lend(Path(given), user)
                self.children.lent[str(path)] = given
                changed[name] = str(path)
        return changed


@contextlib.asynccontextmanager
async def rig(
    wanted: Wanted, say: Callable[[str], None], as_launcher: frozenset[str] = frozenset()
) -> AsyncIterator[Rig]:
    """A session with its store; afterwards no process and no file of it is left.

    `as_launcher` are users who are to be the launcher's own, without its capabilities.
    """
    await asyncio.to_thread(leftovers.clean)
    program = stores.program()
    users, shared = session_users(_USERS, [Path(program)])
    if shared and os.geteuid() == 0:
        say(f"services run {_described(users['redis'])}, because {shared}")
    server = users["redis"]
    if server.uid is not None:
        users |= {name: User(os.geteuid(), server.gid) for name in as_launcher}
    end_requested = asyncio.Event()
    ear = Ear(wanted)
    children = Children(Path(), os.getpid(), ear)
    _on_signals(end_requested, children)
    session = sessions.begin(server.gid)
    children.folder = session.folder
    try:
        store = stores.prepare(session, program, users, wanted.store_memory)
        await children.start("redis", store.argv, server)
        await children.unless_one_ends(_socket(store.socket), end_requested=end_requested)
        yield Rig(session, store, children, users, end_requested, ear)
    finally:
        try:
            # Capture first: its last windows are still booked, and shown.
            await children.end(first=("capture", "aggregator", "api"))
        finally:
            sessions.end(session)


async def show(
    one: Rig,
    wanted: Wanted,
    port: int,
    *,
    but: Child | None = None,
    note: str = "CTRL+C ends it and leaves nothing behind",
) -> None:
    """Print the address, open the browser, keep the status line; ends when the session is to end.

    Raises ChildError when a child ends before, except `but` with exit code 0.
    """
    if one.end_requested.is_set():
        return
    url = base_url(wanted, port)
    print(f"podloxx shows live traffic at {url} ({note})", flush=True)
    # A token would be on the browser's command line, for all to read.
    if wanted.browser and not wanted.api.get("token_file"):
        # The display is who sits here, which no setting of ours says.
        await asyncio.to_thread(browser.open_page, url, os.environ)  # noqa: TID251
    line = StatusLine()
    try:
        await one.children.unless_one_ends(_watch(one, wanted, line, url), but=but)
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
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--listen {listen} is no address of this machine ({error.strerror})") from error
        raise UsageError(
            f"port {port} on {listen} cannot be used ({error.strerror}): end what uses it, or choose another with --port"
        ) from error
    except OverflowError:
        raise UsageError(f"--port {port} is no port: they go from 0 to 65535") from None


def _described(user: User) -> str:
    """As whom a child runs that has no user of its own."""
    return "as root without capabilities" if user.uid is None else f"as their owner (uid {user.uid})"


def echo(line: str) -> None:
    """Say something beside the status line."""
    line = "\n".join(map(plain, line.split("\n")))
    # On a terminal the status line stands where this one goes.
    print(f"\r\x1b[2K{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def _on_signals(end_requested: asyncio.Event, children: Children) -> None:
    def asked() -> None:
        if end_requested.is_set():
            print("\nending at once", file=sys.stderr)
            children.kill()
        end_requested.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup the terminal may go.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, asked)


async def _watch(one: Rig, wanted: Wanted, line: StatusLine, url: str) -> None:
    started = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as client:
        told = False
        while not one.end_requested.is_set():
            if one.ear.store_full and not told:
                told = True
                echo(f"podloxx: {one.ear.sentence}; until then nothing more is counted")
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


async def _missing(base_url: str, sent: Mapping[str, str], agents: int) -> str:
    """Empty as soon as the API serves what all agents report, else what did not come in time."""
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
                            return ""
                        said = f"{reporting} of {agents} agents report"
            await asyncio.sleep(_POLL_S)
    return said


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
    """Where the API is called on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(wanted.listen, wanted.listen)
    return f"http://{_bracketed(host)}:{port}"
