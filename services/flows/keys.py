"""Every name in Redis, with its bound and life time.

All keys of a shard carry the same hash tag, so that one transaction can touch them and Redis
Cluster keeps them on one node.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

TICKS_KEPT_S: Final = 120
"""How long ticks stay readable: how far back `/traffic/flow?since=` and a WebSocket resume reach."""
HISTORY_BUCKET_S: Final = 5
HISTORY_BUCKETS: Final = 180
"""15 minutes of history."""
FROZEN_BATCHES: Final = 4
"""Batches that an agent may have sent without having seen them confirmed (W)."""
SUB_WINDOW_US: Final = 5_000_000
SUB_WINDOWS: Final = 16
"""What was never sent merges into windows of at most 5 s, at most 16 of them."""
BATCH_BYTES: Final = 8 * 1024 * 1024
"""The largest batch that is accepted or sent."""

# Fields of an entry in the stream of flows. The number last confirmed stands outside the
# batch, because a batch is frozen and the confirmed number moves on.
FIELD_BOOT: Final = b"boot"
FIELD_SEQ: Final = b"seq"
FIELD_CONFIRMED: Final = b"confirmed"
FIELD_BATCH: Final = b"batch"
# Besides boot ids the hash of applied numbers has this field: the stream id up to which the
# aggregator has read every batch. An agent whose entry lies before it and is not applied sends
# again; while the aggregator is away the cursor stands still, and so does the stream's length.
APPLIED_CURSOR: Final = b"cursor"
# Fields of the totals begin so: a node's name, and how much its interfaces' sources saw.
COVERAGE: Final = "coverage:"
BEHIND: Final = frozenset(("service", "node"))
"""What pods may be behind of; which ones they are is in the totals."""
DECISIONS: Final = "decisions"
"""Field of the ledger's totals: its session, and at which ends Services count."""
# The one field of an entry in the stream of ticks.
FIELD_TICK: Final = b"tick"
LEDGER: Final = "cluster"
"""The shard that has no nodes, but the cluster's totals of all others; there is none where one shard has all nodes."""


def shard_of(node: str, shards: int) -> int:
    """The shard, of so many, in which a node's agent publishes."""
    return zlib.crc32(node.encode()) % shards


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one shard's keys: of a number, or of `LEDGER`."""

    shard: int | str = 0

    @property
    def _tag(self) -> str:
        return f"podloxx:{{{self.shard}}}"

    @property
    def flows(self) -> str:
        """Stream of batches: agents append, the aggregator trims what it applied."""
        return f"{self._tag}:flows"

    @property
    def applied(self) -> str:
        """Hash: boot id -> number of the last batch that is in the totals; and `APPLIED_CURSOR`."""
        return f"{self._tag}:applied"

    @property
    def totals(self) -> str:
        """Hash: `session`, one field `row:<number>` per pod row and one `coverage:<node>` per node."""
        return f"{self._tag}:totals"

    @property
    def ticks(self) -> str:
        """Stream of commits, ids `<epoch>-<n>`, kept `TICKS_KEPT_S`."""
        return f"{self._tag}:ticks"

    @property
    def history(self) -> str:
        """Hash: bucket number -> traffic of all rows in those 5 s; `HISTORY_BUCKETS` fields."""
        return f"{self._tag}:history"

    @property
    def lease(self) -> str:
        """String: fencing token of the aggregator that owns the shard; expires."""
        return f"{self._tag}:lease"

    @property
    def fence(self) -> str:
        """Counter from which fencing tokens are drawn."""
        return f"{self._tag}:fence"

    def peers(self, row: int) -> str:
        """Hash: one row's peers, at most `peers_per_pod` and one `other peers` per scope and way of counting."""
        return f"{self.peers_prefix}{row}"

    @property
    def peers_prefix(self) -> str:
        """What the names of all rows' peers begin with."""
        return f"{self._tag}:peers:"


def behind(what: str, namespace: str, name: str) -> str:
    """The field of the totals that lists the pods (`namespace/pod`) that may be behind a Service or node."""
    return f"behind:{what}:{namespace}/{name}"
