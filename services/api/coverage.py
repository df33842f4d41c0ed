"""Reads from Redis how much nodes' sources saw, once per tick, for whoever asks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from redis.asyncio import Redis

from services.api.reader import Reader
from services.flows import coverage, keys
from services.flows.coverage import CoverageError, NodeCoverage
from services.runtime.redis_client import StoreError, translating

_ANSWER_S: Final = 5.0
"""Reading takes milliseconds; who asked is gone after that."""
_NODES_PER_READ: Final = 50
"""With a hundred interfaces each some 2 MB, and a twentieth of a second to decode."""

Found = dict[str, NodeCoverage]


class CoverageReader:
    """Whoever asks while somebody reads gets what is read for both."""

    def __init__(self, redis: Redis, read: Reader) -> None:
        self._redis: Any = redis
        self._read_by = read
        self._known: Found = {}
        self._known_at: tuple[int, int] | None = None
        self._reading: asyncio.Future[Found] | None = None

    async def nodes(self) -> Found:
        """What is known by node, those of which nothing is left out; raises StoreError."""
        mirror = self._read_by.mirror
        if mirror is None:
            return {}
        at = mirror.epoch, mirror.n
        if at == self._known_at:
            return self._known
        if self._reading is not None:
            return await asyncio.shield(self._reading)
        reading = self._reading = asyncio.get_running_loop().create_future()
        try:
            self._known, self._known_at = await self._read(sorted(mirror.nodes)), at
            reading.set_result(self._known)
        except BaseException:
            reading.set_exception(StoreError("reading the coverage of nodes failed: ask again"))
            # Where nobody waits beside us, nobody else looks at it.
            reading.exception()
            raise
        finally:
            self._reading = None
        return self._known

    async def _read(self, nodes: list[str]) -> Found:
        found: Found = {}
        for start in range(0, len(nodes), _NODES_PER_READ):
            names = nodes[start : start + _NODES_PER_READ]
            for name, raw in zip(names, await self._fetch(names), strict=True):
                if raw is not None:
                    found[name] = self._numbered(_decoded(raw))
                # Hundreds of nodes take a while; others are to be answered meanwhile.
                await asyncio.sleep(0)
        return found

    def _numbered(self, one: NodeCoverage) -> NodeCoverage:
        """The same with rows' numbers as the mirror has them."""
        shards = self._read_by.shards
        if shards.count == 1:
            return one
        names = shards.of_node(one.node)
        interfaces = tuple(replace(each, row=shards.number(names, each.row)) for each in one.interfaces)
        return replace(one, interfaces=interfaces)

    async def _fetch(self, nodes: list[str]) -> list[bytes | None]:
        with translating("reading the coverage of nodes"):
            try:
                async with asyncio.timeout(_ANSWER_S), self._redis.pipeline(transaction=False) as pipe:
                    for node in nodes:
                        pipe.hget(self._read_by.shards.of_node(node).totals, f"{keys.COVERAGE}{node}")
                    found: list[bytes | None] = await pipe.execute()
                    return found
            except TimeoutError:
                raise StoreError("reading the coverage of nodes: Redis does not answer") from None


def _decoded(raw: bytes) -> NodeCoverage:
    try:
        return coverage.decode(raw)
    except CoverageError as error:
        raise StoreError(f"the coverage of a node in Redis cannot be read: {error}") from error
