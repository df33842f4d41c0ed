"""Waiting for a condition instead of for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar, overload

_POLL_S: Final = 0.01
T = TypeVar("T")
# Conditions take no arguments, but a lambda in a loop may bind some by default values: hence the dots.


def wait_until(condition: Callable[..., T], what: str, timeout_s: float = 10.0) -> T:
    """The first true value of `condition`; fails naming `what` when it does not come in time."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what} (last value: {value!r})")
        time.sleep(_POLL_S)


@overload
async def until(condition: Callable[..., Coroutine[Any, Any, T]], what: str, timeout_s: float = 10.0) -> T: ...
@overload
async def until(condition: Callable[..., T], what: str, timeout_s: float = 10.0) -> T: ...
async def until(condition: Callable[..., Awaitable[T] | T], what: str, timeout_s: float = 10.0) -> T:
    """The same for a condition that may be awaited."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        result: T = await value if isinstance(value, Awaitable) else value
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what} (last value: {result!r})")
        await asyncio.sleep(_POLL_S)
