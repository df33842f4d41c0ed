"""Serves HTTP over a mirror of the totals until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from services.api.connection import connections
from services.api.coverage import CoverageReader
from services.api.guard import Guard
from services.api.live import Hub
from services.api.peers import PeerReader
from services.api.reader import Reader
from services.api.routes import Asked, Routes
from services.api.timeline import TimelineReader
from services.runtime import garbage, redis_client
from services.runtime.clock import SystemClock
from services.runtime.errors import PodloxxError, PrivilegeError, UsageError
from services.runtime.health import Heartbeat
from services.runtime.log import get_logger
from services.runtime.settings import ApiSettings
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_SHUTDOWN_S: Final = 3.0
"""What open requests may take to end; WebSockets are told to at once."""
_CANCEL_AGAIN_S: Final = 0.2
_BACKLOG: Final = 128
"""Connections that wait to be taken, as of aiohttp's sites."""


async def run(settings: ApiSettings, stop: Stop) -> None:
    """Serve until `stop`; raises UsageError where the address is taken or not this machine's."""
    garbage.collect_seldom()
    guard = Guard(settings)
    heartbeat = Heartbeat(settings.heartbeat_file)
    redis = redis_client.connect(settings)
    reader = Reader(redis, SystemClock(), Path(settings.way_file) if settings.way_file else None)
    peers = PeerReader(redis, reader)
    hub = Hub(reader, peers, settings.max_clients)
    asked = Asked(peers, CoverageReader(redis, reader), TimelineReader(redis, reader))
    runner = _runner(guard, Routes(reader, asked, hub, settings.flow_window_s), hub)
    await runner.setup()
    try:
        listening = await _listen(runner, settings)
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(reader.follow(stop, hub.changed), name="reader"),
                tasks.create_task(peers.run(), name="peers"),
            ]
            while not await stop.sleep(1.0):
                heartbeat.beat()
                # Agents fall silent without any tick.
                hub.changed()
            await _cancel(working)
        listening.close()
    finally:
        await runner.cleanup()
        await redis.aclose()


async def _cancel(working: list[asyncio.Task[None]]) -> None:
    """End tasks that would end by themselves only after their read, or never."""
    # In Python 3.11 a cancellation is lost where what was waited for ended in the same moment.
    while pending := [task for task in working if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)


def _runner(guard: Guard, routes: Routes, hub: Hub) -> web.AppRunner:
    async def close_clients(_: web.Application) -> None:
        await hub.close()

    app = web.Application(middlewares=[guard.middleware])
    app.add_routes(routes.table())
    app.on_shutdown.append(close_clients)
    return web.AppRunner(app, access_log=None, logger=_http_logger(), shutdown_timeout=_SHUTDOWN_S)


def _http_logger() -> logging.Logger:
    logger = logging.getLogger("podloxx.http")
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether an error is not that of a client whose request is no HTTP: anybody could fill the log with those."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _listen(runner: web.AppRunner, settings: ApiSettings) -> asyncio.Server:
    assert runner.server is not None, "it is set up"
    where = f"{settings.listen} port {settings.port}"
    try:
        # A site's connections would be aiohttp's own.
        loop = asyncio.get_running_loop()
        made = connections(runner.server, access_log=None, logger=_http_logger())
        listening = await loop.create_server(made, settings.listen, settings.port, backlog=_BACKLOG)
    except OverflowError:
        raise UsageError(f"--port {settings.port} is no port: they go from 0 to 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {settings.port} on {settings.listen} is in use: end what uses it, or choose another with --port"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--listen {settings.listen} is no address of this machine") from error
        if error.errno == errno.EACCES:
            raise PrivilegeError(f"cannot listen on {where}: choose a port above 1023 with --port") from error
        raise PodloxxError(f"cannot listen on {where}: {error.strerror}") from error
    host, port = listening.sockets[0].getsockname()[:2]
    _log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    return listening
