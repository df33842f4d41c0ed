"""The messages about watched pods, each made once for all who watch the same one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, cast

import orjson

from services.api.counters import RX, RX_PACKETS, TX, TX_PACKETS
from services.api.live_rows import seconds
from services.api.mirror import Mirror, RowView
from services.api.peers import Candidates, PeerReader
from services.api.reader import Reader
from services.api.views import protocol_of
from services.api.web_socket_frames import Frames, text_frames
from services.flows import keys
from services.flows.delta import Kind
from services.flows.live_message import PeerColumns, ScopeColumns, WatchedPod, Words, by_column
from services.flows.traffic import Peer
from services.runtime.log import get_logger
from services.runtime.redis_client import StoreError

_log = get_logger(__name__)

PEERS: Final = 1000
"""Peers in a message; as many as are kept per pod unless the user asked for more."""
_CANDIDATES: Final = 100
_KEPT: Final = 32
"""Messages that are kept for the next who watches the same pod."""
_AT_A_TIME: Final = 32
"""Pods that are read at a time; others wait, so that requests over HTTP are not refused because of them."""
_SERVER: Final = ("", "pod", "peer")
_WORDS: Final = ("namespace", "kind", "protocol", "server", "scope", "rule", "via")
_PEER_FIELDS: Final = tuple(PeerColumns.__annotations__)
_SCOPE_FIELDS: Final = tuple(ScopeColumns.__annotations__)

Version = tuple[int, int, int, int, bool]
"""Epoch, row, what changed it last, and whether its agent reports: while they are the same, so is the message."""


class WatchedPods:
    """Asks for peers on behalf of all clients."""

    def __init__(self, reader: Reader, peers: PeerReader) -> None:
        self._reader = reader
        self._peers = peers
        self._made: OrderedDict[Version, Frames] = OrderedDict()
        self._making: dict[Version, asyncio.Future[Frames | None]] = {}
        self._room = asyncio.Semaphore(_AT_A_TIME)

    def version(self, key: str) -> Version | None:
        """Tells one state of a pod from another; None where there is no such pod."""
        mirror, row = self._row(key)
        if mirror is None or row is None:
            return None
        return mirror.epoch, row.number, row.changed_n, row.revision, mirror.live_row(row)

    async def frames(self, key: str) -> Frames | None:
        """The message about a pod as it is now; None where there is no such pod, or its peers cannot be read."""
        version = self.version(key)
        if version is None:
            return None
        if (made := self._made.get(version)) is not None:
            return made
        making = self._making.get(version)
        return await (self._make(key, version) if making is None else asyncio.shield(making))

    def without_peers(self, key: str) -> Frames:
        """The message about a pod of which nothing could be read."""
        return self._encoded(key, None, {})

    async def _make(self, key: str, version: Version) -> Frames | None:
        making = self._making[version] = asyncio.get_running_loop().create_future()
        made: Frames | None = None
        try:
            async with self._room:
                peers = (await self._peers.of([version[1]]))[version[1]]
                made = self._encoded(key, peers, await self._peers.behind(peers))
        except StoreError as error:
            _log.info("peers-not-read", error=str(error))
        else:
            self._made[version] = made
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
        finally:
            # Who asked first may have gone meanwhile: the others ask again.
            del self._making[version]
            making.set_result(made)
        return made

    def _encoded(self, key: str, peers: Sequence[Peer] | None, behind: Candidates) -> Frames:
        mirror, row = self._row(key)
        return text_frames(orjson.dumps(_message(key, mirror, row, peers, behind)))

    def _row(self, key: str) -> tuple[Mirror | None, RowView | None]:
        mirror = self._reader.mirror
        return mirror, None if mirror is None else mirror.shown().get(key)


def _message(
    key: str, mirror: Mirror | None, row: RowView | None, peers: Sequence[Peer] | None, behind: Candidates
) -> WatchedPod:
    words = Words()
    ranked = sorted(peers or (), key=lambda peer: -(peer.counts[TX] + peer.counts[RX]))
    columns = None if peers is None else _peers(ranked[:PEERS], behind, words)
    return WatchedPod(
        t="pod",
        pod=key,
        epoch=mirror.epoch if mirror else 0,
        seq=mirror.n if mirror else 0,
        ts=mirror.at_us / 1e6 if mirror else 0.0,
        uid=row.identity.uid if row else "",
        container=row.identity.container_id if row else "",
        words=words.listed,
        scopes=_scopes(row, live=mirror is not None and row is not None and mirror.live_row(row)),
        peers=columns,
        more=max(0, len(ranked) - PEERS),
    )


def _scopes(row: RowView | None, *, live: bool) -> ScopeColumns:
    entries = []
    for scope, counts in (row.totals if row else {}).items():
        rates = row.rates.get(scope) if row else None
        now = (rates[TX], rates[RX]) if rates else (0, 0)
        packets = counts[TX_PACKETS] + counts[RX_PACKETS]
        entries.append((scope.value, counts[TX], counts[RX], packets, *(now if live else (None, None))))
    return cast("ScopeColumns", by_column(_SCOPE_FIELDS, entries))


def _peers(peers: Sequence[Peer], behind: Candidates, words: Words) -> PeerColumns:
    columns = by_column(_PEER_FIELDS, [_peer(peer, behind) for peer in peers])
    for name in _WORDS:
        columns[name] = list(map(words.place, columns[name]))
    return cast("PeerColumns", columns)


def _peer(peer: Peer, behind: Candidates) -> tuple[object, ...]:
    """A peer's values in the order of `PeerColumns`."""
    candidates = behind.get(keys.behind(peer.what, peer.namespace, peer.name), ())
    return (
        peer.address,
        peer.local,
        peer.name,
        peer.namespace,
        peer.what,
        protocol_of(peer),
        (peer.port or None) if peer.kind == Kind.IP else None,
        _SERVER[peer.server],
        peer.scope.value,
        peer.rule,
        peer.via,
        candidates[:_CANDIDATES],
        len(candidates),
        peer.counts[TX],
        peer.counts[RX],
        peer.counts[TX_PACKETS] + peer.counts[RX_PACKETS],
        seconds(peer.first_us),
        seconds(peer.last_us),
    )
