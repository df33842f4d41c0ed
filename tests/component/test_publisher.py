"""The agent's end of the delivery protocol against a real Redis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.capture.publisher import Origin, Publisher
from services.flows import keys, wire
from services.flows.delta import FLOW, Attachment, Window
from services.runtime.clock import SystemClock
from services.runtime.redis_client import connect
from services.runtime.settings import CommonSettings

NAMES = keys.Keys(0)
BOOT = "b00t"


def window(tx_bytes: int) -> Window:
    """A window with one row."""
    rows = np.zeros(1, FLOW)
    rows["attachment"], rows["tx_bytes"] = 1, tx_bytes
    return Window(0, 1, (Attachment(1, "veth0", 3, "socket", 0),), rows)


@pytest.fixture
def publisher(redis: Any) -> Publisher:
    return Publisher(redis, NAMES, Origin("node-a", BOOT), 1000, SystemClock())


async def entries(redis: Any) -> list[tuple[int, int, bytes]]:
    """(seq, confirmed, payload) of every entry in the stream."""
    return [
        (int(fields[keys.FIELD_SEQ]), int(fields[keys.FIELD_CONFIRMED]), fields[keys.FIELD_BATCH])
        for _, fields in await redis.xrange(NAMES.flows)
    ]


async def apply(redis: Any, seq: int, *, read_all: bool = True) -> None:
    """Confirm like the aggregator: applied number and cursor in one commit, applied entries removed."""
    every = await redis.xrange(NAMES.flows)
    values: dict[bytes, object] = {BOOT.encode(): seq}
    if read_all and every:
        values[keys.APPLIED_CURSOR] = every[-1][0]
    await redis.hset(NAMES.applied, mapping=values)
    for entry, fields in every:
        if int(fields[keys.FIELD_SEQ]) <= seq:
            await redis.xdel(NAMES.flows, entry)


async def test_a_window_arrives_as_a_batch(redis: Any, publisher: Publisher) -> None:
    publisher.add(window(98))
    assert await publisher.flush({"attachments": 1})
    [(seq, confirmed, payload)] = await entries(redis)
    assert (seq, confirmed) == (1, 0)
    batch = wire.decode(payload)
    assert (batch.node, batch.boot, batch.seq) == ("node-a", BOOT, 1)
    assert batch.windows[0].flows["tx_bytes"].tolist() == [98]
    assert batch.gauges == {"attachments": 1}


async def test_the_offset_turns_our_clock_into_that_of_redis(redis: Any, publisher: Publisher) -> None:
    publisher.add(window(1))
    await publisher.flush({})
    batch = wire.decode((await entries(redis))[0][2])
    seconds, micros = await redis.time()
    ours = SystemClock().monotonic_us() + batch.offset_us
    assert abs(ours - (seconds * 1_000_000 + micros)) < 1_000_000
    assert 0 < batch.error_us < 1_000_000


async def test_files_keep_their_own_time(redis: Any) -> None:
    publisher = Publisher(redis, NAMES, Origin("file", BOOT, own_time=True), 1000, SystemClock())
    publisher.add(window(1))
    await publisher.flush({})
    batch = wire.decode((await entries(redis))[0][2])
    assert (batch.offset_us, batch.error_us) == (0, 0)


async def test_what_is_read_and_not_applied_is_sent_again_unchanged(redis: Any, publisher: Publisher) -> None:
    for size in (1, 2):
        publisher.add(window(size))
        await publisher.flush({})
    before = await entries(redis)
    await apply(redis, 0)
    await publisher.flush({})
    assert await entries(redis) == before + before


async def test_while_the_aggregator_is_away_nothing_is_sent_twice(redis: Any, publisher: Publisher) -> None:
    for size in range(10):
        publisher.add(window(size))
        await publisher.flush({})
    assert [seq for seq, _, _ in await entries(redis)] == [1, 2, 3, 4]
    assert publisher.waiting > 0


async def test_confirmed_batches_are_forgotten_and_their_number_travels(redis: Any, publisher: Publisher) -> None:
    publisher.add(window(1))
    await publisher.flush({})
    await apply(redis, 1)
    publisher.add(window(2))
    await publisher.flush({})
    assert [(seq, confirmed) for seq, confirmed, _ in await entries(redis)] == [(2, 1)]
    await apply(redis, 2)
    await publisher.flush({})
    assert publisher.unconfirmed == 0


async def test_a_lost_store_gets_everything_unconfirmed_again(redis: Any, publisher: Publisher) -> None:
    publisher.add(window(1))
    await publisher.flush({})
    await apply(redis, 1)
    publisher.add(window(2))
    await publisher.flush({})
    await redis.flushall()
    await redis.hset(NAMES.applied, mapping={BOOT: 1})
    await publisher.flush({})
    assert [(seq, confirmed) for seq, confirmed, _ in await entries(redis)] == [(2, 1)]


async def test_an_unreachable_store_loses_nothing(redis: Any) -> None:
    gone = connect(CommonSettings(redis_url="unix:///nowhere.sock"))
    away = Publisher(gone, NAMES, Origin("node-a", BOOT), 1000, SystemClock())
    for size in range(30):
        away.add(window(size))
        assert not await away.flush({})
    assert away.unreachable_s > 0
    away._redis = redis
    assert await away.flush({})
    assert away.unreachable_s == 0
    sent = [wire.decode(payload) for _, _, payload in await entries(redis)]
    assert sum(int(w.flows["tx_bytes"].sum()) for batch in sent for w in batch.windows) == sum(range(30))
