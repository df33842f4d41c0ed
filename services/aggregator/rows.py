"""One row per pod: its identity, its totals by scope, its peers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from services.flows.traffic import ByScope, Counts, Identity, Peer, Row, RowChange, add_scopes, peer_key

OTHER_PEERS: Final = "other peers"


@dataclass(slots=True)
class RowState:
    """A row as the aggregator holds it."""

    number: int
    identity: Identity
    totals: ByScope = field(default_factory=dict)
    window_us: int = 0
    peers: dict[bytes, Peer] = field(default_factory=dict)

    def frozen(self) -> Row:
        """The row as it is stored."""
        return Row(self.number, self.identity, self.totals, self.window_us)


@dataclass(slots=True)
class Rows:
    """All rows by number and by pod, and what changed since the last commit.

    `peers_per_pod` bounds the peers of a row (0: no bound); what exceeds it is folded by scope.
    """

    peers_per_pod: int
    by_number: dict[int, RowState] = field(default_factory=dict)
    by_uid: dict[str, int] = field(default_factory=dict)
    changed: dict[int, ByScope] = field(default_factory=dict)
    identities: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    peers: dict[int, set[bytes]] = field(default_factory=dict)
    merged: list[tuple[int, int]] = field(default_factory=list)
    """Rows that were added to another one since `take_merged`: (gone, into)."""
    next_number: int = 1

    def open(self, identity: Identity) -> RowState:
        """The row of the pod `identity.uid`, new where there is none."""
        number = self.by_uid.get(identity.uid)
        if number is not None:
            return self.by_number[number]
        row = RowState(self.next_number, identity)
        self.next_number += 1
        self.by_number[row.number] = row
        self.by_uid[identity.uid] = row.number
        self.identities.add(row.number)
        return row

    def restore(self, row: RowState) -> None:
        """Take a row as it was stored."""
        self.by_number[row.number] = row
        self.by_uid[row.identity.uid] = row.number

    def identify(self, number: int, identity: Identity) -> None:
        """Set a row's identity."""
        row = self.by_number[number]
        if identity == row.identity:
            return
        if identity.uid != row.identity.uid:
            del self.by_uid[row.identity.uid]
            self.by_uid[identity.uid] = number
        row.identity = identity
        self.identities.add(number)

    def merge(self, number: int, into: int) -> None:
        """Add a row to another one, which turned out to be the same pod, and drop it."""
        row = self.by_number.pop(number)
        del self.by_uid[row.identity.uid]
        for kept in (self.changed, self.peers):
            kept.pop(number, None)
        self.identities.discard(number)
        self.removed.add(number)
        self.add(into, row.totals, row.window_us)
        for peer in row.peers.values():
            self.add_peer(into, peer)
        self.merged.append((number, into))

    def take_merged(self) -> list[tuple[int, int]]:
        """The merges since the last call."""
        merged, self.merged = self.merged, []
        return merged

    def add(self, number: int, added: ByScope, window_us: int) -> None:
        """Add counters to a row."""
        row = self.by_number[number]
        row.window_us = window_us
        add_scopes(row.totals, added)
        add_scopes(self.changed.setdefault(number, {}), added)

    def add_peer(self, number: int, peer: Peer) -> None:
        """Add counters to a row's peer."""
        known = self.by_number[number].peers
        key = peer_key(peer)
        before = known.get(key)
        if before is None and 0 < self.peers_per_pod <= len(known):
            peer = Peer("", 0, 0, 0, 0, peer.scope, "", peer.counts, peer.first_us, peer.last_us, OTHER_PEERS)
            key = peer_key(peer)
            before = known.get(key)
        if before is None:
            known[key] = replace(peer, counts=list(peer.counts))
        else:
            _add(before.counts, peer.counts)
            known[key] = replace(
                before,
                first_us=min(before.first_us, peer.first_us),
                last_us=max(before.last_us, peer.last_us),
            )
        self.peers.setdefault(number, set()).add(key)

    def changes(self) -> tuple[RowChange, ...]:
        """The increments of every row that changed."""
        return tuple(
            RowChange(number, self.by_number[number].window_us, added)
            for number, added in sorted(self.changed.items())
            if number in self.by_number
        )

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.changed = {}
        self.identities = set()
        self.removed = set()
        self.peers = {}


def _add(into: Counts, added: Counts) -> None:
    for at, value in enumerate(added):
        into[at] += value
