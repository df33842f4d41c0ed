"""Flows with addresses that were given just now: booked once it is known to whom, or after five seconds."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

import pytest

from services.aggregator import awaited as module
from services.aggregator import snapshot
from services.aggregator.directory.cluster import ClusterDirectory
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import NodeObject, PodObject
from services.aggregator.directory.ranges import UserRanges
from services.aggregator.totals import Totals
from services.flows import address
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, add_scopes
from tests.support.agents import SECOND, ScriptedAgent, attachment, detached, flow, window

TX = ROW_COUNTERS.index("tx_bytes")
WEB, NEW = "10.1.0.2", "10.1.0.9"


@dataclass
class Cluster:
    """A cluster with one pod, and an aggregator's totals over it."""

    directory: ClusterDirectory = field(init=False)
    totals: Totals = field(init=False)
    agent: ScriptedAgent = field(default_factory=ScriptedAgent)

    def __post_init__(self) -> None:
        self.directory = ClusterDirectory(lambda: 100 * SECOND, UserRanges(), Ingress())
        network = ipaddress.ip_network("10.1.0.0/24")
        self.directory.nodes.put("node-a", NodeObject("node-a", (), (network,), "z", "r"))
        self.pod("web", WEB)
        self.totals = Totals(self.directory, 10)

    def pod(self, name: str, *addresses: str, node: str = "node-a") -> None:
        """A pod that started a while ago."""
        held = tuple(map(address.parse, addresses))
        self.directory.pods.put(name, PodObject(name, "shop", name, node, held, False, False, 1, 1, 0, "", "", "", ()))

    def talk(self, *peers: str, second: int = 100) -> None:
        """The pod sends a hundred bytes to each."""
        flows = [flow(1, peer, tx=100, local=WEB) for peer in peers]
        self.totals.apply(self.agent.batch(window([attachment(1, WEB)], *flows, second=second)))

    def sent(self) -> dict[Scope, int]:
        """What the pod has sent, by scope."""
        total: dict[Scope, list[int]] = {}
        for row in self.totals.rows.by_number.values():
            add_scopes(total, row.frozen().totals)
        return {scope: counts[TX] for scope, counts in total.items() if counts[TX]}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_what_is_known_is_booked_at_once(cluster: Cluster) -> None:
    cluster.talk("8.8.8.8", WEB)
    assert cluster.sent() == {Scope.INTERNET: 100, Scope.SAME_POD: 100}
    assert cluster.totals.pending_bytes == 0


def test_it_waits_until_it_is_known_who(cluster: Cluster) -> None:
    cluster.talk("8.8.8.8", NEW)
    assert cluster.sent() == {Scope.INTERNET: 100}
    assert cluster.totals.pending_bytes == 100
    cluster.totals.settle(102 * SECOND)
    assert cluster.sent() == {Scope.INTERNET: 100}
    cluster.pod("new", NEW)
    cluster.totals.settle(102 * SECOND)
    assert cluster.sent() == {Scope.INTERNET: 100, Scope.SAME_NODE: 100}
    assert cluster.totals.pending_bytes == 0


def test_after_five_seconds_it_is_nobodys(cluster: Cluster) -> None:
    cluster.talk(NEW)
    cluster.totals.settle(105 * SECOND)
    assert cluster.sent() == {}
    cluster.totals.settle(107 * SECOND)
    assert cluster.sent() == {Scope.CLUSTER_UNRESOLVED: 100}
    # And is so at once from then on, until something is known of it.
    cluster.talk(NEW, second=108)
    assert cluster.sent() == {Scope.CLUSTER_UNRESOLVED: 200}
    cluster.pod("new", NEW)
    cluster.talk(NEW, second=109)
    assert cluster.sent() == {Scope.CLUSTER_UNRESOLVED: 200, Scope.SAME_NODE: 100}


def test_the_next_pod_with_an_address_is_waited_for(cluster: Cluster) -> None:
    cluster.pod("old", NEW)
    cluster.talk(NEW, second=90)
    cluster.directory.pods.remove("old")
    cluster.talk(NEW, second=101)
    cluster.talk(NEW, second=95)
    assert cluster.sent() == {Scope.SAME_NODE: 200}
    assert cluster.totals.pending_bytes == 100
    cluster.totals.settle(102 * SECOND)
    assert cluster.totals.pending_bytes == 100
    cluster.totals.settle(107 * SECOND)
    assert cluster.sent() == {Scope.SAME_NODE: 200, Scope.CLUSTER_UNRESOLVED: 100}


def test_no_more_waits_than_there_is_room_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROWS", 3)
    cluster.talk("10.1.0.10", "10.1.0.11")
    cluster.talk("10.1.0.12", "10.1.0.13", second=101)
    assert cluster.totals.pending_bytes == 200
    assert cluster.sent() == {Scope.CLUSTER_UNRESOLVED: 200}


def test_what_waits_is_in_the_store(cluster: Cluster) -> None:
    cluster.talk("8.8.8.8", NEW)
    session = snapshot.session_of(cluster.totals, 1, 1, 0)
    parts, last = snapshot.whole(cluster.totals, session, 0)
    pairs = [value for part in (*[part.totals for part in parts], last["totals"]) for value in part]
    stored = {
        (name.encode() if isinstance(name, str) else name): value
        for name, value in zip(pairs[::2], pairs[1::2], strict=True)
    }
    again = Totals(cluster.directory, 10)
    snapshot.restore(again, stored)
    snapshot.restore_points(again, stored)
    assert again.pending_bytes == 100
    cluster.totals = again
    cluster.pod("new", NEW)
    again.settle(103 * SECOND)
    assert cluster.sent() == {Scope.INTERNET: 100, Scope.SAME_NODE: 100}


def test_whose_they_are_is_not_forgotten_while_they_wait(cluster: Cluster) -> None:
    # An aggregator that was away for long reads what came meanwhile at once.
    last = detached(attachment(1, WEB), 101 * SECOND)
    batches = [cluster.agent.batch(window([last], flow(1, NEW, tx=100, local=WEB), second=100))]
    other = ScriptedAgent("node-b", "boot-b")
    batches += [other.batch(window([attachment(1)], second=second)) for second in (1100, 1101)]
    cluster.totals.apply(*batches)
    assert cluster.totals.pending_bytes == 100
    cluster.totals.settle(1102 * SECOND)
    assert cluster.sent() == {Scope.CLUSTER_UNRESOLVED: 100}
    cluster.totals.apply(other.batch(window([attachment(1)], second=1120)))
    assert ("boot-a", 1) not in cluster.totals.points.known
