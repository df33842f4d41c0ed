"""From raw flows to flow deltas: which side is the server, and ephemeral ports folded away."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.capture.raw_flow import RAW_KEY, VALUES, Direction, RawRows
from services.capture.server_memory import ServerMemory
from services.flows import address
from services.flows.address import Address
from services.flows.delta import FLOW, FLOW_KEY, Kind, Rows, Side
from services.flows.protocols import WITH_PORTS
from services.flows.table import group, sum_by

_EPHEMERAL_FROM: Final = 32768
"""Where Linux starts to draw ports for connections that ask for none."""
_ENDPOINT: Final = np.dtype(
    [("hi", "<u8"), ("lo", "<u8"), ("attachment", "<u4"), ("port", "<u2"), ("protocol", "u1"), ("zero", "u1")]
)
_SWAPS: Final = (("local_hi", "peer_hi"), ("local_lo", "peer_lo"), ("local_port", "peer_port"))
_OTHER_SIDE: Final = np.array([Side.NONE, Side.PEER, Side.LOCAL], np.uint8)

Mask = npt.NDArray[np.bool_]
Sides = npt.NDArray[np.uint8]


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
        rows = rows.copy()
        if not oriented:
            _flip(rows, _higher_first(rows))
        first, inverse = group(_conversations(rows))
        talks = _conversations(rows[first])
        ported = (talks["kind"] == Kind.IP) & np.isin(talks["protocol"], list(WITH_PORTS))
        ported &= (talks["local_port"] != 0) | (talks["peer_port"] != 0)
        server = _by_syn(rows, inverse, len(talks))
        if oriented:
            server = self._decide(talks, server, ported, np.full(len(talks), Side.PEER, np.uint8))
        else:
            # Who sent first is the client of what has no ports.
            sender = np.where(rows["direction"][first] == Direction.TX, np.uint8(Side.PEER), np.uint8(Side.LOCAL))
            server = self._decide(talks, np.where(ported, server, 0), talks["kind"] == Kind.IP, sender)
            flip = self._local_is_peer(talks, server)
            _flip(talks, flip)
            _flip_directions(rows, flip[inverse])
            server = np.where(flip, _OTHER_SIDE[server], server)
        server[~ported] = Side.NONE
        return _sum(talks, server, rows, inverse)

    def _decide(self, talks: RawRows, by_syn: Sides, which: Mask, fallback: Sides) -> Sides:
        """The server of the conversations in `which`, NONE for all others."""
        hashes = self._memory.hashes(talks)
        server = np.where(by_syn != Side.NONE, by_syn, self._memory.recall(hashes))
        if (which & (server == Side.NONE)).any():
            guessed = _guess(talks)
            guessed = np.where(guessed == Side.NONE, fallback, guessed)
            server = np.where(server == Side.NONE, guessed, server)
        self._memory.remember(hashes[which], server[which])
        return np.where(which, server, np.uint8(Side.NONE))

    def _local_is_peer(self, talks: RawRows, server: Sides) -> Mask:
        local, peer = self._is_known(talks, "local"), self._is_known(talks, "peer")
        return np.where(local == peer, server == Side.LOCAL, peer)

    def _is_known(self, talks: RawRows, end: str) -> Mask:
        found: Mask = np.zeros(len(talks), np.bool_)
        for hi, lo in self._known:
            found |= (talks[f"{end}_hi"] == hi) & (talks[f"{end}_lo"] == lo)
        return found


def _by_syn(rows: RawRows, inverse: npt.NDArray[np.intp], count: int) -> Sides:
    """The side of each conversation that did not send the SYN; NONE where none or both did."""
    sent = rows["direction"] == Direction.TX
    tx = sum_by(inverse, np.where(sent, rows["syns"], np.uint64(0)), count) > 0
    rx = sum_by(inverse, np.where(sent, np.uint64(0), rows["syns"]), count) > 0
    return np.select([tx & ~rx, rx & ~tx], [np.uint8(Side.PEER), np.uint8(Side.LOCAL)], np.uint8(Side.NONE))


def _conversations(rows: RawRows) -> npt.NDArray[np.void]:
    """The keys of `rows` without their direction."""
    keys = np.zeros(len(rows), RAW_KEY)
    for name in RAW_KEY.names or ():
        if name != "direction":
            keys[name] = rows[name]
    return keys


def _higher_first(rows: RawRows) -> Mask:
    """Where the local end's (address, port) is above the peer's, so both directions get one key."""
    result = rows["local_port"] > rows["peer_port"]
    for one, two in (("local_lo", "peer_lo"), ("local_hi", "peer_hi")):
        result = np.where(rows[one] == rows[two], result, rows[one] > rows[two])
    higher: Mask = result & (rows["kind"] == Kind.IP)
    return higher


def _flip(rows: RawRows, where: Mask) -> None:
    for one, two in _SWAPS:
        rows[one], rows[two] = np.where(where, rows[two], rows[one]), np.where(where, rows[one], rows[two])
    _flip_directions(rows, where)


def _flip_directions(rows: RawRows, where: Mask) -> None:
    rows["direction"] ^= where.astype(np.uint8)


def _guess(talks: RawRows) -> Sides:
    """The server by the ports alone; NONE where nothing tells."""
    local, peer = _talkers(talks, "local"), _talkers(talks, "peer")
    low_local, low_peer = talks["local_port"] < _EPHEMERAL_FROM, talks["peer_port"] < _EPHEMERAL_FROM
    choices: list[tuple[Any, Side]] = [
        ((talks["local_port"] == 0) & (talks["peer_port"] == 0), Side.NONE),
        (local > peer, Side.LOCAL),
        (peer > local, Side.PEER),
        (low_local & ~low_peer, Side.LOCAL),
        (low_peer & ~low_local, Side.PEER),
        (talks["local_port"] < talks["peer_port"], Side.LOCAL),
        (talks["peer_port"] < talks["local_port"], Side.PEER),
    ]
    return np.select([mask for mask, _ in choices], [np.uint8(side) for _, side in choices], np.uint8(Side.NONE))


def _talkers(talks: RawRows, end: str) -> npt.NDArray[np.int64]:
    """With how many conversations each row's endpoint is seen."""
    keys = np.zeros(len(talks), _ENDPOINT)
    keys["hi"], keys["lo"] = talks[f"{end}_hi"], talks[f"{end}_lo"]
    keys["attachment"], keys["protocol"] = talks["attachment"], talks["protocol"]
    keys["port"] = talks[f"{end}_port"]
    _, inverse = group(keys)
    return np.bincount(inverse)[inverse]


def _sum(talks: RawRows, server: Sides, rows: RawRows, inverse: npt.NDArray[np.intp]) -> Rows:
    keys = np.zeros(len(talks), FLOW_KEY)
    for name in ("attachment", "kind", "protocol", "local_hi", "local_lo", "peer_hi", "peer_lo"):
        keys[name] = talks[name]
    keys["server"] = server
    # Where nobody serves, only rows that are not IP carry a number (EtherType or reason).
    keys["port"] = np.where(server == Side.LOCAL, talks["local_port"], talks["peer_port"])
    first, folded = group(keys)
    target = folded[inverse]
    out = np.zeros(len(first), FLOW)
    for name in FLOW_KEY.names or ():
        out[name] = keys[name][first]
    for direction, prefix in ((Direction.TX, "tx"), (Direction.RX, "rx")):
        mine = rows["direction"] == direction
        for name in VALUES:
            out[f"{prefix}_{name}"] = sum_by(target[mine], rows[name][mine], len(first))
    return out
