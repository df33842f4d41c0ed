"""`podloxx-launch doctor`: what would hinder podloxx on this machine, and what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.launcher import child, local, store
from services.runtime import store_check
from services.runtime.errors import PodloxxError
from services.runtime.findings import Finding, State, as_json, as_lines, from_json, is_fine
from services.runtime.settings import CommonSettings, as_arguments

_CHECK_S: Final = 30.0
_PIPES_S: Final = 1.0
_STATES: Final = {"0A": "listening"}


async def doctor(settings: Mapping[str, str], port: int, *, json: bool, named: CommonSettings | None = None) -> bool:
    """Print all findings, also about the store of `named`; whether nothing is a problem."""
    found = [*await _capture(settings), *_programs(), await _store()]
    if named is not None:
        found += await store_check.look(named)
    found.append(_port(port))
    print(as_json(found) if json else "\n".join(as_lines(found)))
    return is_fine(found)


async def _capture(settings: Mapping[str, str]) -> list[Finding]:
    """The agent's own check, run as the agent would be."""
    if shutil.which("setpriv") is None:
        # Told below; the check itself can do without.
        argv = []
    else:
        users, _ = child.session_users(["agent"])
        argv = child.command([], users["agent"], capabilities=local.rights(settings))
    # A named store is ours to look at: only we may be able to read its password.
    told = {**settings, "redis_url": CommonSettings().redis_url}
    argv += [sys.executable, "-m", "services.capture", "--check", "--json", *as_arguments(**told)]
    try:
        code, out, words = await _said(*argv)
    except TimeoutError:
        return [Finding("capture", State.PROBLEM, f"its check took longer than {_CHECK_S:.0f} s", "report this")]
    try:
        return from_json(out.decode())
    except ValueError:
        last = words.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
        return [Finding("capture", State.PROBLEM, f"its check failed: {last[0]}", "mend that, and run this again")]


async def _said(*argv: str) -> tuple[int | None, bytes, bytes]:
    """Exit code, output and complaints of a program, which is ended when it is not waited for any longer.

    Raises TimeoutError after `_CHECK_S`.
    """
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_CHECK_S):
            out, words = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # To the end of both pipes, which closes them, unless somebody else has got them.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.communicate(), _PIPES_S)
    return process.returncode, out, words


def _programs() -> list[Finding]:
    missing = [name for name in ("setpriv", "nsenter") if shutil.which(name) is None]
    if missing:
        what = " and ".join(missing)
        return [Finding("util-linux", State.PROBLEM, f"there is no {what}", "install the package util-linux")]
    return [Finding("util-linux", State.OK, "setpriv and nsenter are there")]


async def _store() -> Finding:
    """The store that `local`, `demo` and `replay` start for themselves."""
    try:
        program = store.program()
    except PodloxxError as error:
        what, _, mend = str(error).partition(": ")
        return Finding("redis-server", State.PROBLEM, what, mend)
    try:
        _, out, _ = await _said(program, "--version")
    except TimeoutError:
        out = b""
    match = re.search(r"v=((\d+)\.(\d+)[\d.]*)", out.decode(errors="replace"))
    if match is None:
        return Finding("redis-server", State.PROBLEM, f"{program} does not say its version", "install Redis anew")
    if (int(match[2]), int(match[3])) < store_check.OLDEST:
        return Finding("redis-server", State.PROBLEM, f"{program} is {match[1]}", "install Redis 6.2 or later")
    return Finding("redis-server", State.OK, f"{match[1]} ({program})")


def _port(port: int) -> Finding:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return Finding("port", State.OK, f"{port} is free")
    except PermissionError:
        return Finding(
            "port", State.PROBLEM, f"{port} may not be used by this user", "choose one above 1023 with --port"
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Finding(
                "port", State.PROBLEM, f"{port} cannot be used: {error.strerror}", "choose another one with --port"
            )
    holder = _holder(port)
    by = f" by {holder}" if holder else ""
    return Finding("port", State.WARNING, f"{port} is taken{by}", "end that, or choose another one with --port")


def _holder(port: int) -> str:
    """The process that listens on a port, as far as we may see it."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in _lines(Path(f"/proc/net/{table}"))[1:]:
            words = line.split()
            if words[3] in _STATES and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                return f"{name} (process {process.name})"
        except OSError:
            # It ended, or is another user's.
            continue
    return ""


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
