"""Wires one agent: discovery, source, windows and publisher, until it is told to stop."""

from __future__ import annotations

import asyncio
import resource
import secrets
from collections.abc import Mapping
from typing import Final

from services.capture.agent import Agent
from services.capture.fold import Folder
from services.capture.interfaces import LinkChange, LinkMonitor, Selection
from services.capture.publisher import Origin, Publisher
from services.capture.replay import replay
from services.capture.sources.socket import SocketSource
from services.flows import keys
from services.runtime import redis_client
from services.runtime.clock import SystemClock
from services.runtime.errors import PodloxxError
from services.runtime.health import Heartbeat
from services.runtime.log import get_logger
from services.runtime.settings import CaptureSettings
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_LAST_CONFIRM_S: Final = 5.0
"""How long a stopping agent waits for its last windows to be confirmed."""


async def run(settings: CaptureSettings, stop: Stop) -> None:
    """Capture and publish until `stop`; with `--capture pcap` until the files are confirmed."""
    clock = SystemClock()
    redis = redis_client.connect(settings)
    files = settings.capture == "pcap"
    origin = Origin(settings.node, secrets.token_hex(8), own_time=files)
    publisher = Publisher(redis, keys.Keys(settings.shard), origin, settings.batch_rows, clock)
    heartbeat = Heartbeat(settings.heartbeat_file)
    try:
        if files:
            await replay(settings, publisher, heartbeat, stop)
        else:
            await _live(settings, publisher, heartbeat, stop)
    finally:
        await redis.aclose()


async def _live(settings: CaptureSettings, publisher: Publisher, heartbeat: Heartbeat, stop: Stop) -> None:
    clock = SystemClock()
    source = SocketSource(settings.flow_capacity)
    agent = Agent(source, Folder(settings.flow_capacity), clock, publisher.add)
    selection = Selection.parse(settings.interface_prefix, settings.interface)
    changes: asyncio.Queue[LinkChange | None] = asyncio.Queue(maxsize=64)
    try:
        async with LinkMonitor(selection) as monitor, asyncio.TaskGroup() as tasks:
            watchers = tasks.create_task(_watch(monitor, changes)), tasks.create_task(_end(stop, changes))
            try:
                await _flushes(settings, agent, monitor, changes, publisher, heartbeat)
            finally:
                for watcher in watchers:
                    watcher.cancel()
            await agent.follow(LinkChange((), tuple(monitor.links())), await monitor.counters())
            await _settle(publisher)
    finally:
        await source.close()


async def _watch(monitor: LinkMonitor, changes: asyncio.Queue[LinkChange | None]) -> None:
    async for change in monitor.changes():
        await changes.put(change)


async def _end(stop: Stop, changes: asyncio.Queue[LinkChange | None]) -> None:
    await stop.wait()
    await changes.put(None)


async def _flushes(
    settings: CaptureSettings,
    agent: Agent,
    monitor: LinkMonitor,
    changes: asyncio.Queue[LinkChange | None],
    publisher: Publisher,
    heartbeat: Heartbeat,
) -> None:
    """Follow links and flush once per interval until `changes` yields None."""
    loop = asyncio.get_running_loop()
    due = loop.time() + settings.flush_interval_s
    while True:
        try:
            async with asyncio.timeout_at(due):
                change = await changes.get()
            if change is None:
                return
            await agent.follow(change, await monitor.counters())
            continue
        except TimeoutError:
            due = max(due + settings.flush_interval_s, loop.time())
        await agent.cut(await monitor.counters())
        await publisher.flush(_gauges(agent))
        heartbeat.beat()
        if publisher.unreachable_s > settings.ttl_s:
            raise PodloxxError(
                f"Redis at {settings.redis_url} has not answered for {settings.ttl_s:.0f} s (--ttl-s): "
                "capture ends. Check that Redis runs and can be reached from this node, then start again."
            )


async def _settle(publisher: Publisher) -> None:
    """Bring what is left into the totals before the agent ends, if that takes no longer than it may."""
    try:
        async with asyncio.timeout(_LAST_CONFIRM_S):
            while publisher.unconfirmed:
                await publisher.flush({})
                await asyncio.sleep(0.05)
    except TimeoutError:
        _log.warning("ended-unconfirmed", batches=publisher.unconfirmed)


def _gauges(agent: Agent) -> Mapping[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds_total": usage.ru_utime + usage.ru_stime,
        "resident_memory_max_bytes": usage.ru_maxrss * 1024,
        "attachments": len(agent.attachments),
    }
