"""The messages of the WebSocket: fields, units and how "not known" is written, in one place.

The API sends JSON objects with a type `t`:

`snapshot`  everything; replaces what the client has
`delta`     what changed since the message `base`, which the client has acknowledged
`pod`       the peers of the watched pod

All numbers are absolute, never increments, so a message that was skipped does no harm. `epoch` and
`seq` are the two halves of a tick id; several messages may have the same `seq`, since rates fade and
agents fall silent without any tick. Rates are per second; null says that the agent of the row's node
does not report, so nobody knows. Times are Unix seconds. Rows travel by column: every list in `rows`
has one number per id in `i`, every list in `pods` and `add` one value per pod.

A client answers every snapshot and delta with `{"ack": seq}` and gets the next one only then. It may
send, alone or together: `{"hz": 0.2}` (messages a second; 0 pauses), `{"watch": "namespace/pod"}`
(null ends it), `{"snapshot": true}` (begin anew).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

PROTOCOL: Final = 1
CLOSE_VERSION: Final = 4001
"""Close code for a client that asked for another version of the protocol."""
CLOSE_SILENT: Final = 4002
"""Close code for a client that acknowledged nothing for too long; it may come back."""
CLOSE_WRONG: Final = 1008
"""Close code for a client whose message was not understood; the reason says why."""
MOST_HZ: Final = 4.0
LEAST_HZ: Final = 0.01

COLUMNS: Final = (
    "tx",
    "rx",
    "local",
    "cross",
    "private",
    "internet_tx",
    "internet_rx",
    "other",
    "syn",
    "total",
)
"""Numbers of a row, and of all rows together in `tot`: bytes per second, from the pod's view.

`syn` are connection attempts per second, `total` the bytes since the session began (never null).
"""
Numbers = tuple[int | None, ...]
"""One number per entry of `COLUMNS`."""

POD_FIELDS: Final = ("id", "ns", "name", "node", "zone", "ip", "iface", "coverage", "ended")
"""What a row is called and where it runs; `ended` is a time, 0 while it runs."""


class Pod(NamedTuple):
    """A pod, its fields in the order of `POD_FIELDS`."""

    id: int
    namespace: str
    name: str
    node: str
    zone: str
    ip: str
    interface: str
    coverage: str
    ended_s: float


@dataclass(frozen=True, slots=True)
class State:
    """What every message says of the whole."""

    epoch: int
    seq: int
    ts: float
    started: float
    reporting: tuple[int, int]
    """Nodes whose agents report, and all nodes."""
    totals: Numbers
    problem: str = ""
    """Why what is shown is not current; empty where it is."""


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


def snapshot(
    state: State, pods: Sequence[Pod], ids: Sequence[int], numbers: Sequence[Numbers], timeline: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Everything; `timeline` has entries [second, bytes per column of the dashboard …] of 5 s."""
    return {
        "t": "snapshot",
        "v": PROTOCOL,
        **_state(state),
        "columns": COLUMNS,
        "pods": _pods(pods),
        "i": ids,
        "rows": _rows(numbers),
        "timeline": timeline,
    }


def delta(
    state: State, base: int, ids: Sequence[int], numbers: Sequence[Numbers], add: Sequence[Pod], gone: Sequence[int]
) -> dict[str, Any]:
    """What changed since `base`: rows' numbers, pods that came or were renamed, and those that went."""
    return {
        "t": "delta",
        "base": base,
        **_state(state),
        "i": ids,
        "rows": _rows(numbers),
        "add": _pods(add),
        "gone": gone,
    }


def watched(key: str, seq: int, peers: Mapping[str, Any] | None) -> dict[str, Any]:
    """The peers of the pod `key` as `/traffic/peers` has them; null where they are not known."""
    return {"t": "pod", "pod": key, "seq": seq, "peers": None, "more": 0, **(peers or {})}


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


def _state(state: State) -> dict[str, Any]:
    return {
        "epoch": state.epoch,
        "seq": state.seq,
        "ts": state.ts,
        "started": state.started,
        "reporting": state.reporting,
        "tot": state.totals,
        "problem": state.problem,
    }


def _pods(pods: Sequence[Pod]) -> dict[str, list[Any]]:
    return _by_column(POD_FIELDS, pods)


def _rows(numbers: Sequence[Numbers]) -> dict[str, list[Any]]:
    return _by_column(COLUMNS, numbers)


def _by_column(names: Sequence[str], entries: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    columns = list(zip(*entries, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}
