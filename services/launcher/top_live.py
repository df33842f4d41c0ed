"""Follows an API for `podloxx-launch top`: of a page that runs already, or of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from services.launcher import forwarded, run
from services.launcher.context import Context, connected
from services.launcher.ending import Ending
from services.launcher.filter import Ports, Term, matcher, parsed
from services.launcher.run import Wanted
from services.launcher.top import PATH, PORTS_PATH, Screen, read, rows, table
from services.runtime.errors import PodloxxError, UsageError

_HERE: Final = "127.0.0.1"
_ASKED: Final = Wanted(0, _HERE, browser=False, for_s=None, verbose=False, store_memory="", api={}, aggregator={})
"""An API that only this process asks."""
_CONNECT_S: Final = 10.0
_SILENT_S: Final = 20.0
"""A message comes each second, whether anything changed or not."""
_PORTS_S: Final = 5.0
"""As often as the page."""
_MESSAGE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be shown: the words of a filter, the column that ranks, for how long (None: until CTRL+C), and how often."""

    filter: str
    sort: str
    for_s: float | None
    once: bool


async def of_url(url: str, token: str, asked: Asked) -> None:
    """Follow the API at `url`; raises PodloxxError."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url!r} is no address of a page, such as http://127.0.0.1:1337")
    ending = Ending()
    with ending.heard():
        await _follow(url.rstrip("/"), token, asked, ending)


async def of_cluster(context: Context, asked: Asked) -> None:
    """Follow what runs in a cluster, through an API of our own; raises PodloxxError."""
    ending = Ending()
    async with connected(context) as api:
        with ending.heard():
            async with forwarded.rig(api, context.namespace, _ASKED, ending.requested, run.echo) as one:
                port = run.free_port(_HERE, 0)
                await one.service("api", {"listen": _HERE, "port": port, **one.way})
                await one.wait_ready(_ASKED, run.base_url(_ASKED, port), agents=0)
                await _follow(run.base_url(_ASKED, port), "", asked, ending)


async def _follow(url: str, token: str, asked: Asked, ending: Ending) -> None:
    screen = Screen()
    terms = parsed(asked.filter)
    work = _draw(url, token, asked, terms, screen)
    if not asked.once:
        screen.begin()
    try:
        async with asyncio.TaskGroup() as tasks:
            drawing = tasks.create_task(work)
            stopping = tasks.create_task(ending.requested.wait())
            await asyncio.wait([drawing, stopping], timeout=asked.for_s, return_when=asyncio.FIRST_COMPLETED)
            drawing.cancel()
            stopping.cancel()
    finally:
        if not asked.once:
            screen.end()


async def _draw(url: str, token: str, asked: Asked, terms: Sequence[Term], screen: Screen) -> None:
    clock = asyncio.get_running_loop().time
    ports: Ports = {}
    asked_s = -_PORTS_S
    async with _client(url, token) as client, client.ws_connect(f"{url}{PATH}", max_msg_size=_MESSAGE_BYTES) as socket:
        while True:
            if any(term.field == "port" for term in terms) and clock() - asked_s >= _PORTS_S:
                ports, asked_s = await _ports(client, url), clock()
            try:
                message = await socket.receive(timeout=_SILENT_S)
            except TimeoutError:
                raise PodloxxError(f"{url} has not said anything for {_SILENT_S:.0f} s") from None
            if message.type != aiohttp.WSMsgType.TEXT:
                raise PodloxxError(f"{url} closed the connection: {message.extra or 'it ended'}")
            snapshot = read(json.loads(message.data))
            if snapshot is None:
                continue
            found = rows(snapshot)
            screen.show(table(snapshot, filter(matcher(terms, found, ports), found), asked.sort, screen.lines))
            if asked.once:
                return
            # Whole each time: a terminal shows a page of it, and keeps nothing.
            await socket.send_json({"ack": snapshot["seq"], "snapshot": True})


async def _ports(client: aiohttp.ClientSession, url: str) -> Ports:
    """Which pod talks over which ports: no live message tells."""
    async with client.get(f"{url}{PORTS_PATH}", timeout=aiohttp.ClientTimeout(total=_SILENT_S)) as answer:
        if answer.status != 200:
            raise PodloxxError(f"{url} does not tell ports (HTTP {answer.status}): leave port: out of the filter")
        found: dict[str, list[int]] = (await answer.json())["pods"]
        return found


@contextlib.asynccontextmanager
async def _client(url: str, token: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
            yield client
    except aiohttp.WSServerHandshakeError as error:
        mend = ": give its token with --token-file" if error.status == 401 else ""
        raise PodloxxError(f"{url} does not let us follow it (HTTP {error.status}){mend}") from error
    except aiohttp.ClientError as error:
        raise PodloxxError(
            f"{url} cannot be reached: {error}. --url names the page of a session that runs; without it the cluster is asked"
        ) from error
