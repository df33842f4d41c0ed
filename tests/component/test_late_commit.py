"""A commit that Redis carries out long after its sender gave it up and went on: a partition may hold it for seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis.exceptions import RedisError

from services.aggregator.store import Commit, Store, StoreLostError
from services.aggregator.totals import Totals
from services.runtime.clock import SystemClock
from services.runtime.redis_client import connect
from services.runtime.settings import CommonSettings
from tests.support.agents import NAMES
from tests.support.redis_proxy import Moment, RedisProxy, Trap
from tests.support.redis_server import RedisServer
from tests.support.wait import until
from tests.support.worlds import directory

_NOTHING: Final = Commit({}, (), b"0-0", 1_000_000)


@pytest.fixture
def proxy(redis_server: RedisServer, folder: Path) -> Any:
    """What holds a commit back."""
    with RedisProxy(folder / "proxy.sock", redis_server.socket) as one:
        yield one


@pytest.fixture
async def store(proxy: RedisProxy) -> AsyncIterator[Store]:
    """A shard's owner, whose way to Redis has the proxy in it."""
    async with connect(CommonSettings(redis_url=proxy.url)) as client:
        one = Store(client, NAMES, 60, SystemClock())
        assert await one.acquire()
        yield one


async def commits(redis: Any) -> int:
    """How many scripts Redis has run."""
    return int((await redis.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def given_up(store: Store, proxy: RedisProxy, totals: Totals) -> None:
    """Begin an epoch with a commit that the proxy holds back, and carry that out once more."""
    store.fresh(1_000_000)
    trap = proxy.trap(Trap(b"EVALSHA", Moment.LATE, lambda: None))
    with pytest.raises(RedisError):
        await store.commit(totals, _NOTHING)
    assert trap.closed.is_set()
    await store.settle(totals)


@pytest.mark.parametrize("emptied", [False, True], ids=["", "emptied"])
async def test_the_beginning_of_an_epoch_does_not_undo_what_followed(
    redis: Any, store: Store, proxy: RedisProxy, *, emptied: bool
) -> None:
    totals = Totals(directory(), 1000)
    # Redis knows the script from now on.
    store.fresh(1_000_000)
    await store.commit(totals, _NOTHING)
    await given_up(store, proxy, totals)
    if emptied:
        # The one that is held back is then of an epoch that is over.
        await redis.flushall()
        with pytest.raises(StoreLostError):
            await store.commit(totals, _NOTHING)
        store.fresh(1_000_000)
        await store.commit(totals, _NOTHING)
    await store.commit(totals, _NOTHING)
    before, known = await redis.hgetall(NAMES.totals), await commits(redis)
    proxy.let_go()

    async def came() -> bool:
        return await commits(redis) > known

    await until(came, "Redis has the commit that was held back")
    assert await redis.hgetall(NAMES.totals) == before
    await store.commit(totals, _NOTHING)
    assert (await redis.hget(NAMES.totals, "position")).decode() == store.position
