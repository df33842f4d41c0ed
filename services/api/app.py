"""Serves HTTP over a mirror of the totals until it is told to stop."""

from __future__ import annotations

import asyncio
import errno

from aiohttp import web

from services.api.guard import Guard
from services.api.live import Hub
from services.api.reader import Reader
from services.api.routes import Routes
from services.flows import keys
from services.runtime import redis_client
from services.runtime.clock import SystemClock
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.health import Heartbeat
from services.runtime.log import get_logger
from services.runtime.settings import ApiSettings
from services.runtime.supervise import Stop

_log = get_logger(__name__)


async def run(settings: ApiSettings, stop: Stop) -> None:
    """Serve until `stop`; raises UsageError where the address is taken or not this machine's."""
    guard = Guard(settings)
    redis = redis_client.connect(settings)
    heartbeat = Heartbeat(settings.heartbeat_file)
    reader = Reader(redis, keys.Keys(settings.shard), SystemClock())
    hub = Hub(reader, settings.max_clients)
    app = web.Application(middlewares=[guard.middleware])
    app.add_routes(Routes(reader, hub, settings.flow_window_s).table())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await _listen(runner, settings)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.follow(stop, hub.changed))
            while not await stop.sleep(1.0):
                heartbeat.beat()
                # Rates fade and nodes fall silent without any tick.
                hub.changed()
            await hub.close()
    finally:
        await runner.cleanup()
        await redis.aclose()


async def _listen(runner: web.AppRunner, settings: ApiSettings) -> None:
    try:
        await web.TCPSite(runner, settings.listen, settings.port).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {settings.port} on {settings.listen} is in use: end what uses it, or choose another with --port"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--listen {settings.listen} is no address of this machine") from error
        raise PodloxxError(f"cannot listen on {settings.listen} port {settings.port}: {error.strerror}") from error
    host, port = runner.addresses[0][:2]
    _log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
