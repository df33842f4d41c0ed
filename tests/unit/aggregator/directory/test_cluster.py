"""The directory of a cluster: right at the moment of the packet, whatever happened since."""

from __future__ import annotations

import ipaddress

import pytest

from services.aggregator.directory.cluster import ClusterDirectory
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import (
    EndpointsObject,
    NodeObject,
    PodObject,
    RangeObject,
    ServiceObject,
)
from services.aggregator.directory.ranges import UserRanges
from services.flows import address
from services.flows.scope import Ambiguous, Named, Place, Rule, Scope, classify

SECOND = 1_000_000
ONE, TWO, SIX = (address.parse(text) for text in ("10.1.0.2", "10.1.0.3", "fd00::2"))
HOST, GATEWAY, SERVICE, API = (address.parse(text) for text in ("192.168.0.2", "10.1.0.1", "10.96.0.10", "192.168.0.9"))


class Known:
    """A directory and the clock that it looks at, in seconds."""

    def __init__(self) -> None:
        self.now = 100
        self.directory = ClusterDirectory(
            lambda: self.now * SECOND, UserRanges("office=192.0.2.0/24:internet", "198.18.0.0/15"), Ingress("app=edge")
        )

    def pod(self, uid: str, *addresses: str, **changes: object) -> None:
        """A pod as the API server tells it now."""
        plain = PodObject(
            uid=uid,
            namespace="shop",
            name=f"pod-{uid}",
            node="node-a",
            addresses=tuple(map(address.parse, addresses)),
            host_network=False,
            ended=False,
            started_us=self.now * SECOND,
            began_us=self.now * SECOND,
            ended_us=0,
            owner_kind="Deployment",
            owner_name="web",
            container_id="c1",
            labels=(),
        )
        self.directory.pods.put(uid, plain._replace(**changes))  # type: ignore[arg-type]

    def at(self, start: float, end: float) -> None:
        self.directory.at(int(start * SECOND), int(end * SECOND))

    def uid(self, one: address.Address) -> str | None:
        """Whose an address was in the window."""
        found = self.directory.pod(one)
        return found.uid if found else None

    def place(self, name: str = "node-a", zone: str = "z", region: str = "r") -> None:
        """A node."""
        network = ipaddress.ip_network("10.1.0.0/24")
        self.directory.nodes.put(name, NodeObject(name, (HOST,), (network,), zone, region))


@pytest.fixture
def known() -> Known:
    return Known()


def test_a_pod_has_its_addresses_from_its_start(known: Known) -> None:
    known.pod("a", "10.1.0.2", "fd00::2")
    known.at(200, 201)
    assert known.uid(ONE) == known.uid(SIX) == "a"
    known.at(90, 91)
    assert known.uid(ONE) is None
    # Whole seconds of another clock.
    known.at(99, 100)
    assert known.uid(ONE) == "a"


