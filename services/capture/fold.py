"""From raw flows to flow deltas: which side is the server, and ephemeral ports folded away."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.capture.raw_flow import (
    ABOUT,
    ATTACHMENT,
    BYTE,
    DIRECTION_AT,
    KEY_WORDS,
    KIND_AT,
    LOCAL_HI,
    LOCAL_LO,
    PEER_HI,
    PEER_LO,
    PEER_PORT_AT,
    PORT,
    PORTS,
    PROTOCOL_AT,
    SYNS,
    VALUES,
    Columns,
    Direction,
    RawRows,
    columns_of,
)
from services.capture.server_memory import ServerMemory
from services.flows import address
from services.flows.address import Address
from services.flows.delta import COUNTERS, FLOW, Kind, Rows, Side
from services.flows.protocols import WITH_PORTS
from services.flows.table import group_columns, sum_by, transposed

_EPHEMERAL_FROM: Final = 32768
"""Where Linux starts to draw ports for connections that ask for none."""
_SERVER_AT: Final = np.uint64(48)
"""Where `FLOW` has the server's side, in the word in which `RAW_FLOW` has the direction."""
_ADDRESSES: Final = ((LOCAL_HI, PEER_HI), (LOCAL_LO, PEER_LO))
_OTHER_SIDE: Final = np.array([Side.NONE, Side.PEER, Side.LOCAL], np.uint8)
_NO_DIRECTION: Final = ~(BYTE << DIRECTION_AT)

Mask = npt.NDArray[np.bool_]
Sides = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]


class Folder:
    """Folds windows of one agent; remembers up to `capacity` decisions about who the server is.

    The server is the side that did not send the SYN, where one was seen; else the side decided
    before; else the side whose port talks with more ports; else the one below 32768; else the
    lower port; else the peer. `known` are addresses that are to be `local` where a source does
    not know the pod's side.
    """

    def __init__(self, capacity: int, known: frozenset[Address] = frozenset()) -> None:
        self._memory = ServerMemory(capacity)
        self._known = np.array([address.to_words(one) for one in known], np.uint64).reshape(-1, 2)

    def fold(self, rows: RawRows, *, oriented: bool = True) -> Rows:
        """The `FLOW` table of one window.

        With `oriented` false every row is its sender's (`local` sent it): `local` becomes the known
        end, else the client.
        """
        columns = columns_of(rows)
        if not oriented:
            _flip(columns, _higher_first(columns))
        direction = columns[ABOUT] >> DIRECTION_AT & BYTE
        columns[ABOUT] &= _NO_DIRECTION
        first, inverse = group_columns(columns[:KEY_WORDS], self._memory.factors)
        talks = columns[:KEY_WORDS, first]
        kind = talks[ABOUT] >> KIND_AT & BYTE
        ported = (kind == Kind.IP) & np.isin(talks[ABOUT] >> PROTOCOL_AT & BYTE, list(WITH_PORTS)) & (talks[PORTS] != 0)
        server = _by_syn(columns[SYNS], direction, inverse, len(first))
        if oriented:
            server = self._decide(talks, server, ported, np.full(len(first), Side.PEER, np.uint8))
        else:
            # Who sent first is the client of what has no ports.
            earliest = np.full(len(first), len(rows))
            np.minimum.at(earliest, inverse, np.arange(len(rows)))
            sender = np.where(direction[earliest] == Direction.TX, np.uint8(Side.PEER), np.uint8(Side.LOCAL))
            server = self._decide(talks, np.where(ported, server, np.uint8(Side.NONE)), kind == Kind.IP, sender)
            flip = self._local_is_peer(talks, server)
            _flip(talks, flip)
            talks[ABOUT] &= _NO_DIRECTION
            direction ^= flip[inverse]
            server = np.where(flip, _OTHER_SIDE[server], server)
        server[~ported] = Side.NONE
        return _sum(talks, server, columns[KEY_WORDS:], inverse * 2 + (direction == Direction.RX))

    def _decide(self, talks: Columns, by_syn: Sides, which: Mask, fallback: Sides) -> Sides:
        """The server of the conversations in `which`, NONE for all others."""
        hashes = self._memory.hashes(talks)
        server = np.where(by_syn != Side.NONE, by_syn, self._memory.recall(hashes))
        if (which & (server == Side.NONE)).any():
            guessed = _guess(talks)
            guessed = np.where(guessed == Side.NONE, fallback, guessed)
            server = np.where(server == Side.NONE, guessed, server)
        self._memory.remember(hashes[which], server[which])
        return np.where(which, server, np.uint8(Side.NONE))

    def _local_is_peer(self, talks: Columns, server: Sides) -> Mask:
        local, peer = self._is_known(talks, LOCAL_HI, LOCAL_LO), self._is_known(talks, PEER_HI, PEER_LO)
        return np.where(local == peer, server == Side.LOCAL, peer)

    def _is_known(self, talks: Columns, hi_at: int, lo_at: int) -> Mask:
        found: Mask = np.zeros(talks.shape[1], np.bool_)
        for hi, lo in self._known:
            found |= (talks[hi_at] == hi) & (talks[lo_at] == lo)
        return found


