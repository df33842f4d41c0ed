"""What the API answers, from a mirror whose content is known."""

from __future__ import annotations

import dataclasses
import re

import pytest

from services.api import views
from services.api.counters import SIX
from services.api.mirror import Mirror, RowView
from services.flows import keys
from services.flows.delta import Kind
from services.flows.scope import Scope
from services.flows.traffic import Peer, Row, Session, Tick
from tests.support.clocks import HandClock
from tests.support.shard import SECOND, change, peer, pod, report, talked

START = 1_700_000_000 * SECOND


@pytest.fixture
def mirror() -> Mirror:
    """Two pods on two nodes of which one reports, and an earlier pod of one's name."""
    rows = [
        Row(1, pod("web", uid="old"), talked(Scope.INTERNET, tx_bytes=7)),
        Row(2, pod("web", uid="new"), {}),
        Row(3, pod("db", "data", "node-b"), talked(Scope.PRIVATE, rx_bytes=40)),
    ]
    session = Session(7, 3, START, cluster=talked(tx_bytes=3, rx_bytes=4), nodes={"node-b": report("node-b")})
    mirror = Mirror.of(HandClock(), session, rows, START)
    added = {**talked(tx_bytes=2000, tx_packets=4), **talked(Scope.INTERNET, rx_bytes=600_000, rx_packets=6)}
    mirror.apply(Tick(7, 4, START + SECOND, (change(2, added, window_us=2 * SECOND),), nodes=(report(),)))
    return mirror


def row(**identity: object) -> RowView:
    """A row that has done nothing."""
    return RowView(1, dataclasses.replace(pod("web"), **identity), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.4, "999 B"),
        (999.5, "1.0 kB"),
        (1000, "1.0 kB"),
        (4_600_000, "4.6 MB"),
        (46_200_000, "46.2 MB"),
        (99_949_999, "99.9 MB"),
        (99_950_000, "100 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (10**15, "1.0 PB"),
        (2**64, "18.4 EB"),
    ],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert views.human(count) == text
    assert sum(character.isdigit() for character in text) <= 3


def test_times() -> None:
    assert views.rfc3339(START) == "2023-11-14T22:13:20Z"
    assert views.rfc3339(START + 500_000) == "2023-11-14T22:13:20.500000Z"
    assert views.rfc3339(0) == ""


def test_overview_sums_all_rows_and_counts_those_shown(mirror: Mirror) -> None:
    answer = views.overview(mirror)
    assert {name: answer[name] for name in SIX} == {
        "packetsSum": 10,
        "transmitBytes": 2007,
        "receivedBytes": 600_040,
        "unknownBytes": 0,
        "localTransmitBytes": 2000,
        "localReceivedBytes": 0,
    }
    assert (answer["totalPods"], answer["totalNamespaces"], answer["totalNodes"]) == (2, 2, 2)
    assert (answer["internalBandwidthPerSec"], answer["externalBandwidthPerSec"]) == ("1.0 kB", "300 kB")
    assert answer["packetsPerSec"] == 5
    assert (answer["uptime"], answer["lastUpdate"]) == ("2023-11-14T22:13:20Z", 1_700_000_001)
    assert answer["clusterBytes"] == 7
    assert (answer["nodesReporting"], answer["nodesKnown"]) == (1, 2)
    assert answer["coverage"] == {"full": 2}
    assert answer["scopes"]["internet"] == {"transmitBytes": 7, "receivedBytes": 600_000, "packets": 6}


def test_overview_says_why_it_is_old(mirror: Mirror) -> None:
    assert views.overview(mirror)["problem"] == ""
    assert views.overview(mirror, "Redis does not answer")["problem"] == "Redis does not answer"


def test_overview_leaves_out_rates_that_are_not_of_now(mirror: Mirror) -> None:
    assert isinstance(mirror.clock, HandClock)
    mirror.clock.pass_s(6)
    answer = views.overview(mirror)
    assert (answer["packetsPerSec"], answer["externalBandwidthPerSec"]) == (0, "0 B")


def test_total_shows_the_newest_of_a_name(mirror: Mirror) -> None:
    answer = views.total(mirror, {})
    assert set(answer) == {"shop/web", "data/db"}
    assert (answer["shop/web"]["uid"], answer["shop/web"]["transmitBytes"]) == ("new", 2000)


def test_flow_has_those_that_did_something(mirror: Mirror) -> None:
    assert views.flow(mirror, {1: (9, 9, 9, 9, 9, 9), 3: (1, 2, 3, 4, 5, 6), 99: (1, 1, 1, 1, 1, 1)}) == {
        "data/db": dict(zip(SIX, (1, 2, 3, 4, 5, 6), strict=True))
    }


def test_what_is_not_known_is_an_empty_string(mirror: Mirror) -> None:
    answer = views.total(mirror, {})["shop/web"]
    for name in ("ip", "containerId", "startTime", "zone", "region", "ownerKind", "ownerName", "fileName", "endTime"):
        assert answer[name] == "", name


def connections(view: RowView, *peers: Peer) -> dict[str, dict[str, object]]:
    """A pod's connections."""
    found: dict[str, dict[str, object]] = views._pod(view, peers)["connections"]
    return found


