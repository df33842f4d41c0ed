"""Changes that keep a batch a batch: of the values in it instead of its bytes, where most changes only end its decoding."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

Mutate = Callable[[bytes, int], bytes]
"""libFuzzer's own: bytes and the most that there may be."""

_NUMBERS: Final = (-1, 0, 1, 127, 255, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 47, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
_BYTES_OF_ITS_OWN: Final = 0.2
"""How often bytes are changed as they are."""


def batch(data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """A batch with some values changed; bytes that are none are changed as bytes."""
    chance = random.Random(seed)
    if chance.random() < _BYTES_OF_ITS_OWN:
        return mutate(data, most)
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
        for _ in range(chance.choice((1, 1, 2, 4))):
            value = _changed(value, chance, mutate)
        packed: bytes = msgpack.packb(value)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException):
        return mutate(data, most)
    return packed if len(packed) <= most else mutate(data, most)


def _changed(value: Any, chance: random.Random, mutate: Mutate) -> Any:
    """The value with one thing in it changed, anywhere."""
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
        return {**value, key: _changed(value[key], chance, mutate)} if chance.random() < 0.97 else _without(value, key)
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        deed = chance.random()
        if deed < 0.85:
            return [*value[:at], _changed(value[at], chance, mutate), *value[at + 1 :]]
        return [*value[:at], *value[at + 1 :]] if deed < 0.9 else [*value, value[at]]
    if isinstance(value, bool) or value is None:
        return chance.choice((None, True, 0, 7, b"", [], [1, 2, 3, 4]))
    if isinstance(value, int):
        return chance.choice((*_NUMBERS, value + 1, value - 1, value ^ 1 << chance.randrange(63), 1.5))
    if isinstance(value, float):
        return chance.choice((0.0, -1.0, 1e300, float("inf"), float("nan"), 3))
    if isinstance(value, bytes):
        return mutate(value, len(value) + 32)
    if isinstance(value, str):
        return mutate(value.encode(), len(value) + 32).decode(errors="ignore")
    return 0


def _without(value: dict[Any, Any], key: Any) -> dict[Any, Any]:
    return {name: one for name, one in value.items() if name != key}


MUTATORS: Final[Mapping[str, Callable[[bytes, int, int, Mutate], bytes]]] = {"wire": batch}
