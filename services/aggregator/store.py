"""The shard in Redis: its lease, one transaction per commit, and reading it all back."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import msgpack
from redis.asyncio import Redis

from services.aggregator.rows import RowState
from services.aggregator.totals import Totals
from services.flows import keys, traffic
from services.flows.traffic import Peer, Session, TrafficError
from services.runtime.errors import PodloxxError

_ROW: Final = "row:"
_POINTS: Final = "points:"
_SESSION: Final = "session"
_POSITION: Final = "position"
_ONCE: Final = "once"
_BEFORE_EVERYTHING: Final = b"0-0"
_ENTRIES_PER_READ: Final = 64
_TAKEN: Final = "another aggregator has taken over this shard; this one ends"


class FencedError(PodloxxError):
    """Another aggregator owns the shard."""


class StoreLostError(Exception):
    """The store does not hold what was committed last: it was emptied, or is another one."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit carries besides the totals: where the stream was read to, what was applied."""

    applied: Mapping[str, int]
    forgotten: tuple[str, ...]
    cursor: bytes
    now_us: int


class Store:
    """One shard, as the aggregator that owns it sees it. Raises RedisError where Redis fails."""

    def __init__(self, redis: Redis, names: keys.Keys, lease_ttl_s: float) -> None:
        self._redis: Any = redis
        self._names = names
        self._ttl_ms = int(lease_ttl_s * 1000)
        self._token = ""
        self._ticks: deque[tuple[int, int]] = deque()
        self._unsettled: tuple[int, int, bytes] | None = None
        self.epoch = 0
        self.n = 0
        self.started_us = 0
        source = files("services.aggregator")
        self._commit = self._redis.register_script(source.joinpath("commit.lua").read_text())
        self._renew = self._redis.register_script(source.joinpath("renew.lua").read_text())

    @property
    def position(self) -> str:
        """The id of the last committed tick; empty before the first commit of an epoch."""
        return f"{self.epoch}-{self.n}" if self.n else ""

    async def now_us(self) -> int:
        """Redis's clock in microseconds."""
        seconds, micros = await self._redis.time()
        return int(seconds) * 1_000_000 + int(micros)

    async def acquire(self) -> bool:
        """Try to become the owner of the shard."""
        token = str(await self._redis.incr(self._names.fence))
        # Fencing tokens restart when the store was lost: the random half keeps them apart.
        token = f"{token}-{secrets.token_hex(8)}"
        if await self._redis.set(self._names.lease, token, nx=True, px=self._ttl_ms):
            self._token = token
            return True
        return False

    async def renew(self, cursor: bytes) -> None:
        """Keep the shard without a commit; raises as `commit`."""
        reply = await self._renew(
            keys=[self._names.lease, self._names.applied], args=[self._token, self._ttl_ms, cursor]
        )
        if reply[0] != b"ok":
            await self._claim_again()

    async def release(self) -> None:
        """Give the shard back, so that a standby need not wait."""
        if await self._redis.get(self._names.lease) == self._token.encode():
            await self._redis.delete(self._names.lease)

    async def read(self, cursor: bytes, block_ms: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of the stream of flows behind `cursor`, waiting up to `block_ms` for one."""
        reply = await self._redis.xread({self._names.flows: cursor}, count=_ENTRIES_PER_READ, block=block_ms)
        if not reply:
            return []
        return [(entry, fields) for entry, fields in reply[0][1]]

    def fresh(self, now_us: int) -> None:
        """Begin a new epoch: the next commit replaces everything in the store."""
        self._unsettled = None
        self.epoch, self.n = secrets.randbits(48) + 1, 0
        self._ticks.clear()
        self.started_us = self.started_us or now_us

    async def commit(self, totals: Totals, commit: Commit) -> None:
        """Bring all changes into the store.

        Raises FencedError where the shard has another owner, and StoreLostError where the store
        does not hold the previous commit; then begin a `fresh` epoch and commit again.
        """
        n = self.n + 1
        self._unsettled = n, commit.now_us, msgpack.packb(self._change(totals, commit, n), use_bin_type=False)
        await self.settle(totals)

    async def settle(self, totals: Totals) -> None:
        """Carry out the last commit, unless it was carried out and only its reply was lost."""
        if self._unsettled is None:
            return
        n, now_us, change = self._unsettled
        reply = await self._run(change)
        if reply[0] == b"fenced":
            await self._claim_again()
            reply = await self._run(change)
        if reply[0] == b"fenced":
            raise FencedError(_TAKEN)
        self._unsettled = None
        if reply[0] == b"moved" and reply[1].decode() != f"{self.epoch}-{n}":
            raise StoreLostError
        self.n = n
        self._ticks.append((now_us, n))
        totals.committed()

    async def load(self, totals: Totals) -> tuple[dict[str, int], bytes] | None:
        """Read everything back; applied numbers and cursor, or None where the store is empty."""
        stored = await self._redis.hgetall(self._names.totals)
        if _SESSION.encode() not in stored:
            return None
        # Everything is read before anything is taken: a read that fails is tried again from here.
        numbers = [int(field[len(_ROW) :]) for field in stored if field.startswith(_ROW.encode())]
        peers = {number: await self._redis.hgetall(self._names.peers(number)) for number in numbers}
        history = await self._redis.hgetall(self._names.history)
        applied = await self._redis.hgetall(self._names.applied)
        first = await self._redis.xrange(self._names.ticks, count=1)
        now = await self.now_us()
        try:
            session = traffic.decode_session(stored[_SESSION.encode()])
            self._take(totals, session, stored)
            for number, entries in peers.items():
                totals.rows.by_number[number].peers = dict(map(_peer, entries.values()))
            totals.history.buckets = {int(at): traffic.decode_history(value) for at, value in history.items()}
        except (TrafficError, KeyError, TypeError, ValueError) as error:
            raise PodloxxError(
                f"the totals in Redis cannot be read ({error}): they are of another version of podloxx, or damaged. "
                "Use the version that wrote them, or empty that Redis to begin a new session."
            ) from error
        self.epoch, self.n, self.started_us = session.epoch, session.n, session.started_us
        totals.committed()
        if first:
            # When the stored ticks were made is not read back: all of them stay for one more term.
            self._ticks.append((now, traffic.parse_tick_id(first[0][0].decode())[1]))
        cursor = applied.pop(keys.APPLIED_CURSOR, _BEFORE_EVERYTHING)
        return {boot.decode(): int(seq) for boot, seq in applied.items()}, cursor

    async def trim(self, cursor: bytes) -> None:
        """Make room in a full store: what was read and not committed, agents still have."""
        await self._redis.xtrim(self._names.flows, minid=_after(cursor), approximate=False)

    async def _run(self, change: bytes) -> list[bytes]:
        names = self._names
        reply: list[bytes] = await self._commit(
            keys=[names.lease, names.totals, names.applied, names.ticks, names.history, names.flows],
            args=[self._token, self._ttl_ms, change],
        )
        return reply

    async def _claim_again(self) -> None:
        """Take a lease that ran out while nobody else used it, for example with an emptied store."""
        if not await self._redis.set(self._names.lease, self._token, nx=True, px=self._ttl_ms):
            raise FencedError(_TAKEN)
        found = await self._redis.hget(self._names.totals, _POSITION)
        if found is None and self.n:
            raise StoreLostError
        if found is not None and found.decode() not in {self.position, f"{self.epoch}-{self.n + 1}"}:
            # Somebody else owned the shard meanwhile, and committed.
            await self.release()
            raise FencedError(_TAKEN)

    def _take(self, totals: Totals, session: Session, stored: Mapping[bytes, bytes]) -> None:
        totals.cluster, totals.nodes = session.cluster, dict(session.nodes)
        totals.loss.update(session.loss)
        totals.overlap_bytes = session.overlap_bytes
        points: list[dict[str, Any]] = []
        for field, value in stored.items():
            name = field.decode()
            if name.startswith(_ROW):
                row = traffic.decode_row(int(name.removeprefix(_ROW)), value)
                totals.rows.restore(RowState(row.number, row.identity, row.totals, row.window_us))
            elif name.startswith(_POINTS):
                points += msgpack.unpackb(value)
        totals.points.restore(points)
        once = msgpack.unpackb(stored[_ONCE.encode()])
        totals.rows.next_number = once.pop("next_number")
        totals.once.restore(once)

    def _change(self, totals: Totals, commit: Commit, n: int) -> dict[str, Any]:
        fresh = self.n == 0
        tick = totals.tick(self.epoch, n, commit.now_us)
        while len(self._ticks) > 1 and self._ticks[0][0] < commit.now_us - keys.TICKS_KEPT_S * 1_000_000:
            self._ticks.popleft()
        rows = set(totals.rows.by_number) if fresh else (set(totals.rows.changed) | totals.rows.identities)
        nodes = set(totals.nodes) if fresh else totals.nodes_changed
        peers = totals.rows.peers
        if fresh:
            peers = {number: set(row.peers) for number, row in totals.rows.by_number.items()}
        buckets = set(totals.history.buckets) if fresh else totals.history.changed
        applied: list[object] = [value for pair in commit.applied.items() for value in (pair[0], str(pair[1]))]
        return {
            "fresh": fresh,
            "expected": self.position,
            "position": f"{self.epoch}-{n}",
            "peers_prefix": self._names.peers_prefix,
            "totals": self._totals(totals, n, rows & set(totals.rows.by_number), nodes),
            "totals_gone": [f"{_ROW}{number}" for number in totals.rows.removed],
            "applied": [*applied, keys.APPLIED_CURSOR, commit.cursor],
            "applied_gone": list(commit.forgotten),
            "history": [
                value
                for bucket in buckets
                for value in (str(bucket), traffic.encode_history(totals.history.buckets[bucket]))
            ],
            "history_gone": [str(bucket) for bucket in totals.history.dropped],
            "peers": {
                str(number): [
                    value
                    for key in changed
                    for value in (key, traffic.encode_peer(totals.rows.by_number[number].peers[key]))
                ]
                for number, changed in peers.items()
                if number in totals.rows.by_number and changed
            },
            "peers_gone": [str(number) for number in totals.rows.removed],
            "tick": traffic.encode_tick(tick),
            "oldest_tick": f"{self.epoch}-{self._ticks[0][1] if self._ticks else n}",
            "read_to": _after(commit.cursor) if commit.cursor else "",
        }

    def _totals(self, totals: Totals, n: int, rows: set[int], nodes: set[str]) -> list[object]:
        session = Session(
            epoch=self.epoch,
            n=n,
            started_us=self.started_us,
            cluster=totals.cluster,
            nodes=totals.nodes,
            pending_bytes=totals.pending_bytes,
            overlap_bytes=totals.overlap_bytes,
            loss=dict(totals.loss),
        )
        once = totals.once.stored() | {"next_number": totals.rows.next_number}
        out: list[object] = [_POSITION, f"{self.epoch}-{n}", _SESSION, traffic.encode_session(session)]
        out += [_ONCE, msgpack.packb(once)]
        for number in rows:
            out += [f"{_ROW}{number}", traffic.encode_row(totals.rows.by_number[number].frozen())]
        for node in nodes:
            out += [f"{_POINTS}{node}", msgpack.packb(totals.points.stored(node))]
        return out


def _peer(value: bytes) -> tuple[bytes, Peer]:
    peer = traffic.decode_peer(value)
    return traffic.peer_key(peer), peer


def _after(entry: bytes) -> str:
    """The smallest stream id behind `entry`."""
    milliseconds, _, number = entry.decode().partition("-")
    return f"{milliseconds}-{int(number or 0) + 1}"