def test_connections_are_per_peer_address() -> None:
    found = connections(
        row(ip="10.1.0.2", ips=("10.1.0.2", "fd00::2")),
        peer("10.1.0.3", port=80, tx_packets=3),
        peer("10.1.0.3", port=443, rx_packets=4),
        peer("fd00::3", tx_packets=1),
        peer("", Scope.UNKNOWN, kind=int(Kind.NOT_IP), tx_packets=5),
    )
    assert sorted(found.values(), key=str) == [
        {"ip1": "10.1.0.2", "ip2": "10.1.0.3", "packetSum": 7},
        {"ip1": "fd00::2", "ip2": "fd00::3", "packetSum": 1},
    ]


def test_a_connection_keeps_its_id() -> None:
    before = connections(row(), peer("10.1.0.3", tx_packets=1))
    after = connections(row(ip="10.1.0.2"), peer("10.1.0.4"), peer("10.1.0.3", port=443, tx_packets=9))
    [number] = before
    assert number in after
    assert re.fullmatch(r"\d{1,20}", number)
    assert int(number) < 2**64


def test_a_connection_names_the_address_that_a_source_told() -> None:
    found = connections(row(ip="10.1.0.2"), peer("10.1.0.3", local="10.9.9.9"), peer("10.1.0.3", local="10.9.9.8"))
    assert {entry["ip1"] for entry in found.values()} == {"10.9.9.9", "10.9.9.8"}


def test_peers_with_the_most_bytes_come_first() -> None:
    answer = views.peers_of(
        row(), [peer("a", tx_bytes=1), peer("b", rx_bytes=3), peer("c", tx_bytes=1, rx_bytes=1)], {}
    )
    assert [one["address"] for one in answer["peers"]] == ["b", "c", "a"]
    assert answer["more"] == 0


def test_a_service_names_the_pods_that_may_be_behind_it() -> None:
    many = tuple(f"kube-system/dns-{number}" for number in range(150))
    behind = {keys.behind("service", "kube-system", "dns"): many, keys.behind("node", "", "n"): ("a/b",)}
    listed = [
        dataclasses.replace(peer("10.96.0.10", tx_bytes=3), what="service", namespace="kube-system", name="dns"),
        dataclasses.replace(peer("192.168.0.2", tx_bytes=2), what="node", name="n"),
        dataclasses.replace(peer("10.1.0.3", tx_bytes=1), what="pod", namespace="shop", name="dns"),
    ]
    dns, node, pod = views.peers_of(row(), listed, behind)["peers"]
    assert (dns["candidateCount"], dns["candidates"]) == (150, many[: len(dns["candidates"])])
    assert 0 < len(dns["candidates"]) < 150
    assert (node["candidateCount"], node["candidates"]) == (1, ("a/b",))
    assert (pod["candidateCount"], pod["candidates"]) == (0, ())


def test_of_too_many_peers_the_rest_is_counted() -> None:
    answer = views.peers_of(row(), [peer(str(n), tx_bytes=n) for n in range(10)], {}, most=3)
    assert ([one["address"] for one in answer["peers"]], answer["more"]) == (["9", "8", "7"], 7)


@pytest.mark.parametrize(
    ("one", "protocol", "port"),
    [
        (peer("10.1.0.3"), "tcp", 80),
        (peer("10.1.0.3", protocol=1, port=0), "icmp", 0),
        (peer("10.1.0.3", protocol=250, port=0), "250", 0),
        (peer("", kind=int(Kind.NOT_IP), protocol=0, port=0x0806), "arp", 0),
        (peer("", kind=int(Kind.MALFORMED), protocol=0, port=3), "truncated-ipv4", 0),
        (peer("", kind=int(Kind.MALFORMED), protocol=0, port=99), "99", 0),
        (peer("", kind=int(Kind.FOLDED), protocol=0, port=0), "", 0),
        (peer("", protocol=0, port=0, name="other peers"), "", 0),
    ],
)
def test_what_a_peer_speaks(one: Peer, protocol: str, port: int) -> None:
    [answer] = views.peers_of(row(), [one], {})["peers"]
    assert (answer["protocol"], answer["port"]) == (protocol, port)


def test_exact_adds_strings_beside_counters_only() -> None:
    answer = views.exact(
        {
            "transmitBytes": 2**63,
            "packets": 1,
            "totalPods": 3,
            "lastUpdate": 5,
            "uptime": "now",
            "loss": {"kernel-drop": 2, "agent-gap-bytes": 9},
            "peers": [{"packetSum": 1, "port": 80}],
            "ips": ("a",),
        }
    )
    assert answer == {
        "transmitBytes": 2**63,
        "transmitBytesExact": "9223372036854775808",
        "packets": 1,
        "packetsExact": "1",
        "totalPods": 3,
        "lastUpdate": 5,
        "uptime": "now",
        "loss": {"kernel-drop": 2, "agent-gap-bytes": 9},
        "peers": [{"packetSum": 1, "packetSumExact": "1", "port": 80}],
        "ips": ["a"],
    }
