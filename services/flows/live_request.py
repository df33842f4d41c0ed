"""What a client of the WebSocket may say, decoded and checked; its fields are `live_message.ClientMessage`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

MOST_HZ: Final = 4.0
LEAST_HZ: Final = 0.01
USUAL_HZ: Final = 1.0
"""How often a client is told of changes that did not say; agents report once a second."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a client said; None where it did not."""

    ack: int | None = None
    hz: float | None = None
    watch: str | None = None
    """A pod's key; empty ends watching."""
    snapshot: bool = False


class MessageError(ValueError):
    """A client's message that is not understood; the message says why, in at most 100 bytes."""


def said(raw: object) -> Said:
    """What a client's message, decoded from JSON, says; raises MessageError."""
    if not isinstance(raw, dict) or not raw:
        raise MessageError("expected an object with ack, hz, watch or snapshot")
    if unknown := raw.keys() - {"ack", "hz", "watch", "snapshot"}:
        raise MessageError(f"unknown field {min(unknown)!a:.40}; known are ack, hz, watch, snapshot")
    ack, hz, watch = raw.get("ack"), raw.get("hz"), raw.get("watch")
    if ack is not None and (type(ack) is not int or ack < 0):
        raise MessageError("ack must be the seq of a message")
    if "hz" in raw and not _is_rate(hz):
        raise MessageError(f"hz must be 0, or a number from {LEAST_HZ} to {MOST_HZ:.0f}")
    if watch is not None and not isinstance(watch, str):
        raise MessageError("watch must be namespace/pod, or null")
    if raw.get("snapshot", True) is not True:
        raise MessageError("snapshot must be true")
    return Said(
        ack=ack,
        hz=None if hz is None else float(hz),
        watch=(watch or "") if "watch" in raw else None,
        snapshot="snapshot" in raw,
    )


def _is_rate(hz: object) -> bool:
    return (
        isinstance(hz, int | float)
        and not isinstance(hz, bool)
        and math.isfinite(hz)
        and (hz == 0 or LEAST_HZ <= hz <= MOST_HZ)
    )
