"""What clients see of the mirror, and since which tick each row looks as it does."""

from __future__ import annotations

from collections import deque
from typing import Final

import orjson

from services.api.mirror import Mirror, RowView
from services.flows import live_message
from services.flows.keys import HISTORY_BUCKET_S
from services.flows.live_message import Numbers, Pod, State
from services.flows.scope import COLUMN_OF, Column
from services.flows.traffic import ROW_COUNTERS, ByScope

_TX_BYTES: Final = ROW_COUNTERS.index("tx_bytes")
_RX_BYTES: Final = ROW_COUNTERS.index("rx_bytes")
_TX_SYNS: Final = ROW_COUNTERS.index("tx_syns")
_RX_SYNS: Final = ROW_COUNTERS.index("rx_syns")
_GONE_KEPT: Final = 10_000
"""Rows that went, for clients that have not heard of it; older clients get a snapshot."""


class Board:
    """The rows of one epoch as clients know them; messages are encoded once per base."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.seq = -1
        self._first = -1
        self._pods: dict[int, Pod] = {}
        self._numbers: dict[int, Numbers] = {}
        self._pod_since: dict[int, int] = {}
        self._since: dict[int, int] = {}
        self._gone: deque[tuple[int, int]] = deque()
        self._state: State | None = None
        self._timeline: list[list[int]] = []
        self._encoded: dict[int, str] = {}

    def knows(self, epoch: int, seq: int) -> bool:
        """Whether a client that has `seq` can be sent a delta."""
        return epoch == self.epoch and self._first <= seq <= self.seq

    def update(self, mirror: Mirror, problem: str) -> None:
        """Take the mirror as it is now."""
        seq, now = mirror.n, mirror.now_us
        if self._first < 0:
            self._first = seq
        shown = {row.number: row for row in mirror.shown().values()}
        for number, row in shown.items():
            self._set(number, _pod(row), numbers(row, now, live=mirror.live(row.identity.node)), seq)
        for number in set(self._pods) - set(shown):
            del self._pods[number], self._numbers[number]
            self._gone.append((seq, number))
        while len(self._gone) > _GONE_KEPT:
            self._first = max(self._first, self._gone.popleft()[0])
        self.seq = seq
        self._state = State(
            epoch=self.epoch,
            seq=seq,
            ts=now / 1e6,
            started=mirror.session.started_us / 1e6,
            reporting=(sum(map(mirror.live, mirror.nodes)), len(mirror.nodes)),
            totals=_summed(list(self._numbers.values())),
            problem=problem,
        )
        self._timeline = [[number * HISTORY_BUCKET_S, *columns] for number, columns in sorted(mirror.timeline.items())]
        self._encoded.clear()

    def message_since(self, epoch: int, base: int) -> tuple[int, str]:
        """The sequence number and text of what a client with `base` is to be sent."""
        if not self.knows(epoch, base):
            base = -1
        message = self._encoded.get(base)
        if message is None:
            message = self._encoded[base] = self._encode(base)
        return self.seq, message

    def _set(self, number: int, pod: Pod, row: Numbers, seq: int) -> None:
        if self._pods.get(number) != pod:
            self._pods[number], self._pod_since[number] = pod, seq
        if self._numbers.get(number) != row:
            self._numbers[number], self._since[number] = row, seq

    def _encode(self, base: int) -> str:
        assert self._state is not None
        if base < 0:
            pods = list(self._pods.values())
            rows = [self._numbers[pod.id] for pod in pods]
            return orjson.dumps(live_message.snapshot(self._state, pods, rows, self._timeline)).decode()
        ids = [number for number in self._numbers if self._since[number] > base]
        add = [pod for number, pod in self._pods.items() if self._pod_since[number] > base]
        gone = [number for seq, number in self._gone if seq > base]
        rows = [self._numbers[number] for number in ids]
        return orjson.dumps(live_message.delta(self._state, base, ids, rows, add, gone)).decode()


def numbers(row: RowView, now_us: int, *, live: bool) -> Numbers:
    """A row's numbers in the order of `live_message.COLUMNS`."""
    total = sum(counts[_TX_BYTES] + counts[_RX_BYTES] for counts in row.totals.values())
    if not live:
        return (*([None] * (len(live_message.COLUMNS) - 1)), total)
    rates = row.rates(now_us)
    column = _columns(rates)
    internet = [counts for scope, counts in rates.items() if COLUMN_OF[scope] is Column.INTERNET]
    return (
        sum(counts[_TX_BYTES] for counts in rates.values()),
        sum(counts[_RX_BYTES] for counts in rates.values()),
        column[Column.LOCAL],
        column[Column.CROSS],
        column[Column.PRIVATE],
        sum(counts[_TX_BYTES] for counts in internet),
        sum(counts[_RX_BYTES] for counts in internet),
        column[Column.OTHER],
        sum(counts[_TX_SYNS] + counts[_RX_SYNS] for counts in rates.values()),
        total,
    )


def _columns(rates: ByScope) -> dict[Column, int]:
    sums = dict.fromkeys(Column, 0)
    for scope, counts in rates.items():
        sums[COLUMN_OF[scope]] += counts[_TX_BYTES] + counts[_RX_BYTES]
    return sums


def _summed(rows: list[Numbers]) -> Numbers:
    return tuple(sum(value for value in column if value is not None) for column in zip(*rows, strict=True)) or (
        (0,) * len(live_message.COLUMNS)
    )


def _pod(row: RowView) -> Pod:
    who = row.identity
    return Pod(row.number, who.namespace, who.pod, who.node, who.zone, who.ip, who.interface, who.coverage)
