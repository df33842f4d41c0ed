"""The agent's end of the delivery protocol where the way to Redis fails without a word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.capture import publisher as publishing
from services.capture.publisher import Origin, Publisher
from services.flows import keys, wire
from services.flows.delta import Attachment, Window
from services.runtime.clock import SystemClock
from services.runtime.redis_client import connect
from services.runtime.settings import CommonSettings
from tests.support.agents import NAMES, flow
from tests.support.redis_proxy import Moment, RedisProxy, Trap, Way
from tests.support.redis_server import RedisServer


@dataclass
class Sending:
    """A publisher, and the proxy between it and Redis."""

    publisher: Publisher
    proxy: RedisProxy

    def add(self, size: int) -> None:
        self.publisher.add(Window(0, 1, (Attachment(1, "veth0", 3, "socket", 0),), flow(1, "1.1.1.1", tx=size)))

    async def flush(self) -> bool:
        return await self.publisher.flush({})


@pytest.fixture
async def sending(redis_server: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sending]:
    # As long as it takes to be sure on a slow machine that Redis answers within.
    monkeypatch.setattr(publishing, "_ROUND_S", 1.0)
    with RedisProxy(folder / "proxy.sock", redis_server.socket) as proxy:
        async with connect(CommonSettings(redis_url=proxy.url)) as client:
            yield Sending(Publisher(client, NAMES, Origin("node-a", "b00t"), 1000, SystemClock()), proxy)


async def sizes(redis: Any) -> list[tuple[int, int]]:
    """(seq, bytes) of every entry."""
    found = []
    for _, fields in await redis.xrange(NAMES.flows):
        batch = wire.decode(fields[keys.FIELD_BATCH])
        found.append((batch.seq, sum(int(one.flows["tx_bytes"].sum()) for one in batch.windows)))
    return found


@pytest.mark.parametrize("way", [Way.DEAF, Way.STALL, Way.REFUSE])
async def test_a_way_that_fails_keeps_nobody_waiting(redis: Any, sending: Sending, way: Way) -> None:
    sending.add(1)
    assert await sending.flush()
    sending.proxy.set(way)
    sending.add(10)
    assert not await sending.flush()
    assert sending.publisher.unreachable_s > 0
    sending.proxy.set(Way.PASS)
    assert await sending.flush()
    assert await sizes(redis) == [(1, 1), (2, 10)]


@pytest.mark.parametrize(("moment", "twice"), [(Moment.BEFORE, False), (Moment.AFTER, True)])
async def test_a_lost_reply_makes_it_send_the_same_again(
    redis: Any, sending: Sending, moment: Moment, twice: bool
) -> None:
    closed = sending.proxy.trap(Trap(b"XADD", moment, lambda: None)).closed
    sending.add(1)
    assert not await sending.flush()
    assert closed.is_set()
    sending.add(10)
    assert await sending.flush()
    assert await sizes(redis) == [(1, 1)] * (1 + twice) + [(2, 10)]
