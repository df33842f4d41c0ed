"""A bounded table of flows for sources that see every frame themselves."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from services.capture.frames import Frame
from services.capture.raw_flow import KEY_WORDS, RAW_FLOW, RAW_KEY, Direction, RawRows, columns_of, rows_of
from services.flows.delta import Kind
from services.flows.table import group_columns, sum_by

_LOW: Final = (1 << 64) - 1
_Key: TypeAlias = tuple[int, int, int, int, int, int, int, int]
"""Attachment, kind, protocol, direction, then address and port of the local end and of the peer."""


class FlowTable:
    """Counts frames per flow; a new flow that finds the table full is folded.

    What is folded stays exact per attachment and direction, as rows of kind FOLDED.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._flows: dict[_Key, list[int]] = {}
        self._folded: dict[_Key, list[int]] = {}

    @property
    def full(self) -> bool:
        """Whether the next new flow would be folded."""
        return len(self._flows) >= self._capacity

    def add(self, attachment: int, direction: Direction, frame: Frame, length: int, segments: int = 1) -> None:
        """Count a frame of `length` bytes that stands for so many `segments` on the wire."""
        kind, protocol, source, destination, source_port, destination_port, syn, code, header_bytes = frame
        key: _Key
        if direction == Direction.TX:
            key = (attachment, kind, protocol, direction, source, source_port, destination, destination_port or code)
        else:
            key = (attachment, kind, protocol, direction, destination, destination_port, source, source_port or code)
        counts = self._flows.get(key)
        if counts is None:
            counts = self._new(key)
        counts[0] += length
        counts[1] += 1
        counts[2] += segments
        counts[3] += length + (segments - 1) * header_bytes
        counts[4] += syn

    def take(self) -> RawRows:
        """All rows since the last call, in the order in which their first frames came."""
        rows = [
            (
                attachment,
                kind,
                protocol,
                direction,
                0,
                local_port,
                peer_port,
                0,
                local >> 64,
                local & _LOW,
                peer >> 64,
                peer & _LOW,
                *counts,
            )
            for table in (self._flows, self._folded)
            for (attachment, kind, protocol, direction, local, local_port, peer, peer_port), counts in table.items()
        ]
        self._flows.clear()
        self._folded.clear()
        return np.array(rows, RAW_FLOW)

    def _new(self, key: _Key) -> list[int]:
        if len(self._flows) < self._capacity:
            return self._flows.setdefault(key, [0] * 5)
        attachment, _, _, direction, *_ = key
        return self._folded.setdefault((attachment, Kind.FOLDED, 0, direction, 0, 0, 0, 0), [0] * 5)


def bounded(rows: RawRows, capacity: int) -> RawRows:
    """Each key once, and of more than `capacity` the first so many; the rest is folded as in `FlowTable`."""
    if len(rows) < 2:
        return rows
    rows = summed(rows)
    if len(rows) <= capacity:
        return rows
    excess = rows[capacity:].copy()
    for name in RAW_KEY.names or ():
        if name not in {"attachment", "direction"}:
            excess[name] = 0
    excess["kind"] = Kind.FOLDED
    return np.concatenate([rows[:capacity], summed(excess)])


def summed(rows: RawRows) -> RawRows:
    """Each key once, with the sums of its rows."""
    columns = columns_of(rows)
    first, inverse = group_columns(columns[:KEY_WORDS])
    if len(first) == len(rows):
        return rows
    out = columns[:, first]
    for at in range(KEY_WORDS, len(columns)):
        out[at] = sum_by(inverse, columns[at], len(first))
    return rows_of(out)
