"""Watching a pod over the WebSocket, with a real Redis and real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as aredis

from services.flows.scope import Scope
from services.flows.traffic import Peer
from tests.support.live import connected, read
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.shard import Shard, change, peer, pod, talked

WEB = pod("web", container_id="containerd://1")


@pytest.fixture
async def shard(redis: aredis.Redis) -> Shard:
    """A pod that has talked."""
    shard = Shard(redis)
    await shard.commit(change(1, talked(Scope.INTERNET, tx_bytes=1000, rx_packets=3)), who={1: WEB})
    return shard


@pytest.fixture
async def api(redis_server: RedisServer, shard: Shard) -> AsyncIterator[Served]:
    """The API, ready."""
    del shard
    async with serving(redis_server) as served:
        await served.ready()
        yield served


def peers_in(message: Any) -> list[dict[str, Any]]:
    """The peers of a message, one by one, with their words."""
    columns, words = message["peers"], message["words"]
    named = {"namespace", "kind", "protocol", "server", "scope", "rule", "via"}
    entries = zip(*columns.values(), strict=True)
    return [
        {name: words[value] if name in named else value for name, value in zip(columns, entry, strict=True)}
        for entry in entries
    ]


async def test_watching_a_pod(api: Served, shard: Shard) -> None:
    await shard.peers(1, peer("10.1.0.3", tx_bytes=5))
    async with connected(api) as socket:
        await read(socket, "snapshot")
        await socket.send_json({"watch": "shop/web"})
        found = await read(socket, "pod")
        assert (found["pod"], found["uid"], found["seq"], found["more"]) == ("shop/web", "uid-web", 1, 0)
        assert found["peers"]["address"] == ["10.1.0.3"]
        await shard.peers(1, peer("10.1.0.4", tx_bytes=9))
        await shard.commit(change(1, talked(tx_bytes=1)))
        found = await read(socket, "pod")
        assert found["peers"]["address"] == ["10.1.0.4", "10.1.0.3"]
        await socket.send_json({"watch": None})
        await shard.commit(change(1, talked(tx_bytes=1)))
        assert (await read(socket))["t"] == "delta"
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.3)


async def test_watching_nobody(api: Served) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        await socket.send_json({"watch": "shop/nobody"})
        found = await read(socket, "pod")
        assert (found["pod"], found["seq"], found["uid"], found["peers"]) == ("shop/nobody", 1, "", None)


async def test_watching_while_the_store_is_away(api: Served, redis_server: RedisServer) -> None:
    async with connected(api) as socket:
        await read(socket, "snapshot")
        redis_server.kill()
        await socket.send_json({"watch": "shop/web"})
        assert (await read(socket, "pod"))["peers"] is None


async def test_what_is_told_of_the_watched_pod(api: Served, shard: Shard) -> None:
    first = peer("10.1.0.3", Scope.SAME_NODE, tx_bytes=5, rx_bytes=6, tx_packets=1, rx_packets=2)
    service = Peer(
        **{
            **{name: getattr(first, name) for name in Peer.__slots__},
            "address": "10.96.0.10",
            "protocol": 17,
            "port": 53,
            "scope": Scope.SERVICE,
            "rule": "service-address",
            "name": "dns",
            "namespace": "kube-system",
            "what": "service",
            "via": "ingress",
            "server": 0,
            "counts": [1, *first.counts[1:]],
        }
    )
    await shard.peers(1, first, service)
    async with connected(api) as socket:
        await read(socket, "snapshot")
        await socket.send_json({"watch": "shop/web"})
        found = await read(socket, "pod")
    assert (found["epoch"], found["container"]) == (7, "containerd://1")
    assert found["scopes"] == {
        "scope": ["internet"],
        "tx": [1000],
        "rx": [0],
        "packets": [3],
        "tx_rate": [1000],
        "rx_rate": [0],
    }
    assert peers_in(found) == [
        {
            "address": "10.1.0.3",
            "local": "",
            "name": "",
            "namespace": "",
            "kind": "",
            "protocol": "tcp",
            "port": 80,
            "server": "peer",
            "scope": "same-node",
            "rule": "pod-same-node",
            "via": "",
            "candidates": [],
            "candidate_count": 0,
            "tx": 5,
            "rx": 6,
            "packets": 3,
            "first": 1_700_000_000.0,
            "last": 1_700_000_001.0,
        },
        {
            "address": "10.96.0.10",
            "local": "",
            "name": "dns",
            "namespace": "kube-system",
            "kind": "service",
            "protocol": "udp",
            "port": 53,
            "server": "",
            "scope": "service",
            "rule": "service-address",
            "via": "ingress",
            "candidates": [],
            "candidate_count": 0,
            "tx": 1,
            "rx": 6,
            "packets": 3,
            "first": 1_700_000_000.0,
            "last": 1_700_000_001.0,
        },
    ]
