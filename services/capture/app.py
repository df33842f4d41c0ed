"""Wires one agent: discovery, source, windows and publisher, until it is told to stop."""

from __future__ import annotations

import asyncio
import resource
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Final

from services.capture import netlink
from services.capture.agent import Agent
from services.capture.fold import Folder
from services.capture.group_agent import GroupAgent
from services.capture.group_tree import GroupTree
from services.capture.interfaces import LinkChange, LinkMonitor, Selection
from services.capture.publisher import Origin, Publisher
from services.capture.replay import replay
from services.capture.settling import Settling
from services.capture.socketless import Socketless
from services.capture.sources.cgroup import hierarchy
from services.capture.sources.choice import opened
from services.capture.sources.kernel import KernelSource
from services.flows import keys
from services.flows.address import Address
from services.runtime import redis_client
from services.runtime.clock import SystemClock, kernel_run
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.health import Heartbeat
from services.runtime.log import get_logger
from services.runtime.settings import CaptureSettings, without_password
from services.runtime.supervise import Stop

_log = get_logger(__name__)

Changes = asyncio.Queue[LinkChange | None]
_LAST_CONFIRM_S: Final = 5.0
"""How long a stopping agent waits for its last windows to be confirmed."""


async def run(settings: CaptureSettings, stop: Stop) -> None:
    """Capture and publish until `stop`; with `--capture pcap` until the files are confirmed."""
    clock = SystemClock()
    redis = redis_client.connect(settings)
    files = settings.capture == "pcap"
    origin = Origin(settings.node, secrets.token_hex(8), kernel_run(), own_time=files)
    names = keys.Keys(keys.shard_of(settings.node, settings.shards))
    publisher = Publisher(redis, names, origin, settings.batch_rows, clock)
    heartbeat = Heartbeat(settings.heartbeat_file)
    try:
        if files:
            await replay(settings, publisher, heartbeat, stop)
        elif settings.capture == "cgroup":
            await _by_group(settings, publisher, heartbeat, stop)
        else:
            await _live(settings, publisher, heartbeat, stop)
    finally:
        await redis.aclose()


async def _live(settings: CaptureSettings, publisher: Publisher, heartbeat: Heartbeat, stop: Stop) -> None:
    source = opened(settings.capture, settings.flow_capacity)
    selection = Selection.parse(settings.interface_prefix, settings.interface)
    try:
        async with LinkMonitor(selection) as monitor:
            agent = Agent(source, Folder(settings.flow_capacity), SystemClock(), publisher.add, monitor.hidden)
            if isinstance(source, KernelSource):
                agent.missed = Settling(monitor.now, source.counted).missed
            changes: Changes = asyncio.Queue(maxsize=64)
            cut = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                beside = _watch(monitor, changes), _end(stop, changes), _send(publisher, agent, cut)
                running = [tasks.create_task(work) for work in beside]
                async for due in _rounds(settings.flush_interval_s, changes):
                    if due is not None:
                        await agent.follow(due, await monitor.counters())
                        continue
                    agent.learn(monitor.links())
                    await agent.cut(await monitor.counters())
                    cut.set()
                    heartbeat.beat()
                    _give_up(settings, publisher)
                for task in running:
                    task.cancel()
            await agent.cut(await monitor.counters())
            await _settle(publisher)
    finally:
        await source.close()


async def _by_group(settings: CaptureSettings, publisher: Publisher, heartbeat: Heartbeat, stop: Stop) -> None:
    if settings.interface or settings.interface_prefix:
        raise UsageError("--capture cgroup counts by control group: leave out --interface and --interface-prefix")
    source = opened(settings.capture, settings.flow_capacity)
    try:
        async with GroupTree(hierarchy()) as tree, LinkMonitor(Selection()) as monitor:
            beside = Socketless(monitor)
            agent = GroupAgent(source, tree, Folder(settings.flow_capacity), SystemClock(), publisher.add, beside)
            changes: Changes = asyncio.Queue(maxsize=1)
            cut = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                works = _follow(monitor), _end(stop, changes), _send(publisher, agent, cut)
                running = [tasks.create_task(work) for work in works]
                async for _ in _rounds(settings.flush_interval_s, changes):
                    await agent.cut(await _own_addresses())
                    cut.set()
                    heartbeat.beat()
                    _give_up(settings, publisher)
                for task in running:
                    task.cancel()
            await agent.cut(await _own_addresses())
            await _settle(publisher)
    finally:
        await source.close()


async def _own_addresses() -> frozenset[Address]:
    return frozenset(one.address for one in await netlink.read_addresses())


async def _rounds(interval_s: float, changes: Changes) -> AsyncIterator[LinkChange | None]:
    """Changes of links as they come, None whenever a flush is due; ends when `changes` yields None."""
    loop = asyncio.get_running_loop()
    due = loop.time() + interval_s
    while True:
        try:
            async with asyncio.timeout_at(due):
                change = await changes.get()
        except TimeoutError:
            # After a pause of the whole machine one flush makes up for all that were missed.
            due = max(due + interval_s, loop.time())
            yield None
            continue
        if change is None:
            return
        yield change


def _give_up(settings: CaptureSettings, publisher: Publisher) -> None:
    if publisher.unreachable_s > settings.ttl_s:
        raise PodloxxError(
            f"Redis at {without_password(settings.redis_url)} has not answered for {settings.ttl_s:.0f} s (--ttl-s): "
            "capture ends. Check that Redis runs and can be reached from this node, then start again."
        )


async def _watch(monitor: LinkMonitor, changes: Changes) -> None:
    async for change in monitor.changes():
        await changes.put(change)


async def _follow(monitor: LinkMonitor) -> None:
    """Keep the monitor's links up to date; nothing is attached to them."""
    async for _ in monitor.changes():
        pass


async def _send(publisher: Publisher, agent: Agent | GroupAgent, cut: asyncio.Event) -> None:
    """Flush after every cut; apart from it, since pods come and go also while Redis does not answer."""
    while True:
        await cut.wait()
        cut.clear()
        await publisher.flush(_gauges(agent))


async def _end(stop: Stop, changes: Changes) -> None:
    await stop.wait()
    await changes.put(None)


async def _settle(publisher: Publisher) -> None:
    """Bring what is left into the totals before the agent ends, if that takes no longer than it may."""
    try:
        async with asyncio.timeout(_LAST_CONFIRM_S):
            while publisher.unconfirmed:
                await publisher.flush({})
                await asyncio.sleep(0.05)
    except TimeoutError:
        _log.warning("ended-unconfirmed", batches=publisher.unconfirmed)


def _gauges(agent: Agent | GroupAgent) -> Mapping[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds_total": usage.ru_utime + usage.ru_stime,
        "resident_memory_max_bytes": usage.ru_maxrss * 1024,
        "attachments": len(agent.attachments),
        "discovery_delay_seconds_sum": agent.discovery.sum_us / 1e6,
        "discovery_delay_seconds_count": agent.discovery.links,
        "discovery_delay_max_seconds": agent.discovery.most_us / 1e6,
    }
