"""Verdicts are worked out once, until something changes."""

from __future__ import annotations

import numpy as np
import pytest

from services.aggregator import verdicts as module
from services.aggregator.attachments import Points
from services.aggregator.directory.static_file import StaticDirectory
from services.aggregator.names import Names
from services.aggregator.rows import Rows
from services.aggregator.verdicts import Judged, Label, Peers, Verdicts, Windows
from services.flows import address
from services.flows.delta import Kind
from services.flows.scope import SCOPES, Place, Pod, Scope
from tests.support.worlds import directory

WEB = directory().pod(address.parse("10.1.0.2"))
OWN = {"10.1.0.2", "fd00:1::2"}
NOW = Windows(np.zeros(1, np.int64), np.ones(1, np.int64))
LABEL, OTHER = Judged._fields.index("labels"), Judged._fields.index("others")


def verdicts() -> Verdicts:
    known = directory(cidr="dc=203.0.113.0/24:internet")
    names = Names()
    return Verdicts(known, Points(known, Rows(), names), names)


def peers_of(peer: str, here: int, kind: Kind = Kind.IP) -> Peers:
    """One peer, as it is seen from a place."""
    hi, lo = address.to_words(address.parse(peer))
    kinds, high, low = (np.array([number], np.uint64) for number in (kind, hi, lo))
    return Peers(kinds, high, low, np.array([here]), np.zeros(1, np.int64))


def judge(one: Verdicts, peer: str, kind: Kind = Kind.IP) -> tuple[int, ...]:
    """A line of `Judged`, as the pod WEB sees it."""
    assert isinstance(WEB, Pod)
    judged = one.judge(peers_of(peer, one.places.number(WEB.place), kind), NOW)
    if peer in OWN:
        judged = one.itself(WEB)
    return tuple(int(column[0]) for column in judged)


@pytest.mark.parametrize(
    ("peer", "label", "other"),
    [
        ("10.2.0.2", Label(Scope.CROSS_ZONE, "pod-cross-zone", "db", "data", "pod"), "data/db"),
        ("10.1.0.2", Label(Scope.SAME_POD, "own-address", "web", "shop", "pod"), "shop/web"),
        ("fd00:1::2", Label(Scope.SAME_POD, "own-address", "web", "shop", "pod"), "shop/web"),
        ("10.96.0.10", Label(Scope.SERVICE, "service", "dns", "kube-system", "service"), ""),
        ("10.0.0.12", Label(Scope.NODE, "node", "node-b", "", "node"), ""),
        ("10.1.0.1", Label(Scope.NODE, "node-gateway", "node-a", "", "node"), ""),
        ("203.0.113.9", Label(Scope.INTERNET, "user-cidr", "dc", "", "cidr"), ""),
        ("10.1.0.99", Label(Scope.CLUSTER_UNRESOLVED, "cluster-range"), ""),
        ("1.1.1.1", Label(Scope.INTERNET, "public"), ""),
        ("224.0.0.1", Label(Scope.OTHER, "multicast"), ""),
    ],
)
def test_a_peer_gets_a_label(peer: str, label: Label, other: str) -> None:
    one = verdicts()
    judged = judge(one, peer)
    assert one.labels.known[judged[LABEL]] == label
    assert SCOPES[judged[0]] is label.scope
    assert one._names.known[judged[OTHER]] == other


@pytest.mark.parametrize("kind", [Kind.NOT_IP, Kind.MALFORMED, Kind.FOLDED])
def test_what_has_no_peer_is_unknown(kind: Kind) -> None:
    one = verdicts()
    judged = judge(one, "::", kind)
    assert one.labels.known[judged[LABEL]] == Label(Scope.UNKNOWN, kind.name.lower().replace("_", "-"))


def test_verdicts_stand_until_the_directory_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = verdicts()
    one.refresh()
    before = judge(one, "10.2.0.2")
    known = one._directory
    assert isinstance(known, StaticDirectory)
    known._pods.clear()
    one.refresh()
    assert judge(one, "10.2.0.2") == before
    monkeypatch.setattr(known, "changes", lambda: None)
    one.refresh()
    assert one.labels.known[judge(one, "10.2.0.2")[LABEL]].rule == "cluster-range"


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    one = verdicts()
    one.refresh()
    for at in range(3):
        judge(one, f"1.1.1.{at}")
    assert len(one._index) == 3
    one.refresh()
    assert len(one._index) == 0


def test_verdicts_of_pods_that_come_and_go_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    one = verdicts()
    one.refresh()
    for zone in ("eu-1a", "eu-1b", ""):
        one.judge(peers_of("10.2.0.2", one.places.number(Place("elsewhere", zone, ""))), NOW)
    assert (len(one._index), len(one._numbers)) == (1, 3)
    one.refresh()
    assert (len(one._index), len(one._numbers)) == (0, 0)
