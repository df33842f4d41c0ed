"""What an agent holds of memory through an outage that does not end."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Final

import numpy as np
import pytest

from services.flows import wire
from services.flows.delivery import Outbox
from services.flows.delta import FLOW, Attachment, Batch, InterfaceCounters, Kind, Rows, Window
from services.flows.keys import BATCH_BYTES, FROZEN_BATCHES, SUB_WINDOWS

_BATCH_ROWS: Final = 4000
_MOST_ROWS: Final = 60_000
"""What --batch-rows may be at most."""
_WIRE_ROW_BYTES: Final = 130
"""All counters at eight bytes, two addresses that no other row has, and what is left of a flow."""
_WAITING_ROW_BYTES: Final = FLOW.itemsize
_HELD: Final = _BATCH_ROWS * (FROZEN_BATCHES * _WIRE_ROW_BYTES + 4 * _WAITING_ROW_BYTES)
"""What is frozen, two batches that wait, and as much again that is about to be merged or let go."""
_MERGING: Final = 12 * _BATCH_ROWS * _WAITING_ROW_BYTES
"""While windows merge: both of them, their sum, and what sorting takes."""


def widest(second: int) -> Window:
    """A window as large as one may be: nothing in it compresses."""
    chosen = np.random.default_rng(second)
    rows: Rows = np.zeros(_BATCH_ROWS, FLOW)
    rows["attachment"], rows["kind"], rows["protocol"], rows["port"] = 1, Kind.IP, 6, 65535
    for name in ("local_hi", "local_lo", "peer_hi", "peer_lo"):
        rows[name] = chosen.integers(1 << 62, 1 << 63, _BATCH_ROWS)
    for name in FLOW.names or ():
        if name.startswith(("tx_", "rx_")):
            rows[name] = chosen.integers(1 << 40, 1 << 41, _BATCH_ROWS)
    start = second * 1_000_000
    return Window(start, start + 1_000_000, (Attachment(1, "veth0", 3, "socket", 0),), rows)


def encode(seq: int, windows: tuple[Window, ...]) -> bytes:
    """As the agent does."""
    return wire.encode(Batch("node-a", "boot-a", seq, 0, 0, windows, {}))


def test_the_largest_batch_of_the_default_settings_is_accepted() -> None:
    assert len(encode(1, (widest(0),))) <= _WIRE_ROW_BYTES * _BATCH_ROWS
    assert _WIRE_ROW_BYTES * 50_000 < BATCH_BYTES


@pytest.mark.parametrize("interfaces", [1, 600, 8192])
def test_no_batch_is_larger_than_is_accepted_however_many_interfaces_there_are(interfaces: int) -> None:
    addresses = tuple(IPv6Address((0xFD00 << 112) + at) for at in range(16))
    most = InterfaceCounters(*[1 << 62] * 4)
    points = tuple(
        Attachment(number, f"veth{number:011}", number, "socket", 1 << 60, 1 << 60, addresses, most, most, passed=most)
        for number in range(1, interfaces + 1)
    )
    box = Outbox(encode, _MOST_ROWS)
    for second in range(SUB_WINDOWS):
        box.add(replace(widest(second), attachments=points))
    while box.freeze() is not None:
        pass
    assert box.frozen
    assert max(len(batch.payload) for batch in box.frozen) <= BATCH_BYTES


def test_an_endless_outage_holds_no_more_than_is_documented() -> None:
    # What is imported at the first call, if that is here, is not held by an outage.
    for at, box in enumerate([Outbox(encode, _BATCH_ROWS)] * 10):
        box.add(widest(at))
        box.freeze()
    box = Outbox(encode, _BATCH_ROWS)
    tracemalloc.start()
    try:
        sums, held = 0, []
        for second in range(60):
            window = widest(second)
            sums += int(window.flows["tx_packets"].sum())
            box.add(window)
            del window
            box.freeze()
            held.append(tracemalloc.get_traced_memory()[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(held) < _HELD
    assert max(held[30:]) - max(held[20:30]) < 50_000, "it has not stopped growing"
    assert peak < _HELD + _MERGING
    frozen = sum(
        int(one.flows["tx_packets"].sum()) for entry in box.frozen for one in wire.decode(entry.payload).windows
    )
    assert frozen + sum(int(one.flows["tx_packets"].sum()) for one in box.waiting) == sums
