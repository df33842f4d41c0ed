"""Reads rows' peers from Redis for whoever asks, each row once until it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgpack
from redis.asyncio import Redis

from services.api.mirror import Mirror
from services.api.reader import Reader
from services.flows import keys, peer_store
from services.flows.traffic import Peer, TrafficError
from services.runtime.redis_client import StoreError, translating

_ANSWER_S: Final = 5.0
"""Reading takes milliseconds per thousand rows; a browser's user is gone after that."""
_IDLE_S: Final = 10.0
"""For how long peers stay in memory unasked; pages ask every few seconds."""
_ROWS_PER_READ: Final = 100
"""With a thousand peers each some 20 MB, and 0.3 s to decode."""
_WAITING: Final = 100

Found = dict[int, tuple[Peer, ...]]
Candidates = Mapping[str, tuple[str, ...]]
"""`namespace/pod` of each candidate, by the field that `keys.behind` names."""
_Request = tuple[tuple[int, ...], asyncio.Future[Found]]


class PeerReader:
    """One task reads, all others ask it: so no row is read twice at a time, over one connection."""

    def __init__(self, redis: Redis, read: Reader) -> None:
        self._redis: Any = redis
        self._read_by = read
        self._requests: asyncio.Queue[_Request] = asyncio.Queue(_WAITING)
        self._known: dict[int, tuple[int, tuple[Peer, ...]]] = {}
        self._known_of: Mirror | None = None

    async def of(self, rows: Iterable[int]) -> Found:
        """The peers of rows by their numbers; raises StoreError."""
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        try:
            self._requests.put_nowait((tuple(rows), answer))
            async with asyncio.timeout(_ANSWER_S):
                return await answer
        except asyncio.QueueFull:
            raise StoreError("too many requests wait for peers: ask again later") from None
        except TimeoutError:
            raise StoreError("reading peers: Redis does not answer") from None

    async def behind(self, peers: Iterable[Peer]) -> Candidates:
        """The pods that may be behind those peers that are Services or nodes; raises StoreError."""
        fields = sorted({keys.behind(one.what, one.namespace, one.name) for one in peers if one.what in keys.BEHIND})
        if not fields:
            return {}
        with translating("reading what is behind Services"):
            try:
                async with asyncio.timeout(_ANSWER_S), self._redis.pipeline(transaction=False) as pipe:
                    for names in self._read_by.shards.all:
                        pipe.hmget(names.totals, fields)
                    told: list[list[bytes | None]] = await pipe.execute()
            except TimeoutError:
                raise StoreError("reading what is behind Services: Redis does not answer") from None
        try:
            # Each shard that knows a Service knows all that may be behind it.
            return {
                name: tuple(msgpack.unpackb(raw))
                for found in told
                for name, raw in zip(fields, found, strict=True)
                if raw is not None
            }
        except (ValueError, TypeError) as error:
            raise StoreError(f"what is behind Services in Redis cannot be read: {error}") from error

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_IDLE_S):
                    rows, answer = await self._requests.get()
            except TimeoutError:
                self._known.clear()
                continue
            if answer.done():
                continue
            try:
                found = await self._read(rows)
            except StoreError as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(found)

    async def _read(self, rows: tuple[int, ...]) -> Found:
        mirror = self._read_by.mirror
        if mirror is None or mirror is not self._known_of:
            self._known.clear()
            self._known_of = mirror
        # What is read after this may be newer than the version under which it is kept: it is read once more then.
        views = {} if mirror is None else mirror.rows
        versions = {number: views[number].changed_n for number in rows if number in views}
        missing = [number for number in rows if self._version(number) != versions.get(number, 0)]
        for start in range(0, len(missing), _ROWS_PER_READ):
            numbers = missing[start : start + _ROWS_PER_READ]
            for number, raw in zip(numbers, await self._fetch(numbers), strict=True):
                self._known[number] = versions.get(number, 0), _decoded(raw)
                # Thousands of peers take a while; others are to be answered meanwhile.
                await asyncio.sleep(0)
        return {number: self._known[number][1] for number in rows}

    def _version(self, number: int) -> int | None:
        known = self._known.get(number)
        return known[0] if known else None

    async def _fetch(self, numbers: list[int]) -> list[dict[bytes, bytes]]:
        with translating("reading peers"):
            try:
                async with asyncio.timeout(_ANSWER_S), self._redis.pipeline(transaction=False) as pipe:
                    for number in numbers:
                        names, row = self._read_by.shards.of_row(number)
                        pipe.hgetall(names.peers(row))
                    found: list[dict[bytes, bytes]] = await pipe.execute()
                    return found
            except TimeoutError:
                raise StoreError("reading peers: Redis does not answer") from None


def _decoded(raw: dict[bytes, bytes]) -> tuple[Peer, ...]:
    try:
        return tuple(peer_store.decode_peers(raw))
    except TrafficError as error:
        raise StoreError(f"peers in Redis cannot be read: {error}") from error
