"""Owns how podloxx connects to Redis, and why in just that way."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from services.flows.keys import APPLIED_CURSOR, Keys
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.settings import CommonSettings, without_password

_CONNECT_TIMEOUT_S: Final = 5.0
"""Longer than a TCP connection needs in any cluster, short enough to be noticed."""

_ANSWER_TIMEOUT_S: Final = 30.0
"""For a whole reply: the longest is some 100 MB. A forwarded connection may take and never answer."""

_KEEPALIVE_OPTIONS: Final = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    # What was sent and never acknowledged, in milliseconds: keepalive does not look at that.
    "TCP_USER_TIMEOUT": 15_000,
}
"""By name, since other systems than Linux lack some."""
_KEEPALIVE: Final[Mapping[str, Any]] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        number: value
        for name, value in _KEEPALIVE_OPTIONS.items()
        if (number := getattr(socket, name, None)) is not None
    },
}
"""A node that lost its power says nothing: without these a read without time-out waits for hours."""


_CLUSTER: Final = re.compile(r"rediss?-cluster:")
_NODES: Final = re.compile(r"rediss?-cluster://(?P<nodes>[^/?@]*)/?")
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})")


class StoreError(PodloxxError):
    """Redis could not be reached, or refused."""


class _Cluster(RedisCluster):
    async def initialize(self, *args: Any, **more: Any) -> RedisCluster:
        """Learn which node has what; raises RedisError, where the client has an exception that is none."""
        try:
            return await super().initialize(*args, **more)
        except RedisClusterException as error:
            # Of a user who may not ask for the nodes it says that they are no cluster's.
            told = error.__cause__.__context__ if error.__cause__ else None
            if isinstance(told, NoPermissionError):
                raise NoPermissionError(str(told)) from error
            raise RedisConnectionError(str(error)) from error


def connect(settings: CommonSettings) -> Redis:
    """A client for the store of `settings`; connects at the first command. Replies are bytes.

    That of a Redis Cluster takes the same commands, as far as all keys of one have one hash tag.
    """
    how: dict[str, Any] = {
        **({} if settings.redis_url.startswith("unix:") else _KEEPALIVE),
        "username": settings.redis_user or None,
        "password": _password(settings),
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        # Longer than any blocking read.
        "socket_timeout": _ANSWER_TIMEOUT_S,
        # The client's own retries hide an outage for about a minute. Ours know what is at stake.
        "retry": Retry(NoBackoff(), 0),
        # A PING before each command is one more round trip; every reader polls more often anyway.
        "health_check_interval": 0,
    }
    try:
        if not is_cluster(settings):
            return Redis.from_url(settings.redis_url, **how)
        return cast("Redis", _Cluster(startup_nodes=_nodes(settings.redis_url), ssl=_is_tls(settings), **how))
    except ValueError as error:
        raise UsageError(
            f"--redis-url {without_password(settings.redis_url)!r} is no Redis address: {error}"
        ) from error


async def now_us(redis: Redis) -> int:
    """Redis's clock in microseconds. Of a cluster's nodes it is always the one that has the first shard."""
    client: Any = redis
    seconds, micros = await (_time_of_cluster(client) if isinstance(client, RedisCluster) else client.time())
    return int(seconds) * 1_000_000 + int(micros)


async def _time_of_cluster(client: Any) -> tuple[int, int]:
    await client.initialize()
    while True:
        node = client.get_node_from_key(Keys().applied)
        told: tuple[int, int] = await client.time(target_nodes=node)
        # Any node tells the time, also one that has the shard no more: that is said only where a key of it is asked
        # for. Every user may ask for this one.
        await client.hmget(Keys().applied, [APPLIED_CURSOR])
        if client.get_node_from_key(Keys().applied) == node:
            return told


@asynccontextmanager
async def one_node(settings: CommonSettings) -> AsyncIterator[Redis]:
    """A client of the one server, or of the node of a cluster that has the first shard."""
    client: Any = connect(settings)
    try:
        if isinstance(client, RedisCluster):
            await client.initialize()
            node = client.get_node_from_key(Keys().lease)
            assert node is not None, "it has every slot, or does not begin"
            scheme = "rediss" if _is_tls(settings) else "redis"
            host = f"[{node.host}]" if ":" in node.host else node.host
            await client.aclose()
            client = connect(replace(settings, redis_url=f"{scheme}://{host}:{node.port}"))
        yield client
    finally:
        await client.aclose()


def is_cluster(settings: CommonSettings) -> bool:
    """Whether the store is a Redis Cluster."""
    return _CLUSTER.match(settings.redis_url) is not None


def _is_tls(settings: CommonSettings) -> bool:
    return settings.redis_url.startswith("rediss")


def _nodes(url: str) -> list[ClusterNode]:
    found = _NODES.fullmatch(url)
    if found is None:
        raise ValueError("of a Redis Cluster it is redis-cluster://HOST:PORT,HOST:PORT,… and nothing else")
    return [ClusterNode(host, port) for host, port in map(_host_and_port, found["nodes"].split(","))]


def _host_and_port(text: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form HOST:PORT")
    return found["v6"] or found["host"], int(found["port"])


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Turn Redis's errors into a StoreError that says what was being done."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        # On a unix socket the client reports a wrong password as a plain ConnectionError.
        if isinstance(error, AuthenticationError | NoPermissionError) or "password" in str(error):
            raise StoreError(
                f"{what}: Redis refused: {error}. Check --redis-user and --redis-password-file."
            ) from error
        raise StoreError(f"{what}: Redis cannot be reached: {error}") from error


def _password(settings: CommonSettings) -> str | None:
    if not settings.redis_password_file:
        return None
    try:
        return Path(settings.redis_password_file).read_text().strip()
    except OSError as error:
        raise UsageError(
            f"cannot read --redis-password-file {settings.redis_password_file}: {error.strerror}"
        ) from error
