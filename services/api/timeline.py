"""What `/traffic/timeline` and `/traffic/range` answer: the last 15 minutes, read from Redis for whoever asks."""

from __future__ import annotations

import asyncio
import math
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from services.api import destinations
from services.api.counters import columns_of
from services.api.mirror import Mirror
from services.api.reader import Reader
from services.api.shards import Bucket
from services.api.views import rfc3339
from services.flows import history
from services.flows.history import Passed
from services.flows.keys import HISTORY_BUCKET_S, HISTORY_BUCKETS
from services.flows.scope import Column, Scope
from services.flows.traffic import Identity, TrafficError
from services.runtime.redis_client import StoreError, translating

_ANSWER_S: Final = 5.0
_BUCKETS_PER_READ: Final = 20
"""At 5,000 pods some 1 MB, and a few hundredths of a second to decode."""
MOST_SERIES: Final = 1000
"""Series in an answer; those with fewer bytes are added up as `others`."""
OTHERS: Final = ":others"

Part = tuple[str, int, int]
"""A series, and what was sent and received of it."""
Group = Callable[[Mirror, int, Scope, Passed], Iterable[Part]]


def _of_row(pick: Callable[[Identity], str]) -> Group:
    def group(mirror: Mirror, number: int, _: Scope, passed: Passed) -> Iterable[Part]:
        row = mirror.rows.get(number)
        # A row may have been merged into another one since the mirror was read.
        yield pick(row.identity) if row else OTHERS, passed.tx_bytes, passed.rx_bytes

    return group


def _scope(_: Mirror, __: int, scope: Scope, passed: Passed) -> Iterable[Part]:
    yield scope.value, passed.tx_bytes, passed.rx_bytes


def _column(_: Mirror, __: int, scope: Scope, passed: Passed) -> Iterable[Part]:
    for column, sent, received in columns_of(scope, passed):
        yield column.value, sent, received


GROUPS: Final[Mapping[str, Group]] = {
    "scope": _scope,
    "column": _column,
    **{name: _of_row(pick) for name, pick in destinations.GROUPS.items()},
}
"""What a timeline can be told by."""


