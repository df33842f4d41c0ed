"""The peers of all rows, by column."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.aggregator.booking import Booked
from services.aggregator.index import Index
from services.aggregator.sums import Numbers, Table, chosen, grouped, table_of
from services.aggregator.verdicts import Label, Labels
from services.flows import address
from services.flows.address import from_words
from services.flows.delta import FLOW_KEY, Kind
from services.flows.peer_store import encode_peers, peer_key
from services.flows.table import Words, group_columns, sum_by, transposed
from services.flows.traffic import ROW_COUNTERS, Peer

OTHER_PEERS: Final = "other peers"
_KEY: Final = struct.Struct("<IBBBxHxxIQQQQ")
assert _KEY.size == FLOW_KEY.itemsize
_WORDS: Final = _KEY.size // 8
_ROW: Final = (1 << 32) - 1
"""The bits of a key's first word that are its row."""
_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")
_FIRST, _LAST = len(ROW_COUNTERS), len(ROW_COUNTERS) + 1
"""Columns behind the counters: when a peer was seen first and last."""
_LATEST: Final = np.iinfo(np.int64).max


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
        self._index = Index(_WORDS)
        self._fields: list[bytes] = []
        """Names of the fields in the store; empty until one is asked for."""
        self._table: Table = np.zeros((0, len(ROW_COUNTERS) + 2), np.uint64)
        self._of_row: npt.NDArray[np.int64] = np.zeros(1024, np.int64)
        """How many peers each row has."""
        self._changed: list[Numbers] = []

    def add(self, booked: Booked) -> None:
        """Add what windows booked."""
        words = transposed(np.ascontiguousarray(booked.keys).view(np.uint64).reshape(-1, _WORDS))
        self._add(words, booked.counts, booked.starts, booked.ends)

    def add_gap(self, row: int, label: Label, counts: list[int], start_us: int, end_us: int) -> None:
        """Add what passed unseen."""
        key = _Key(row, Kind.FOLDED, 0, 0, 0, self._labels.number(label))
        self._add(_words(key), table_of([counts]), np.array([start_us]), np.array([end_us]))

    def merge(self, row: int, into: int) -> None:
        """Add the peers of a row to another row's."""
        numbers = self._index.numbers(0, _ROW, row)
        if not len(numbers):
            return
        words, table = self._index.words(numbers).copy(), self._table[numbers]
        self._index.remove(numbers)
        self._table[numbers] = 0
        self._changed = [some[~np.isin(some, numbers)] for some in self._changed]
        for number in numbers.tolist():
            self._fields[number] = b""
        self._of_row[row] = 0
        words[0] = words[0] & np.uint64(~_ROW & (1 << 64) - 1) | np.uint64(into)
        times = (table[:, at].astype(np.int64) for at in (_FIRST, _LAST))
        self._add(words, table[:, :_FIRST], *times)

    def restore(self, stored: Sequence[tuple[int, Peer]]) -> None:
        """Take peers of rows as they were stored; many at once take a tenth of the time."""
        if stored:
            numbers = self._take(_words(*(self._key_of(row, peer) for row, peer in stored)))
            self._table[numbers] = [[*peer.counts, peer.first_us, peer.last_us] for _, peer in stored]

    def of(self, row: int) -> list[Peer]:
        """The peers of a row."""
        return [self._peer(number) for number in self._index.numbers(0, _ROW, row).tolist()]

    def changed(self, *, every: bool = False) -> Iterator[tuple[int, list[bytes]]]:
        """Rows with fields and encoded counters, in turn, of the peers that changed since the last commit, or of all."""
        some = self._index.numbers(0, 0, 0) if every else np.unique(np.concatenate([_NONE, *self._changed]))
        rows = (self._index.words(some)[0] & np.uint64(_ROW)).astype(np.int64)
        order, begins, found = grouped(rows)
        numbers, fields = some[order].tolist(), self._fields
        for number in numbers:
            if not fields[number]:
                fields[number] = peer_key(self._peer(number))
        pairs = [b""] * (2 * len(numbers))
        pairs[::2] = [fields[number] for number in numbers]
        pairs[1::2] = encode_peers(self._table[some[order]])
        ends = [*begins[1:].tolist(), len(numbers)]
        for row, begin, end in zip(found.tolist(), begins.tolist(), ends, strict=False):
            yield row, pairs[2 * begin : 2 * end]

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self._changed = []

    def _add(self, words: Words, counts: Table, starts: Numbers, ends: Numbers) -> None:
        numbers = self._find(words, counts)
        found, inverse = np.unique(numbers, return_inverse=True)
        if len(found) < len(numbers):
            firsts, lasts = np.full(len(found), _LATEST), np.zeros(len(found), np.int64)
            np.minimum.at(firsts, inverse, starts)
            np.maximum.at(lasts, inverse, ends)
            columns = [sum_by(inverse, counts[:, at], len(found)) for at in range(counts.shape[1])]
            numbers, counts, starts, ends = found, np.stack(columns).T, firsts, lasts
        table = self._table
        lines = table[numbers]
        lines[:, :_FIRST] += counts
        lines[:, _FIRST] = np.minimum(lines[:, _FIRST], starts.astype(np.uint64))
        lines[:, _LAST] = np.maximum(lines[:, _LAST], ends.astype(np.uint64))
        table[numbers] = lines
        self._changed.append(numbers)

    def _find(self, words: Words, counts: Table) -> Numbers:
        numbers = self._index.find(words)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            numbers[new] = self._new(words[:, new], chosen(counts, new))
        return numbers

    def _new(self, words: Words, counts: Table) -> Numbers:
        """The numbers of keys that are not there: their own, or those into which they are folded."""
        first, inverse = group_columns(words)
        keys = words[:, first]
        if self._bound:
            sizes = sum_by(inverse, counts[:, _TX] + counts[:, _RX], len(first))
            keys = self._within_bound(keys, sizes)
        numbers = self._index.find(keys)
        new = np.flatnonzero(numbers < 0)
        # Several may have been folded into one.
        once, which = group_columns(keys[:, new])
        numbers[new] = self._take(keys[:, new[once]])[which]
        return numbers[inverse]

    def _within_bound(self, keys: Words, sizes: npt.NDArray[np.uint64]) -> Words:
        """Keys of which those without room are folded; the largest have it."""
        rows = (keys[0] & np.uint64(_ROW)).astype(np.int64)
        self._make_room(int(rows.max()))
        order = np.lexsort((~sizes, rows))
        ordered = rows[order]
        place = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
        fits = np.zeros(len(rows), np.bool_)
        fits[order] = place < self._bound - self._of_row[ordered]
        if fits.all():
            return keys
        labels, inverse = np.unique(keys[1] >> np.uint64(32), return_inverse=True)
        folded = np.array([self._folded(label) for label in labels.tolist()], np.int64)[inverse]
        kinds = keys[0] >> np.uint64(32) & np.uint64(255)
        folds = ~fits & (folded >= 0) & (kinds != Kind.FOLDED)
        keys = keys.copy()
        keys[2:, folds] = 0
        keys[0, folds] = rows[folds]
        keys[1, folds] = folded[folds] << 32
        return keys

    def _folded(self, label: int) -> int:
        """The label of what peers with a label are folded into; -1 where they are that already."""
        one = self._labels.known[label]
        if one.name == OTHER_PEERS:
            return -1
        return self._labels.number(Label(one.scope, "", OTHER_PEERS, counted=one.counted))

    def _take(self, words: Words) -> Numbers:
        """Give numbers to keys that are new, each of them once."""
        numbers = self._index.add(words)
        more = self._index.capacity - len(self._table)
        if more > 0:
            self._table = np.concatenate([self._table, np.zeros((more, self._table.shape[1]), np.uint64)])
            self._fields += [b""] * more
        rows = (words[0] & np.uint64(_ROW)).astype(np.int64)
        self._make_room(int(rows.max(initial=0)))
        np.add.at(self._of_row, rows, 1)
        self._table[numbers, _FIRST] = _LATEST
        return numbers

    def _make_room(self, row: int) -> None:
        if row >= len(self._of_row):
            more = max(row + 1 - len(self._of_row), len(self._of_row))
            self._of_row = np.concatenate([self._of_row, np.zeros(more, np.int64)])

    def _key_of(self, row: int, peer: Peer) -> _Key:
        label = Label(peer.scope, peer.rule, peer.name, peer.namespace, peer.what, peer.via, peer.counted)
        ends = (address.to_words(address.parse(text)) if text else (0, 0) for text in (peer.local, peer.address))
        local, other = ends
        return _Key(row, peer.kind, peer.protocol, peer.server, peer.port, self._labels.number(label), *local, *other)

    def _peer(self, number: int) -> Peer:
        key = _key(self._index.words(np.array([number])))
        scope, rule, name, namespace, what, via, counted = self._labels.known[key.label]
        has_address = key.kind == Kind.IP and name != OTHER_PEERS
        *counts, first_us, last_us = self._table[number].tolist()
        return Peer(
            address=str(from_words(key.peer_hi, key.peer_lo)) if has_address else "",
            protocol=key.protocol,
            port=key.port,
            server=key.server,
            kind=key.kind,
            scope=scope,
            rule=rule,
            counts=counts,
            first_us=first_us,
            last_us=last_us,
            name=name,
            namespace=namespace,
            what=what,
            via=via,
            counted=counted,
            local=str(from_words(key.local_hi, key.local_lo)) if key.local_hi or key.local_lo else "",
        )


_NONE: Final = np.zeros(0, np.int64)


def _words(*keys: _Key) -> Words:
    """Keys as columns."""
    packed = b"".join(_KEY.pack(*key) for key in keys)
    return transposed(np.frombuffer(packed, np.uint64).reshape(-1, _WORDS))


def _key(words: Words) -> _Key:
    """The key of one line of columns."""
    return _Key(*_KEY.unpack(np.ascontiguousarray(words[:, 0]).tobytes()))
