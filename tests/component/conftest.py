"""Fixtures of the component tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster as Client

from tests.support.agents import SHARDS
from tests.support.aggregators import Aggregators
from tests.support.redis_cluster import RedisCluster, running
from tests.support.redis_server import RedisServer

if SHARDS > 1:

    @pytest.fixture
    def redis_server(folder: Path) -> Iterator[RedisCluster]:
        """A running Redis Cluster."""
        with running(folder) as cluster:
            yield cluster

    @pytest.fixture
    async def redis(redis_server: RedisCluster) -> AsyncIterator[Any]:
        """A client of it."""
        async with Client(host="127.0.0.1", port=redis_server.ports[0]) as client:
            yield client

    @pytest.fixture
    async def aggregators(redis_server: RedisCluster, redis: Any, folder: Path) -> AsyncIterator[Aggregators]:
        """Aggregators of the shard of `NAMES`, while others own the rest; killed at the end."""
        several = Aggregators(redis_server, folder)
        try:
            await several.own_others(redis)
            yield several
        finally:
            several.end()

else:

    @pytest.fixture
    def aggregators(redis_server: RedisServer, folder: Path) -> Iterator[Aggregators]:
        """Aggregators of the running Redis; killed at the end."""
        several = Aggregators(redis_server, folder)
        yield several
        several.end()
