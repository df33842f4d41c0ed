"""Refuses numbers that no interface can have counted, so that sums and times stay within 64 bits."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.flows.delta import COUNTERS, FLOW, Batch, InterfaceCounters

_MOST_PER_WINDOW: Final = 2.0**48
"""281 TB, which takes the fastest links there are half an hour; a window has at most some seconds."""
_MOST_COUNTED: Final = 1 << 62
_LATEST_US: Final = 1 << 61


def implausible(batch: Batch) -> str:
    """What is wrong with a batch's numbers; empty where nothing is."""
    for window in batch.windows:
        times = [window.start_us, window.end_us]
        times += [time for entry in window.attachments for time in (entry.attached_us, entry.detached_us or 0)]
        if any(abs(time) > _LATEST_US for time in (*times, batch.offset_us, batch.error_us)):
            return "a time is out of bounds"
        words = window.flows.view(np.uint64).reshape(-1, FLOW.itemsize // 8)[:, -len(COUNTERS) :]
        for name, size in zip(COUNTERS, words.sum(axis=0, dtype=np.float64).tolist(), strict=True):
            if size > _MOST_PER_WINDOW:
                return f"its {name} are more than an interface can count"
        if sum(window.loss.values()) > _MOST_PER_WINDOW:
            return "its loss is more than an interface can count"
        if any(_huge(entry.first_counters) or _huge(entry.counters) for entry in window.attachments):
            return "an interface's counters are out of bounds"
    return ""


def _huge(counters: InterfaceCounters | None) -> bool:
    if counters is None:
        return False
    most = max(counters.tx_bytes, counters.tx_packets, counters.rx_bytes, counters.rx_packets)
    return most > _MOST_COUNTED
