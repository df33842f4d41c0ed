"""The map adds each byte up once, at the end that counts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.api import destinations
from services.api.mirror import Mirror
from services.flows.scope import Scope
from services.flows.traffic import Counted, Identity, Peer, Row, Session
from tests.support.clocks import HandClock
from tests.support.shard import peer

WEB, API = Identity("w", "shop", "web"), Identity("a", "shop", "api")


def edges(peers: dict[int, list[Peer]], **coverage: str) -> dict[tuple[str, str], int]:
    """Bytes between pods."""
    known = [replace(one, coverage=coverage.get(one.pod, "full")) for one in (WEB, API)]
    rows = [Row(number, one, {}) for number, one in enumerate(known, 1)]
    mirror = Mirror.of(HandClock(), Session(1, 1, 0), rows, 0)
    found = destinations.traffic_map(mirror, peers, "pod")
    return {(edge["from"], edge["to"]): edge["bytes"] for edge in found["edges"]}


def pod(name: str, counted: Counted = Counted.AT_SENDER, *, tx: int = 0, rx: int = 0) -> Peer:
    """A pod as a peer."""
    one = peer("10.1.0.9", tx_bytes=tx, rx_bytes=rx)
    return replace(one, what="pod", namespace="shop", name=name, counted=counted)


def service(counted: Counted) -> Peer:
    """A Service as a peer, to which 100 bytes went, and from which 50 came."""
    return replace(peer("10.96.0.10", Scope.SERVICE, tx_bytes=100, rx_bytes=50), what="service", counted=counted)


def test_what_both_ends_tell_counts_at_the_sender() -> None:
    assert edges({1: [pod("api", tx=100, rx=50)], 2: [pod("web", tx=50, rx=100)]}) == {
        ("shop/web", "shop/api"): 100,
        ("shop/api", "shop/web"): 50,
    }


def test_what_a_sender_does_not_see_counts_at_the_receiver() -> None:
    told = {1: [pod("api", tx=100, rx=50)], 2: [pod("web", rx=100)]}
    assert edges(told, api="ingress-only")[("shop/api", "shop/web")] == 50


@pytest.mark.parametrize(
    ("at_client", "at_backend", "expected"),
    [
        (Counted.THERE, Counted.HERE, {("shop/web", "shop/api"): 100, ("shop/api", "shop/web"): 50}),
        (Counted.HERE, Counted.THERE, {("shop/web", ":service"): 100, (":service", "shop/web"): 50}),
    ],
)
def test_traffic_of_a_service_counts_at_one_end(
    at_client: Counted, at_backend: Counted, expected: dict[tuple[str, str], int]
) -> None:
    assert edges({1: [service(at_client)], 2: [pod("web", at_backend, tx=50, rx=100)]}) == expected