def _by_syn(syns: Words, direction: Words, inverse: npt.NDArray[np.intp], count: int) -> Sides:
    """The side of each conversation that did not send the SYN; NONE where none or both did."""
    some = np.flatnonzero(syns)
    sent = direction[some] == Direction.TX
    tx, rx = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    tx[inverse[some[sent]]] = True
    rx[inverse[some[~sent]]] = True
    return np.select([tx & ~rx, rx & ~tx], [np.uint8(Side.PEER), np.uint8(Side.LOCAL)], np.uint8(Side.NONE))


def _local_port(columns: Columns) -> Words:
    ports: Words = columns[PORTS] & PORT
    return ports


def _peer_port(columns: Columns) -> Words:
    ports: Words = columns[PORTS] >> PEER_PORT_AT & PORT
    return ports


def _higher_first(columns: Columns) -> Mask:
    """Where the local end's (address, port) is above the peer's, so both directions get one key."""
    result = _local_port(columns) > _peer_port(columns)
    for one, two in reversed(_ADDRESSES):
        result = np.where(columns[one] == columns[two], result, columns[one] > columns[two])
    higher: Mask = result & (columns[ABOUT] >> KIND_AT & BYTE == Kind.IP)
    return higher


def _flip(columns: Columns, where: Mask) -> None:
    """Exchange the ends, and so the direction."""
    for one, two in _ADDRESSES:
        columns[one], columns[two] = np.where(where, columns[[two, one]], columns[[one, two]])
    swapped = _peer_port(columns) | _local_port(columns) << PEER_PORT_AT
    columns[PORTS] = np.where(where, swapped, columns[PORTS])
    columns[ABOUT] ^= where.astype(np.uint64) << DIRECTION_AT


def _guess(talks: Columns) -> Sides:
    """The server by the ports alone; NONE where nothing tells."""
    local_port, peer_port = _local_port(talks), _peer_port(talks)
    local = _talkers(talks, LOCAL_HI, LOCAL_LO, local_port)
    peer = _talkers(talks, PEER_HI, PEER_LO, peer_port)
    low_local, low_peer = local_port < _EPHEMERAL_FROM, peer_port < _EPHEMERAL_FROM
    choices: list[tuple[Any, Side]] = [
        (talks[PORTS] == 0, Side.NONE),
        (local > peer, Side.LOCAL),
        (peer > local, Side.PEER),
        (low_local & ~low_peer, Side.LOCAL),
        (low_peer & ~low_local, Side.PEER),
        (local_port < peer_port, Side.LOCAL),
        (peer_port < local_port, Side.PEER),
    ]
    return np.select([mask for mask, _ in choices], [np.uint8(side) for _, side in choices], np.uint8(Side.NONE))


def _talkers(talks: Columns, hi_at: int, lo_at: int, port: Words) -> npt.NDArray[np.int64]:
    """With how many conversations each row's endpoint is seen."""
    attachment, protocol = talks[ABOUT] & ATTACHMENT, talks[ABOUT] >> PROTOCOL_AT & BYTE
    about = attachment | protocol << np.uint64(32) | port << np.uint64(40)
    _, inverse = group_columns([talks[lo_at], about, talks[hi_at]])
    return np.bincount(inverse)[inverse]


def _sum(talks: Columns, server: Sides, values: Columns, place: npt.NDArray[np.intp]) -> Rows:
    """`place` is twice the conversation of each row of `values`, and one more where it was received."""
    keys = talks.copy()
    keys[ABOUT] |= server.astype(np.uint64) << _SERVER_AT
    # Where nobody serves, only rows that are not IP carry a number (EtherType or reason).
    keys[PORTS] = np.where(server == Side.LOCAL, _local_port(talks), _peer_port(talks))
    first, folded = group_columns(keys)
    target = folded[place >> 1] * 2 + (place & 1)
    out = np.empty((KEY_WORDS + len(COUNTERS), len(first)), np.uint64)
    np.take(keys, first, axis=1, out=out[:KEY_WORDS])
    for at, column in enumerate(values):
        # Each of `VALUES` gives two of `COUNTERS`: sent and received.
        out[KEY_WORDS + 2 * at : KEY_WORDS + 2 * at + 2] = sum_by(target, column, 2 * len(first)).reshape(-1, 2).T
    return transposed(out).view(FLOW).reshape(-1)


assert tuple(f"{way}_{name}" for name in VALUES for way in ("tx", "rx")) == COUNTERS