class TimelineReader:
    """Reads the buckets of a range."""

    def __init__(self, redis: Redis, read: Reader) -> None:
        self._redis: Any = redis
        self._read_by = read

    async def timeline(self, mirror: Mirror, by: str, from_s: float | None, to_s: float | None) -> dict[str, Any]:
        """In steps of 5 s; a time that is not given is the oldest or the newest there is. Raises StoreError."""
        numbers = _buckets(mirror, from_s, to_s)
        series: dict[str, tuple[list[int], list[int]]] = {}
        async for at, bucket in self._each(numbers):
            _add(series, GROUPS[by], mirror, at, len(numbers), bucket)
        return {
            "by": by,
            "bucketSeconds": HISTORY_BUCKET_S,
            "from": rfc3339(numbers.start * HISTORY_BUCKET_S * 1_000_000),
            "to": rfc3339(numbers.stop * HISTORY_BUCKET_S * 1_000_000),
            "start": [number * HISTORY_BUCKET_S for number in numbers],
            "series": {
                name: {"transmitBytes": sent, "receivedBytes": received}
                for name, (sent, received) in _bounded(series, len(numbers)).items()
            },
        }

    async def passed(self, mirror: Mirror, from_s: float | None, to_s: float | None) -> dict[str, Any]:
        """What passed from one time up to another, by pod and column; whole steps of 5 s. Raises StoreError."""
        before = None if to_s is None else math.ceil(to_s / HISTORY_BUCKET_S) * HISTORY_BUCKET_S - 1
        numbers = _buckets(mirror, from_s, before)
        rows: dict[int, dict[Column, list[int]]] = {}
        async for _, bucket in self._each(numbers):
            for number, scopes in bucket.items():
                for scope, passed in scopes.items():
                    for column, sent, received in columns_of(scope, passed):
                        sums = rows.setdefault(number, {}).setdefault(column, [0, 0])
                        sums[0] += sent
                        sums[1] += received
        end_us = min(numbers.stop * HISTORY_BUCKET_S * 1_000_000, mirror.now_us)
        shown = mirror.shown().items()
        return {
            "from": rfc3339(numbers.start * HISTORY_BUCKET_S * 1_000_000),
            "to": rfc3339(end_us),
            "seconds": max(0.0, end_us / 1e6 - numbers.start * HISTORY_BUCKET_S) if numbers else 0.0,
            "pods": {key: _passed(rows[row.number]) for key, row in shown if row.number in rows},
        }

    async def _each(self, numbers: range) -> AsyncIterator[tuple[int, Bucket]]:
        """Each bucket of a range with its place in it."""
        for start in range(0, len(numbers), _BUCKETS_PER_READ):
            part = numbers[start : start + _BUCKETS_PER_READ]
            for at, bucket in enumerate(await self._read(part), start):
                yield at, bucket
                # Others are to be answered meanwhile.
                await asyncio.sleep(0)

    async def _read(self, numbers: range) -> list[Bucket]:
        if not numbers:
            return []
        with translating("reading the history"):
            try:
                async with asyncio.timeout(_ANSWER_S), self._redis.pipeline(transaction=False) as pipe:
                    shards = self._read_by.shards
                    for names in shards.all:
                        pipe.hmget(names.history, [str(number) for number in numbers])
                    told: list[list[bytes | None]] = await pipe.execute()
            except TimeoutError:
                raise StoreError("reading the history: Redis does not answer") from None
        try:
            parts = [
                [{} if raw is None else shards.rows(names, history.decode(raw)) for raw in found]
                for names, found in zip(shards.all, told, strict=True)
            ]
        except TrafficError as error:
            raise StoreError(f"the history in Redis cannot be read: {error}") from error
        return [dict(ChainMap(*map(dict, found))) for found in zip(*parts, strict=True)]


def _buckets(mirror: Mirror, from_s: float | None, to_s: float | None) -> range:
    """The buckets that hold two times and all between them, as far as they are kept."""
    last = mirror.now_us // 1_000_000 // HISTORY_BUCKET_S
    first = last - HISTORY_BUCKETS + 1
    if from_s is not None:
        first = max(first, int(from_s) // HISTORY_BUCKET_S)
    if to_s is not None:
        last = min(last, int(to_s) // HISTORY_BUCKET_S)
    return range(first, last + 1)


def _passed(columns: Mapping[Column, Sequence[int]]) -> dict[str, Any]:
    return {
        "transmitBytes": sum(sent for sent, _ in columns.values()),
        "receivedBytes": sum(received for _, received in columns.values()),
        "columns": {
            column.value: {"transmitBytes": sent, "receivedBytes": received}
            for column, (sent, received) in columns.items()
        },
    }


def _add(
    series: dict[str, tuple[list[int], list[int]]], group: Group, mirror: Mirror, at: int, length: int, bucket: Bucket
) -> None:
    for number, scopes in bucket.items():
        for scope, passed in scopes.items():
            for name, sent, received in group(mirror, number, scope, passed):
                if name not in series:
                    series[name] = [0] * length, [0] * length
                series[name][0][at] += sent
                series[name][1][at] += received


def _bounded(series: dict[str, tuple[list[int], list[int]]], length: int) -> dict[str, tuple[list[int], list[int]]]:
    """The largest `MOST_SERIES`, in order, and the others together."""
    ranked = sorted(series.items(), key=lambda item: (-sum(item[1][0]) - sum(item[1][1]), item[0]))
    kept = dict(ranked[:MOST_SERIES])
    for _, (sent, received) in ranked[MOST_SERIES:]:
        others = kept.setdefault(OTHERS, ([0] * length, [0] * length))
        for at in range(length):
            others[0][at] += sent[at]
            others[1][at] += received[at]
    return kept
