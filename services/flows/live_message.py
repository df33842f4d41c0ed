"""The messages of the WebSocket: fields, units and how "not known" is written, in one place.

All numbers are absolute, never increments, so a message that was skipped does no harm. Rates are
bytes per second, `syn` is per second too; null says that the agent of the row's node does not report. Times are
Unix seconds. Messages are JSON; rows travel by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

PROTOCOL: Final = 1
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
"""Numbers of a row: rates, but for `total`, the bytes since the session began."""
Numbers = tuple[int | None, ...]
"""One number per entry of `COLUMNS`."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What a row is called, and where it runs."""

    id: int
    namespace: str
    name: str
    node: str
    zone: str
    ip: str
    interface: str
    coverage: str

    def record(self) -> list[Any]:
        """The pod as `POD_FIELDS` lists it."""
        return [self.id, self.namespace, self.name, self.node, self.zone, self.ip, self.interface, self.coverage]


POD_FIELDS: Final = ("id", "ns", "name", "node", "zone", "ip", "iface", "coverage")


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


def snapshot(
    state: State, pods: Sequence[Pod], numbers: Sequence[Numbers], timeline: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Everything; `timeline` has entries [second, bytes per column of the dashboard …]."""
    return {
        "t": "snapshot",
        "v": PROTOCOL,
        **_state(state),
        "columns": COLUMNS,
        "fields": POD_FIELDS,
        "pods": [pod.record() for pod in pods],
        "numbers": _columns(numbers),
        "timeline": timeline,
    }


def delta(
    state: State, base: int, ids: Sequence[int], numbers: Sequence[Numbers], add: Sequence[Pod], gone: Sequence[int]
) -> dict[str, Any]:
    """What changed since `base`: rows `ids` with their numbers, rows that came or were renamed, and went."""
    return {
        "t": "delta",
        "base": base,
        **_state(state),
        "i": ids,
        "numbers": _columns(numbers),
        "add": [pod.record() for pod in add],
        "gone": gone,
    }


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


def _columns(numbers: Sequence[Numbers]) -> list[list[int | None]]:
    return [[row[at] for row in numbers] for at in range(len(COLUMNS))]
