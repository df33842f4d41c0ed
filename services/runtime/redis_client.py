"""Owns how podloxx connects to Redis, and why in just that way."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

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


class StoreError(PodloxxError):
    """Redis could not be reached, or refused."""


def connect(settings: CommonSettings) -> Redis:
    """A client for the store of `settings`; connects at the first command. Replies are bytes."""
    try:
        return Redis.from_url(
            settings.redis_url,
            **({} if settings.redis_url.startswith("unix:") else _KEEPALIVE),
            username=settings.redis_user or None,
            password=_password(settings),
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            # Longer than any blocking read.
            socket_timeout=_ANSWER_TIMEOUT_S,
            # The client's own retries hide an outage for about a minute. Ours know what is at stake.
            retry=Retry(NoBackoff(), 0),
            # A PING before each command is one more round trip; every reader polls more often anyway.
            health_check_interval=0,
        )
    except ValueError as error:
        raise UsageError(
            f"--redis-url {without_password(settings.redis_url)!r} is no Redis address: {error}"
        ) from error


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Turn Redis's errors into a StoreError that says what was being done."""
    try:
        yield
    except (RedisError, OSError) as error:
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
