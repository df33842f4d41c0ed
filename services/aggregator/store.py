"""The shard in Redis: its lease, one transaction per commit, and reading it all back."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import msgpack
from redis.asyncio import Redis

from services.aggregator import snapshot
from services.aggregator.timeline import Timeline
from services.aggregator.totals import Totals
from services.flows import keys, peer_store, traffic
from services.flows.traffic import TrafficError
from services.runtime import redis_client
from services.runtime.clock import Clock
from services.runtime.errors import PodloxxError, UsageError

_BEFORE_EVERYTHING: Final = b"0-0"
_ENTRIES_PER_READ: Final = 16, 1000
"""At least so many, which is 128 MB with the largest batches, and at most."""
_BYTES_PER_READ: Final = 32 << 20
"""About; as many entries as that would be if each was as large as the largest of the last ones."""
_ROWS_PER_READ: Final = 50
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


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """A commit of which it is not known yet whether it was carried out: scripts' arguments, in order."""

    n: int
    changes: list[bytes]


class Store:
    """One shard, as the aggregator that owns it sees it. Raises RedisError where Redis fails."""

    def __init__(
        self, redis: Redis, names: keys.Keys, lease_ttl_s: float, clock: Clock, timeline: Timeline | None = None
    ) -> None:
        """Stores of one process have one `timeline`."""
        self._redis: Any = redis
        self._clock = clock
        self.timeline = timeline or Timeline(clock)
        self._names = names
        self._ttl_ms = int(lease_ttl_s * 1000)
        self._token = b""
        self._ticks: deque[tuple[int, int]] = deque()
        """When the kept ticks were made, by our own clock, and their numbers: Redis's clock may be set."""
        self._unsettled: _Unsettled | None = None
        self._attempts = 0
        self._loaded = ""
        self._entry_bytes = _BYTES_PER_READ
        self.epoch = 0
        self.n = 0
        self.started_us = 0
        source = files("services.aggregator")
        self._acquire, self._claim, self._renew, self._commit = (
            self._redis.register_script(source.joinpath(f"{name}.lua").read_text())
            for name in ("acquire", "claim", "renew", "commit")
        )

    @property
    def shard(self) -> int | str:
        """Which one."""
        return self._names.shard

    @property
    def position(self) -> str:
        """The id of the last committed tick; empty before the first commit of an epoch."""
        return f"{self.epoch}-{self.n}" if self.n else ""

    async def now_us(self) -> int:
        """Redis's clock in microseconds."""
        asked_us = self._clock.monotonic_us()
        now = await redis_client.now_us(self._redis)
        self.timeline.read(now, asked_us)
        return now

    async def acquire(self, *, only_with_totals: bool = False) -> bool:
        """Try to become the owner of the shard, of one without totals only where that is wanted."""
        names = [self._names.lease, self._names.fence, self._names.totals]
        field = snapshot.SESSION if only_with_totals else ""
        token = await self._acquire(keys=names, args=[self._ttl_ms, secrets.token_hex(8), field])
        if token is None:
            return False
        self._token = token
        return True

    async def holds_totals(self) -> bool:
        """Whether a session stands in the store."""
        return bool(await self._redis.hexists(self._names.totals, snapshot.SESSION))

    async def renew(self, cursor: bytes = b"") -> None:
        """Keep the shard without a commit, and publish a cursor if one is given; raises as `commit`."""
        if not await self._renewed(self._ttl_ms, cursor):
            await self._claim_again()

    async def release(self) -> None:
        """Give the shard back, so that a standby need not wait."""
        await self._renewed(0, b"")

    async def read(self, cursor: bytes, block_ms: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of the stream of flows behind `cursor`, waiting up to `block_ms` (at least 1) for one."""
        least, most = _ENTRIES_PER_READ
        count = min(max(least, _BYTES_PER_READ // self._entry_bytes), most)
        reply = await self._redis.xread({self._names.flows: cursor}, count=count, block=max(1, block_ms))
        if not reply:
            return []
        entries = [(entry, fields) for entry, fields in reply[0][1]]
        self._entry_bytes = max(1, *(len(value) for _, fields in entries for value in fields.values()))
        return entries

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
        session = snapshot.session_of(totals, self.epoch, n, self.started_us)
        parts: list[snapshot.Part] = []
        if self.n == 0:
            parts, change = snapshot.whole(totals, session, commit.now_us)
        else:
            change = snapshot.changed(totals, session, commit.now_us)
        ahead = [
            {"fresh": at == 0, "part": True, "totals": part.totals, "peers": part.peers}
            for at, part in enumerate(parts)
        ]
        last = change | {"expected": self.position} | self._numbers(commit, n)
        prefix = {"peers_prefix": self._names.peers_prefix}
        # Lua's strings are bytes: both kinds travel as what older readers call raw.
        packed = [msgpack.packb(one | prefix, use_bin_type=False) for one in (*ahead, last)]
        self._unsettled = _Unsettled(n, packed)
        await self.settle(totals)

    async def settle(self, totals: Totals) -> None:
        """Carry out the last commit, unless it was carried out and only its reply was lost."""
        if self._unsettled is None:
            return
        unsettled = self._unsettled
        if not await self._carried_out(unsettled):
            await self._claim_again()
            # From the start: whoever took the lease away may have emptied the store.
            if not await self._carried_out(unsettled):
                raise FencedError(_TAKEN)
        self._unsettled = None
        self.n = unsettled.n
        self._ticks.append((self._clock.monotonic_us(), unsettled.n))
        totals.committed()

    async def load(self, totals: Totals) -> tuple[dict[str, int], bytes] | None:
        """Fill empty totals; applied numbers and cursor, or None where the store is empty."""
        stored = await self._redis.hgetall(self._names.totals)
        if snapshot.SESSION.encode() not in stored:
            return None
        buckets = await self._redis.hgetall(self._names.history)
        applied = await self._redis.hgetall(self._names.applied)
        first = await self._redis.xrange(self._names.ticks, count=1)
        try:
            session = snapshot.restore(totals, stored)
            for at, value in buckets.items():
                totals.history.restore(int(at), value)
            await self._load_peers(totals, snapshot.rows_in(stored))
            totals.committed()
            snapshot.restore_points(totals, stored)
        except (TrafficError, LookupError, TypeError, ValueError) as error:
            raise PodloxxError(
                f"the totals in Redis cannot be read ({error!r}): they are of another version of podloxx, or damaged. "
                "Use the version that wrote them, or empty that Redis to begin a new session."
            ) from error
        if session.shards != totals.shards:
            raise UsageError(
                f"the session in Redis is divided over {session.shards} shards, and --shards says {totals.shards}: "
                "give all agents and aggregators that number, or empty that Redis to begin a new session"
            )
        self.epoch, self.n, self.started_us = session.epoch, session.n, session.started_us
        # After a commit that ended half-way it is an earlier one than the session's.
        self._loaded = stored.get(b"position", b"").decode()
        self._ticks.clear()
        if first:
            # When the stored ticks were made is not read back: all of them stay for one more term.
            self._ticks.append((self._clock.monotonic_us(), traffic.parse_tick_id(first[0][0].decode())[1]))
        cursor = applied.pop(keys.APPLIED_CURSOR, _BEFORE_EVERYTHING)
        return {boot.decode(): int(seq) for boot, seq in applied.items()}, cursor

    async def trim(self, cursor: bytes) -> None:
        """Make room in a full store: what was read and not committed, agents still have."""
        await self._redis.xtrim(self._names.flows, minid=_after(cursor), approximate=False)

    async def _load_peers(self, totals: Totals, rows: list[int]) -> None:
        waiting = iter(rows)
        while numbers := list(itertools.islice(waiting, _ROWS_PER_READ)):
            # Reading a large shard takes longer than a lease.
            await self._renewed(self._ttl_ms, b"")
            async with self._redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hgetall(self._names.peers(number))
                found = await pipe.execute()
            told = zip(numbers, found, strict=True)
            totals.peers.restore([(row, peer) for row, stored in told for peer in peer_store.decode_peers(stored)])

    async def _carried_out(self, unsettled: _Unsettled) -> bool:
        """Run a commit's scripts; False where the shard is not ours."""
        names = self._names
        self._attempts += 1
        for change in unsettled.changes:
            reply = await self._commit(
                keys=[names.lease, names.totals, names.applied, names.ticks, names.history, names.flows],
                args=[self._token, self._ttl_ms, change, self._attempts],
            )
            if reply[0] == b"fenced":
                return False
            if reply[0] == b"moved" and reply[1:] != [f"{self.epoch}-{unsettled.n}".encode(), self._token]:
                self._unsettled = None
                raise StoreLostError
        return True

    async def _renewed(self, ttl_ms: int, cursor: bytes) -> bool:
        names = self._names
        reply = await self._renew(keys=[names.lease, names.applied, names.flows], args=[self._token, ttl_ms, cursor])
        return bool(reply[0] == b"ok")

    async def _claim_again(self) -> None:
        """Take a lease that ran out while nobody else used it, for example with an emptied store."""
        found = await self._claim(keys=[self._names.lease, self._names.totals], args=[self._token, self._ttl_ms])
        if found is None:
            raise FencedError(_TAKEN)
        position, writer = found[0].decode(), found[1]
        if not position and self.n:
            raise StoreLostError
        ours = {self.position, self._loaded} | ({f"{self.epoch}-{self.n + 1}"} if writer == self._token else set())
        if position and position not in ours:
            # Somebody else owned the shard meanwhile, and committed.
            await self.release()
            raise FencedError(_TAKEN)

    def _numbers(self, commit: Commit, n: int) -> dict[str, object]:
        oldest_us = self._clock.monotonic_us() - keys.TICKS_KEPT_S * 1_000_000
        while len(self._ticks) > 1 and self._ticks[0][0] < oldest_us:
            self._ticks.popleft()
        applied: list[object] = [value for pair in commit.applied.items() for value in (pair[0], str(pair[1]))]
        return {
            "applied": [*applied, keys.APPLIED_CURSOR, commit.cursor],
            "applied_gone": list(commit.forgotten),
            "oldest_tick": f"{self.epoch}-{self._ticks[0][1] if self._ticks else n}",
            "read_to": _after(commit.cursor),
        }


def _after(entry: bytes) -> str:
    """The smallest stream id behind `entry`."""
    milliseconds, _, number = entry.decode().partition("-")
    return f"{milliseconds}-{int(number or 0) + 1}"
