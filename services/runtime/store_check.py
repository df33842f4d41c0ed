"""What a Redis that somebody named is like as podloxx's store, and what to do where it does not suit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, RedisError, ResponseError

from services.flows.keys import Keys
from services.runtime import redis_client
from services.runtime.findings import Finding, State
from services.runtime.settings import CommonSettings, without_password

OLDEST: Final = (6, 2)
"""The first one with all that the users' access lists say."""
_ANSWER_S: Final = 3.0
_NEWER: Final = "use Redis 6.2 or later"
_UNTOLD: Final = "this user may not ask, as an agent's should not"


async def look(settings: CommonSettings) -> list[Finding]:
    """The findings about the store of `settings`, which is left as it is; raises UsageError for an address that is none."""
    where = f"Redis at {without_password(settings.redis_url)}"
    try:
        async with asyncio.timeout(_ANSWER_S), redis_client.one_node(settings) as redis:
            await redis.ping()
            found = [Finding("store", State.OK, f"{where} answers"), await _version(redis)]
            found += await _rights(redis, Keys())
            return [*found, *await _bounds(redis)]
    except (RedisError, OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {_ANSWER_S:.0f} s"
        mend = "check --redis-url, --redis-user and --redis-password-file, and that it runs"
        if isinstance(error, NoPermissionError) and redis_client.is_cluster(settings):
            mend = "give the user, with every node of the cluster, +cluster|slots and +command too"
        # The client begins with a HELLO, which came with Redis 6.
        return [Finding("store", State.PROBLEM, f"{where}: {why}", _NEWER if "hello" in why.lower() else mend)]


async def _version(redis: Redis) -> Finding:
    """By HELLO, which nobody can be denied."""
    answer = await redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
    said = dict(zip(answer[::2], answer[1::2], strict=False)) if isinstance(answer, list) else answer
    text = said.get(b"version", b"").decode(errors="replace")
    numbers = text.split(".")[:2]
    if len(numbers) != len(OLDEST) or not all(number.isdecimal() for number in numbers):
        return Finding("store version", State.WARNING, "it does not say its version", _NEWER)
    if tuple(map(int, numbers)) < OLDEST:
        return Finding("store version", State.PROBLEM, f"it is {text}", _NEWER)
    return Finding("store version", State.OK, text)


async def _rights(redis: Redis, names: Keys) -> list[Finding]:
    """What an agent does, each tried; an entry with the id 0-0 is refused after rights and memory were looked at."""
    tries: Mapping[str, tuple[str, ...]] = {
        f"XADD {names.flows}": ("XADD", names.flows, "NOMKSTREAM", "0-0", "check", ""),
        f"HMGET {names.applied}": ("HMGET", names.applied, "check"),
        "TIME": ("TIME",),
    }
    refused, full = [], False
    for shown, words in tries.items():
        try:
            await redis.execute_command(*words)  # type: ignore[no-untyped-call]
        except NoPermissionError:
            refused.append(shown)
        except OutOfMemoryError:
            full = True
        except ResponseError as error:
            if "0-0" not in str(error):
                refused.append(f"{shown} ({error})")
    found = [Finding("store rights", State.OK, "an agent may do all that it does")]
    if refused:
        mend = "give the user +xadd +hmget +time +ping on ~podloxx:{[0-9]*}:flows and ~podloxx:{[0-9]*}:applied, or name another one"
        found = [Finding("store rights", State.PROBLEM, f"refused: {', '.join(refused)}", mend)]
    if full:
        found.append(
            Finding("store space", State.PROBLEM, "it is full and takes nothing", "raise its maxmemory, or empty it")
        )
    return found


async def _bounds(redis: Redis) -> list[Finding]:
    """Whether it keeps all, within bounds, and only in memory."""
    told: dict[str, str] = {}
    for name in ("maxmemory*", "save", "appendonly"):
        try:
            told |= _decoded(await redis.config_get(name))
        except ResponseError:
            # Also where CONFIG has another name, as in hosted ones.
            return [Finding("store memory", State.OK, _UNTOLD), Finding("store persistence", State.OK, _UNTOLD)]
    return [_memory(told.get("maxmemory", "0"), told.get("maxmemory-policy", "")), _persistence(told)]


def _memory(bytes_: str, policy: str) -> Finding:
    if bytes_ == "0":
        return Finding(
            "store memory",
            State.WARNING,
            "it may take all of its machine's",
            "set maxmemory, for example `redis-cli CONFIG SET maxmemory 512mb`",
        )
    text = f"at most {int(bytes_) / (1 << 20):.0f} MiB, {policy}"
    if policy == "noeviction":
        return Finding("store memory", State.OK, text)
    return Finding(
        "store memory",
        State.WARNING,
        f"{text}: when it is full it throws totals away",
        "set the policy: `redis-cli CONFIG SET maxmemory-policy noeviction`",
    )


def _persistence(told: Mapping[str, str]) -> Finding:
    ways = [f"save {told['save']}"] if told.get("save") else []
    ways += ["appendonly"] if told.get("appendonly") == "yes" else []
    if not ways:
        return Finding("store persistence", State.OK, "in memory only")
    return Finding(
        "store persistence",
        State.WARNING,
        f"it writes who talks with whom to a disk ({', '.join(ways)}), where it stays",
        "use a Redis of podloxx's own, or `redis-cli CONFIG SET save ''` and `CONFIG SET appendonly no`",
    )


def _decoded(answer: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
