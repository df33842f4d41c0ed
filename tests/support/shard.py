"""A shard as an aggregator would leave it in Redis, written by hand: what is in it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.flows import keys, peer_store, traffic
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, ByScope, Identity, NodeReport, Peer, Row, RowChange, Session, Tick
from services.runtime import redis_client

SECOND = 1_000_000
NAMES = keys.Keys(0)


def counts(**counters: int) -> list[int]:
    """Counters by name, the others 0."""
    assert set(counters) <= set(ROW_COUNTERS)
    return [counters.get(name, 0) for name in ROW_COUNTERS]


def talked(scope: Scope = Scope.SAME_NODE, **counters: int) -> ByScope:
    """Counters of one scope."""
    return {scope: counts(**counters)}


def pod(name: str, namespace: str = "shop", node: str = "node-a", **more: Any) -> Identity:
    """A pod's identity."""
    return Identity(uid=more.pop("uid", f"uid-{name}"), namespace=namespace, pod=name, node=node, **more)


def peer(address: str, scope: Scope = Scope.SAME_NODE, **more: Any) -> Peer:
    """A TCP peer, whose counters stand among `more`."""
    counters = {name: more.pop(name) for name in ROW_COUNTERS if name in more}
    fixed = {"protocol": 6, "port": 80, "server": 2, "kind": 0, "rule": "pod-same-node"}
    return Peer(
        address=address,
        scope=scope,
        counts=counts(**counters),
        **{**fixed, "first_us": 1_700_000_000 * SECOND, "last_us": 1_700_000_001 * SECOND, **more},
    )


def change(number: int, added: ByScope, window_us: int = SECOND) -> RowChange:
    """A row's increments."""
    return RowChange(number, window_us, added)


def report(node: str = "node-a", **more: Any) -> NodeReport:
    """An agent's report."""
    fixed = {"boot": f"boot-{node}", "source": "socket", "window_start_us": 0, "window_end_us": 0, "attachments": 1}
    return NodeReport(node=node, **{**fixed, **more})


@dataclass
class Shard:
    """Commits ticks, and keeps the totals that follow from them."""

    redis: Any
    epoch: int = 7
    started_us: int = 1_700_000_000 * SECOND
    n: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    names: keys.Keys = NAMES
    shards: int = 1
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        self.session = Session(self.epoch, 0, self.started_us, shards=self.shards)

    async def commit(
        self,
        *changes: RowChange,
        who: Mapping[int, Identity] | None = None,
        nodes: Sequence[NodeReport | str] = ("node-a",),
        removed: Sequence[int] = (),
        at_us: int | None = None,
        **more: Any,
    ) -> Tick:
        """One tick and the totals after it, in one transaction."""
        self.n += 1
        tick = Tick(
            epoch=self.epoch,
            n=self.n,
            at_us=await self.now_us() if at_us is None else at_us,
            changes=changes,
            identities=dict(who or {}),
            removed=tuple(removed),
            nodes=tuple(report(node) if isinstance(node, str) else node for node in nodes),
            **more,
        )
        self._add(tick)
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.delete(self.names.totals)
            pipe.hset(
                self.names.totals,
                mapping={
                    "session": traffic.encode_session(self.session),
                    **{f"row:{number}": traffic.encode_row(row) for number, row in self.rows.items()},
                },
            )
            pipe.xadd(self.names.ticks, {keys.FIELD_TICK: traffic.encode_tick(tick)}, id=tick.id)
            await pipe.execute()
        return tick

    async def peers(self, number: int, *peers: Peer) -> None:
        """Set peers of a row; as with an aggregator a tick that changes the row must follow."""
        stored = {
            peer_store.peer_key(one): peer_store.encode_peer(one.counts, one.first_us, one.last_us) for one in peers
        }
        await self.redis.hset(self.names.peers(number), mapping=stored)

    async def now_us(self) -> int:
        """Redis's clock."""
        return await redis_client.now_us(self.redis)

    def _add(self, tick: Tick) -> None:
        for number, identity in tick.identities.items():
            row = self.rows.get(number, Row(number, identity, {}))
            self.rows[number] = replace(row, identity=identity)
        for number in tick.removed:
            del self.rows[number]
        for one in tick.changes:
            traffic.add_scopes(self.rows[one.number].totals, one.added)
        cluster = {scope: list(values) for scope, values in self.session.cluster.items()}
        traffic.add_scopes(cluster, tick.cluster)
        loss = dict(self.session.loss)
        for reason, number in tick.loss.items():
            loss[reason] = loss.get(reason, 0) + number
        self.session = replace(
            self.session,
            n=tick.n,
            cluster=cluster,
            nodes={**self.session.nodes, **{one.node: one for one in tick.nodes}},
            pending_bytes=tick.pending_bytes,
            overlap_bytes=tick.overlap_bytes,
            loss=loss,
        )
