"""The last 15 minutes of every row, in buckets of 5 seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.flows.keys import HISTORY_BUCKET_S, HISTORY_BUCKETS
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, ByScope

_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")
Bucket = dict[int, dict[Scope, tuple[int, int]]]


@dataclass(slots=True)
class History:
    """Buckets by number (Redis time divided by the bucket's length)."""

    buckets: dict[int, Bucket] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)

    def add(self, row: int, end_us: int, added: ByScope) -> None:
        """Add what a row saw in a window to the bucket in which the window ended."""
        number = end_us // (HISTORY_BUCKET_S * 1_000_000)
        scopes = self.buckets.setdefault(number, {}).setdefault(row, {})
        for scope, counts in added.items():
            sent, received = scopes.get(scope, (0, 0))
            scopes[scope] = sent + counts[_TX], received + counts[_RX]
        self.changed.add(number)
        oldest = max(self.buckets) - HISTORY_BUCKETS
        for old in [number for number in self.buckets if number <= oldest]:
            del self.buckets[old]
            self.changed.discard(old)
            self.dropped.add(old)

    def merge(self, row: int, into: int) -> None:
        """Add a row to another one."""
        for number, bucket in self.buckets.items():
            for scope, (sent, received) in bucket.pop(row, {}).items():
                target = bucket.setdefault(into, {})
                before = target.get(scope, (0, 0))
                target[scope] = before[0] + sent, before[1] + received
                self.changed.add(number)

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.changed.clear()
        self.dropped.clear()