def test_an_address_that_is_given_on_belongs_to_each_in_its_time(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.now = 200
    known.directory.pods.remove("a")
    known.now = 210
    known.pod("b", "10.1.0.2")
    for start, uid in ((150, "a"), (198, "a"), (204, None), (220, "b")):
        known.at(start, start + 1)
        assert known.uid(ONE) == uid
    known.at(199, 211)
    with pytest.raises(Ambiguous):
        known.uid(ONE)
    assert known.directory.owner([ONE], "node-a") is None


def test_a_finished_pod_keeps_its_address_on_paper_only(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.now = 200
    known.pod("a", "10.1.0.2", began_us=100 * SECOND, ended=True, ended_us=150 * SECOND)
    known.pod("b", "10.1.0.2", began_us=160 * SECOND)
    known.at(170, 171)
    assert known.uid(ONE) == "b"
    known.at(140, 141)
    assert known.uid(ONE) == "a"
    # Its deletion, much later, changes nothing of that.
    known.now = 300
    known.directory.pods.remove("a")
    known.at(170, 171)
    assert known.uid(ONE) == "b"


def test_agents_know_better_when_a_pod_left(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.now = 200
    known.directory.released([ONE], "node-b", 120 * SECOND)
    known.at(150, 151)
    assert known.uid(ONE) == "a", "it was another node's interface"
    known.directory.released([ONE, TWO], "node-a", 120 * SECOND)
    assert known.uid(ONE) is None
    # The interface of a former owner of the address is none of the pod's.
    known.pod("b", "10.1.0.2", began_us=140 * SECOND)
    known.directory.released([ONE], "node-a", 130 * SECOND)
    assert known.uid(ONE) == "b"


def test_pods_of_the_nodes_network_own_nothing(known: Known) -> None:
    known.place()
    known.pod("a", "192.168.0.2", host_network=True)
    known.at(200, 201)
    assert known.uid(HOST) is None
    verdict = classify(HOST, None, frozenset(), known.directory)
    assert (verdict.scope, verdict.rule, verdict.peer) == (Scope.NODE, Rule.NODE, Named("node-a"))
    pod = known.directory.known(known.directory._pod("a"))
    assert pod is not None
    assert known.directory.addresses(pod) == frozenset()


def test_an_address_that_comes_later(known: Known) -> None:
    known.pod("a")
    known.at(200, 201)
    assert known.uid(ONE) is None
    known.pod("a", "10.1.0.2")
    assert known.uid(ONE) == "a"
    known.pod("a", "10.1.0.3")
    known.at(300, 301)
    assert (known.uid(ONE), known.uid(TWO)) == (None, "a")


def test_places_follow_their_nodes(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.at(200, 201)
    pod = known.directory.pod(ONE)
    assert pod is not None
    assert pod.place == Place("node-a")
    before = known.directory.version([ONE])
    known.directory.changes()
    known.place()
    assert known.directory.changes() is None
    assert known.directory.version([ONE]) > before
    pod = known.directory.pod(ONE)
    assert pod is not None
    assert pod.place == Place("node-a", "z", "r")
    assert known.directory.details(pod).owner_name == "web"
    assert known.directory.place("node-a") == Place("node-a", "z", "r")
    assert known.directory.place("nowhere") == Place("nowhere")


def test_only_addresses_that_changed_are_told(known: Known) -> None:
    known.directory.changes()
    known.pod("a", "10.1.0.2")
    assert known.directory.changes() == {ONE}
    assert known.directory.changes() == set()
    known.pod("a", "10.1.0.2")
    assert known.directory.changes() == set(), "nothing changed"
    known.pod("b", "10.1.0.3")
    assert known.directory.version([ONE]) != known.directory.version([TWO])
    known.directory.pods.remove("nobody")


def test_services_the_api_server_and_ranges(known: Known) -> None:
    known.place()
    known.directory.services.put("s", ServiceObject("s", "shop", "web", (SERVICE,), ()))
    known.directory.endpoints.put("e", EndpointsObject("e", "default", "kubernetes", (API,), frozenset()))
    known.directory.endpoints.put("f", EndpointsObject("f", "shop", "web", (TWO,), frozenset()))
    known.directory.ranges.put("r", RangeObject((ipaddress.ip_network("10.96.0.0/16"),)))
    for one, scope, rule in (
        (SERVICE, Scope.SERVICE, Rule.SERVICE),
        (API, Scope.INFRA, Rule.API_SERVER),
        (GATEWAY, Scope.NODE, Rule.NODE_GATEWAY),
        (address.parse("10.96.77.1"), Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE),
        (address.parse("10.1.0.77"), Scope.CLUSTER_UNRESOLVED, Rule.CLUSTER_RANGE),
        (address.parse("192.0.2.7"), Scope.INTERNET, Rule.USER_CIDR),
        (address.parse("198.18.0.7"), Scope.PRIVATE, Rule.PRIVATE_CIDR),
        (address.parse("8.8.8.8"), Scope.INTERNET, Rule.PUBLIC),
    ):
        verdict = classify(one, None, frozenset(), known.directory)
        assert (verdict.scope, verdict.rule) == (scope, rule), one
    known.directory.changes()
    known.directory.endpoints.put("f", EndpointsObject("f", "shop", "web", (ONE,), frozenset()))
    assert known.directory.changes() == set(), "endpoints of other Services say nothing of an address"
    known.directory.services.remove("s")
    assert known.directory.service(SERVICE) is None
    assert known.directory.changes() is None


def test_who_may_be_known_any_moment_is_awaited(known: Known) -> None:
    neighbour, stranger = address.parse("10.1.0.99"), address.parse("10.2.0.99")
    assert not known.directory.is_awaited(neighbour)
    known.pod("a", "10.1.0.2")
    assert known.directory.is_awaited(neighbour)
    assert not known.directory.is_awaited(ONE)
    assert not known.directory.is_awaited(stranger)
    assert not known.directory.is_awaited(address.parse("8.8.8.8"))
    known.place()
    assert not known.directory.is_awaited(HOST), "it is known to be a node"
    assert not known.directory.is_awaited(GATEWAY)


def test_the_next_pod_with_an_address_is_awaited(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.now = 150
    known.directory.pods.remove("a")
    known.at(140, 141)
    assert not known.directory.is_awaited(ONE), "it was the pod's"
    known.at(151, 152)
    assert known.directory.is_awaited(ONE)
    known.pod("b", "10.1.0.2")
    assert not known.directory.is_awaited(ONE)


def test_a_pod_that_ended_while_nobody_watched(known: Known) -> None:
    known.now = 1000
    known.pod("a", "10.1.0.2", began_us=900 * SECOND, ended=True, ended_us=950 * SECOND)
    known.at(940, 941)
    assert known.uid(ONE) == "a"
    known.at(960, 961)
    assert known.uid(ONE) is None
    known.pod("long ago", "10.1.0.3", began_us=1, ended=True, ended_us=2)
    known.pod("nobody knows when", "10.1.0.3", ended=True)
    known.at(0, 1000)
    assert known.uid(TWO) is None


def test_a_pod_that_did_not_begin_may_begin_now(known: Known) -> None:
    known.pod("a", "10.1.0.2", began_us=0)
    known.at(98, 99)
    assert known.uid(ONE) is None
    known.at(99, 100)
    assert known.uid(ONE) == "a"


def test_what_is_over_is_forgotten_after_a_while(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.pod("alone")
    known.directory.pods.remove("alone")
    known.now = 200
    known.directory.pods.remove("a")
    pod = known.directory._pod("a")
    known.directory.refresh()
    assert known.directory.known(pod) is not None, "late batches may ask"
    known.now = 900
    known.directory.refresh()
    assert known.directory.known(pod) is None
    assert (known.directory.addresses(pod), known.directory.details(pod).owner_name) == (frozenset(), "")
    assert known.directory._objects == {}
    assert known.directory._versions == {}
    known.now = 901
    known.directory.refresh()


def test_from_when_on_an_answer_stands(known: Known) -> None:
    assert known.directory.settled_us(ONE) == 0
    known.pod("a", "10.1.0.2")
    assert known.directory.settled_us(ONE) == 99 * SECOND
    known.now = 200
    known.directory.pods.remove("a")
    assert known.directory.settled_us(ONE) == 200 * SECOND


def test_the_pod_of_a_node_that_has_one_of_its_addresses(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.pod("b", "10.1.0.2", node="node-b")
    known.at(200, 201)
    found = known.directory.owner([SIX, ONE], "node-b")
    assert found is not None
    assert found.uid == "b"
    assert known.directory.owner([SIX], "node-b") is None


def test_who_may_be_behind_a_service_or_a_node(known: Known) -> None:
    known.pod("a", "10.1.0.2")
    known.pod("b", "10.1.0.3")
    known.pod("own", str(HOST), host_network=True)
    ports = frozenset([(6, 80)])
    known.directory.endpoints.put("e", EndpointsObject("e", "shop", "web", (ONE, TWO, API), ports))
    assert known.directory.behind("service", Named("web", "shop")) == {"shop/pod-a", "shop/pod-b"}
    assert known.directory.behind("service", Named("none", "shop")) == set()
    assert known.directory.behind("node", Named("node-a")) == {"shop/pod-own"}
    known.directory.pods.remove("a")
    known.pod("own", str(HOST), host_network=True, ended=True)
    assert known.directory.behind("service", Named("web", "shop")) == {"shop/pod-b"}
    assert known.directory.behind("node", Named("node-a")) == set()
