"""What every source hands over: one row per attachment, direction and pair of endpoints."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from services.flows.table import transposed

RawRows = npt.NDArray[np.void]
"""A one-dimensional structured array of `RAW_FLOW`."""


class Direction(IntEnum):
    """Which way a packet went, seen from the pod."""

    TX = 0
    """From the pod."""
    RX = 1
    """To the pod."""


_KEY: Final[list[tuple[str, str]]] = [
    ("attachment", "<u4"),
    ("kind", "u1"),
    ("protocol", "u1"),
    ("direction", "u1"),
    ("reserved", "u1"),
    ("local_port", "<u2"),
    ("peer_port", "<u2"),
    ("reserved2", "<u4"),
    ("local_hi", "<u8"),
    ("local_lo", "<u8"),
    ("peer_hi", "<u8"),
    ("peer_lo", "<u8"),
]
VALUES: Final = ("bytes", "packets", "segments", "wire_bytes", "syns")
RAW_KEY: Final = np.dtype(_KEY)
RAW_FLOW: Final = np.dtype([*_KEY, *((name, "<u8") for name in VALUES)])
"""One key may stand in several rows. `kind` is a `flows.delta.Kind`; for NOT_IP and MALFORMED the addresses are 0 and `peer_port`
holds the EtherType or the reason's number. A source that does not know the pod's side (a pcap
file) gives every packet as TX, `local` being its sender."""
assert RAW_KEY.itemsize == 48


Columns = npt.NDArray[np.uint64]
"""The same by column: one row for each word of `RAW_FLOW`, contiguous, so that a step over a column is fast."""
ABOUT, PORTS, LOCAL_HI, LOCAL_LO, PEER_HI, PEER_LO, BYTES, PACKETS, SEGMENTS, WIRE_BYTES, SYNS = range(11)
"""Which word is which. ABOUT is attachment, kind, protocol and direction from the low bits on, at
these shifts; PORTS the local and the peer's port."""
KIND_AT, PROTOCOL_AT, DIRECTION_AT = (np.uint64(bits) for bits in (32, 40, 48))
PEER_PORT_AT: Final = np.uint64(16)
BYTE, PORT, ATTACHMENT = (np.uint64((1 << bits) - 1) for bits in (8, 16, 32))
"""Masks for a field once it is shifted to the low bits."""
KEY_WORDS: Final = RAW_KEY.itemsize // 8


def no_raw_rows() -> RawRows:
    """An empty table of raw flows."""
    return np.zeros(0, RAW_FLOW)


def columns_of(rows: RawRows) -> Columns:
    """`rows` by column."""
    return transposed(np.ascontiguousarray(rows).view(np.uint64).reshape(-1, RAW_FLOW.itemsize // 8))


def rows_of(columns: Columns) -> RawRows:
    """Raw flows from their columns."""
    return transposed(columns).view(RAW_FLOW).reshape(-1)
