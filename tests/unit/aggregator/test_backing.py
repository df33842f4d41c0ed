"""At which end the traffic of Services counts, and how that changes."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest

from services.aggregator import backing as module
from services.aggregator.backing import Backing
from services.aggregator.directory.cluster import ClusterDirectory
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import EndpointsObject, NodeObject, PodObject
from services.aggregator.directory.ranges import UserRanges
from services.aggregator.totals import Totals
from services.flows import address
from services.flows.delta import Coverage
from services.flows.protocols import TCP, UDP
from services.flows.scope import Named
from tests.support.agents import SECOND, ScriptedAgent, attachment, window

ONE, TWO, STRANGER = "10.1.0.2", "10.1.0.3", "203.0.113.9"
FIRST = np.zeros(1, np.int64)
WEB, ADMIN = Named("web", "shop"), Named("admin", "shop")


class Cluster:
    """Two pods that are backends of a Service, and the agent of their node."""

    def __init__(self) -> None:
        self.directory = ClusterDirectory(lambda: 100 * SECOND, UserRanges(), Ingress())
        network = ipaddress.ip_network("10.1.0.0/24")
        self.directory.nodes.put("node-a", NodeObject("node-a", (), (network,), "z", "r"))
        for one in (ONE, TWO):
            self.pod(one, one)
        self.totals = Totals(self.directory, 0)
        self.agent = ScriptedAgent()
        self.behind(WEB, ONE, TWO)

    def pod(self, uid: str, one: str) -> None:
        """A pod that runs since second 1."""
        held = (address.parse(one),)
        where = "shop", uid, "node-a"
        self.directory.put_pod(PodObject(uid, *where, held, False, False, SECOND, SECOND, 0, "", "", "", ()))

    def behind(self, service: Named, *addresses: str) -> None:
        """The endpoints of a Service at TCP port 80."""
        held = tuple(map(address.parse, addresses))
        one = EndpointsObject("", service.namespace, service.name, held, frozenset([(TCP, 80)]))
        self.directory.endpoints.put(service.name, one)

    def watch(self, *addresses: str, second: int = 100) -> None:
        """The agent tells that it watches these pods."""
        points = [attachment(int(one.rpartition(".")[2]), one) for one in addresses]
        self.totals.apply(self.agent.batch(window(points, second=second)))

    def asked(self, now_s: float, at_s: float | None = None, service: Named = WEB) -> bool:
        """Whether a window of the second `at_s` counts at the backends, asked at `now_s`."""
        start = int((now_s if at_s is None else at_s) * SECOND)
        self.backing.refresh(int(now_s * SECOND))
        self.directory.at(start, start + SECOND)
        return bool(self.backing.at_backends([service], FIRST, FIRST + start, FIRST + start + SECOND)[0])

    def may_be_at_clients(self, one: str, at_s: int) -> bool:
        """Whether some of what a pod exchanged in a second may count elsewhere."""
        return self.backing.may_be_at_clients([address.parse(one)], at_s * SECOND, (at_s + 1) * SECOND)

    @property
    def backing(self) -> Backing:
        return self.totals.backing


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_backends_that_are_all_watched_count(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    assert cluster.asked(100)


def test_a_backend_that_is_no_pod_leaves_it_to_clients(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    cluster.behind(WEB, ONE, TWO, STRANGER)
    assert not cluster.asked(100)
    cluster.behind(WEB, STRANGER)
    assert not cluster.asked(110)


def test_a_service_without_backends_counts_at_its_clients(cluster: Cluster) -> None:
    assert not cluster.asked(100, service=Named("none", "shop"))


def test_a_new_backend_may_be_watched_soon(cluster: Cluster) -> None:
    cluster.watch(ONE)
    assert cluster.asked(100)
    assert cluster.asked(109)
    assert not cluster.asked(114)
    cluster.watch(TWO, second=115)
    assert cluster.asked(119.5)


def test_an_interface_that_shows_one_direction_is_not_watched(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    point = next(iter(cluster.totals.points.known.values()))
    point.measured = Coverage.EGRESS_ONLY
    assert cluster.asked(100)
    assert not cluster.asked(110)


def test_nobody_is_asked_again_for_five_seconds(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    assert cluster.asked(100)
    cluster.behind(WEB, STRANGER)
    assert cluster.asked(104.9, at_s=104)
    assert not cluster.asked(105, at_s=106)


def test_a_change_is_for_windows_after_those_that_followed_the_old_decision(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    assert cluster.asked(100)
    assert cluster.asked(102)
    cluster.behind(WEB, STRANGER)
    assert not cluster.asked(106)
    # An agent that is late told of the same time as the others did before.
    assert cluster.asked(106, at_s=102)
    assert not cluster.asked(106, at_s=103)


def test_services_that_share_backends_follow_one_decision(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    cluster.behind(ADMIN, TWO, STRANGER)
    assert not cluster.asked(100)
    assert not cluster.asked(100, service=ADMIN)


def test_while_two_pods_may_have_an_address_it_is_taken_for_watched(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    cluster.pod("next", ONE)
    assert cluster.asked(100)


def test_a_port_of_a_backend_follows_its_service(cluster: Cluster) -> None:
    cluster.watch(ONE, TWO)
    assert cluster.asked(100)
    assert cluster.backing.service_at(address.parse(ONE), TCP, 80) == WEB
    assert cluster.backing.service_at(address.parse(ONE), UDP, 80) is None
    assert cluster.backing.service_at(address.parse(STRANGER), TCP, 80) is None
    assert not cluster.may_be_at_clients(ONE, 100)
    cluster.behind(WEB, ONE, STRANGER)
    assert not cluster.asked(110)
    assert cluster.backing.service_at(address.parse(ONE), TCP, 80) == WEB
    assert cluster.may_be_at_clients(ONE, 110)
    assert not cluster.may_be_at_clients("10.1.0.9", 110)


def test_decisions_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 1)
    cluster.behind(ADMIN, TWO)
    for at, service in enumerate((WEB, ADMIN, WEB)):
        cluster.asked(100 + at, service=service)
        assert len(cluster.backing._known) <= 3
