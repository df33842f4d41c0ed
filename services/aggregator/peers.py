"""The peers of all rows, by column."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.aggregator.booking import Booked, Table, summed
from services.aggregator.verdicts import Label, Labels
from services.flows import address
from services.flows.address import from_words
from services.flows.delta import FLOW_KEY, Kind, Rows
from services.flows.traffic import ROW_COUNTERS, Peer, peer_key

OTHER_PEERS: Final = "other peers"
_KEY: Final = struct.Struct("<IBBBxHxxIQQQQ")
assert _KEY.size == FLOW_KEY.itemsize
_FIRST_CAPACITY: Final = 1024
_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")


class _Key(NamedTuple):
    """A peer's key as `Booked.keys` writes it."""

    row: int
    kind: int
    protocol: int
    server: int
    port: int
    label: int
    local_hi: int = 0
    local_lo: int = 0
    peer_hi: int = 0
    peer_lo: int = 0


class Peers:
    """What each row exchanged with each of its peers.

    `peers_per_pod` bounds the peers of a row (0: no bound); what exceeds it is folded by scope.
    """

    def __init__(self, labels: Labels, peers_per_pod: int) -> None:
        self._labels = labels
        self._bound = peers_per_pod
        self._slots: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._fields: list[bytes] = []
        """Names of the fields in the store; empty until one is asked for."""
        self._of_row: dict[int, dict[int, None]] = {}
        self._free: list[int] = []
        self._counts: Table = np.zeros((_FIRST_CAPACITY, len(ROW_COUNTERS)), np.uint64)
        self._first: npt.NDArray[np.int64] = np.zeros(_FIRST_CAPACITY, np.int64)
        self._last: npt.NDArray[np.int64] = np.zeros(_FIRST_CAPACITY, np.int64)
        self._changed: set[int] = set()

    def add(self, booked: Booked, start_us: int, end_us: int) -> None:
        """Add what a window booked."""
        self._add(booked.keys, booked.counts, start_us, end_us)

    def add_gap(self, row: int, label: Label, counts: list[int], start_us: int, end_us: int) -> None:
        """Add what passed unseen."""
        key = _KEY.pack(*_Key(row, Kind.FOLDED, 0, 0, 0, self._labels.number(label)))
        self._add(np.frombuffer(key, FLOW_KEY), np.array([counts], np.uint64), start_us, end_us)

    def merge(self, row: int, into: int) -> None:
        """Add the peers of a row to another row's."""
        for slot in self._of_row.pop(row, {}):
            key = self._keys[slot]
            moved = _KEY.pack(*_Key(*_KEY.unpack(key))._replace(row=into))
            self._add(
                np.frombuffer(moved, FLOW_KEY),
                self._counts[slot : slot + 1].copy(),
                int(self._first[slot]),
                int(self._last[slot]),
            )
            del self._slots[key]
            self._counts[slot] = 0
            self._free.append(slot)
            self._changed.discard(slot)

    def restore(self, row: int, peer: Peer) -> None:
        """Take a peer as it was stored."""
        label = Label(peer.scope, peer.rule, peer.name, peer.namespace, peer.what)
        key = _Key(row, peer.kind, peer.protocol, peer.server, peer.port, self._labels.number(label))
        if peer.address:
            hi, lo = address.to_words(address.parse(peer.address))
            key = key._replace(peer_hi=hi, peer_lo=lo)
        if peer.local:
            hi, lo = address.to_words(address.parse(peer.local))
            key = key._replace(local_hi=hi, local_lo=lo)
        slot = self._take(_KEY.pack(*key))
        self._counts[slot] = peer.counts
        self._first[slot], self._last[slot] = peer.first_us, peer.last_us

    def of(self, row: int) -> list[Peer]:
        """The peers of a row."""
        return [self._peer(slot) for slot in self._of_row.get(row, ())]

    def changed(self, *, every: bool = False) -> Iterator[tuple[int, bytes, Peer]]:
        """Row, field and peer of those that changed since the last commit, or of all."""
        for slot in self._slots.values() if every else self._changed:
            peer = self._peer(slot)
            name = self._fields[slot] = self._fields[slot] or peer_key(peer)
            yield _KEY.unpack_from(self._keys[slot])[0], name, peer

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self._changed = set()

    def _add(self, keys: Rows, counts: Table, start_us: int, end_us: int) -> None:
        slots = self._find(keys, counts)
        found, inverse = np.unique(slots, return_inverse=True)
        if len(found) < len(slots):
            counts = summed(counts, inverse.reshape(-1), len(found))
            slots = found
        self._counts[slots] += counts
        self._first[slots] = np.minimum(self._first[slots], start_us)
        self._last[slots] = np.maximum(self._last[slots], end_us)
        self._changed.update(slots.tolist())

    def _find(self, keys: Rows, counts: Table) -> npt.NDArray[np.intp]:
        listed: list[bytes] = np.ascontiguousarray(keys).view(f"V{_KEY.size}").tolist()
        slots = np.array([self._slots.get(key, -1) for key in listed], np.intp)
        new = np.flatnonzero(slots < 0)
        # Where there is no room for all of them the largest have it.
        sizes = counts[new, _TX] + counts[new, _RX]
        for at in new[np.argsort(sizes, kind="stable")[::-1]].tolist():
            slots[at] = self._new(listed[at])
        return slots

    def _new(self, key: bytes) -> int:
        """The slot of a key that is not there: its own, or the one into which it is folded."""
        row, *_ = parts = _Key(*_KEY.unpack(key))
        label = self._labels.known[parts.label]
        full = 0 < self._bound <= len(self._of_row.get(row, ()))
        if full and label.name != OTHER_PEERS and parts.kind != Kind.FOLDED:
            folded = Label(label.scope, "", OTHER_PEERS)
            key = _KEY.pack(*_Key(row, Kind.IP, 0, 0, 0, self._labels.number(folded)))
            slot = self._slots.get(key)
            if slot is not None:
                return slot
        return self._take(key)

    def _take(self, key: bytes) -> int:
        if self._free:
            slot = self._free.pop()
            self._keys[slot], self._fields[slot] = key, b""
        else:
            slot = len(self._keys)
            self._keys.append(key)
            self._fields.append(b"")
            if slot == len(self._counts):
                self._grow()
        self._slots[key] = slot
        self._of_row.setdefault(_KEY.unpack(key)[0], {})[slot] = None
        self._first[slot], self._last[slot] = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        return slot

    def _grow(self) -> None:
        more = len(self._counts)
        self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._first = np.concatenate([self._first, np.zeros(more, np.int64)])
        self._last = np.concatenate([self._last, np.zeros(more, np.int64)])

    def _peer(self, slot: int) -> Peer:
        key = _Key(*_KEY.unpack(self._keys[slot]))
        scope, rule, name, namespace, what = self._labels.known[key.label]
        has_address = key.kind == Kind.IP and name != OTHER_PEERS
        return Peer(
            address=str(from_words(key.peer_hi, key.peer_lo)) if has_address else "",
            protocol=key.protocol,
            port=key.port,
            server=key.server,
            kind=key.kind,
            scope=scope,
            rule=rule,
            counts=self._counts[slot].tolist(),
            first_us=int(self._first[slot]),
            last_us=int(self._last[slot]),
            name=name,
            namespace=namespace,
            what=what,
            local=str(from_words(key.local_hi, key.local_lo)) if key.local_hi or key.local_lo else "",
        )
