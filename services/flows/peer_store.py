"""Peers as they stand in Redis: one hash per row, and one field in it per peer."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt

from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, Counted, Peer, TrafficError, pack

VERSION: Final = 2
_FORMAT: Final = {4: "I", 8: "Q"}
_NUMBERS: Final = len(ROW_COUNTERS) + 2
"""The counters, and when a peer was seen first and last."""
_HEAD: Final = 4
"""Bytes before the numbers: version, bytes per number, and which numbers are not 0 as two bytes, the first one's bit lowest."""


def peer_key(peer: Peer) -> bytes:
    """What keeps a row's peers apart: the field under which a peer stands in the row's hash."""
    return pack(
        [
            *(VERSION, peer.address, peer.protocol, peer.port, peer.server, peer.kind, peer.scope.value, peer.rule),
            *(peer.via, peer.counted, peer.namespace, peer.name, peer.what, peer.local),
        ]
    )


def encode_peers(table: npt.NDArray[np.uint64]) -> list[bytes]:
    """What stands there, for many peers: a line is `ROW_COUNTERS` and the microseconds of first and last seen.

    Thousands of peers change each second, so those that are written alike are written together.
    """
    some = table != 0
    masks = some @ (1 << np.arange(_NUMBERS))
    widths = np.where((table[:, : len(ROW_COUNTERS)] >> np.uint64(32)).any(axis=1), 8, 4)
    kinds, inverse = np.unique(masks * 16 + widths, return_inverse=True)
    encoded = np.empty(len(table), object)
    for at, kind in enumerate(kinds.tolist()):
        mask, width = divmod(kind, 16)
        mine = np.flatnonzero(inverse == at)
        counters = [column for column in range(len(ROW_COUNTERS)) if mask >> column & 1]
        times = [column for column in range(len(ROW_COUNTERS), _NUMBERS) if mask >> column & 1]
        lines = np.zeros((len(mine), _HEAD + width * len(counters) + 8 * len(times)), np.uint8)
        lines[:, :_HEAD] = VERSION, width, mask & 255, mask >> 8
        numbers = table[mine]
        end = _HEAD + width * len(counters)
        narrowed = np.ascontiguousarray(numbers[:, counters].astype(f"<u{width}"))
        lines[:, _HEAD:end] = narrowed.view(np.uint8).reshape(len(mine), -1)
        lines[:, end:] = np.ascontiguousarray(numbers[:, times]).view(np.uint8).reshape(len(mine), -1)
        encoded[mine] = lines.view(f"V{lines.shape[1]}").reshape(-1).tolist()
    listed: list[bytes] = encoded.tolist()
    return listed


def encode_peer(counts: list[int], first_us: int, last_us: int) -> bytes:
    """The same for one."""
    return encode_peers(np.array([[*counts, first_us, last_us]], np.uint64))[0]


def decode_peer(key: bytes, data: bytes) -> Peer:
    """The peer of a field and what stands there; raises TrafficError."""
    try:
        address, protocol, port, server, kind, scope, rule, via, counted, namespace, name, what, local = _listed(key)
        *counts, first_us, last_us = _numbers(data)
        return Peer(
            *(address, protocol, port, server, kind, Scope(scope), rule, counts, first_us, last_us),
            *(name, namespace, what, via, Counted(counted), local),
        )
    except (TypeError, ValueError, struct.error) as error:
        raise TrafficError(f"not a peer of version {VERSION}: {error!r}") from error


def decode_peers(stored: Mapping[bytes, bytes]) -> list[Peer]:
    """All peers of a row's hash; raises TrafficError."""
    return [decode_peer(key, data) for key, data in stored.items()]


def _listed(data: bytes) -> list[Any]:
    listed: list[Any]
    version, *listed = msgpack.unpackb(data)
    if version != VERSION:
        raise ValueError("another version")
    return listed


def _numbers(data: bytes) -> list[int]:
    layout, places = _layout(data[:_HEAD])
    numbers = [0] * _NUMBERS
    for place, number in zip(places, layout.unpack(data[_HEAD:]), strict=True):
        numbers[place] = number
    return numbers


@functools.lru_cache(maxsize=4096)
def _layout(head: bytes) -> tuple[struct.Struct, tuple[int, ...]]:
    """How the numbers behind a head stand there, and which ones they are."""
    version, width, *mask = head
    if version != VERSION or width not in _FORMAT:
        raise ValueError("another version")
    known = int.from_bytes(mask, "little")
    places = tuple(place for place in range(_NUMBERS) if known >> place & 1)
    formats = (_FORMAT[width] if place < len(ROW_COUNTERS) else "Q" for place in places)
    return struct.Struct(f"<{''.join(formats)}"), places
