"""Verdicts are worked out once, until something changes."""

from __future__ import annotations

import pytest

from services.aggregator import verdicts as module
from services.aggregator.attachments import Points
from services.aggregator.directory.static_file import StaticDirectory
from services.aggregator.rows import Rows
from services.aggregator.verdicts import Judged, Label, Verdicts
from services.flows import address
from services.flows.delta import Kind
from services.flows.scope import SCOPES, Pod, Scope
from tests.support.worlds import directory

WEB = directory().pod(address.parse("10.1.0.2"))
OWN = frozenset((address.parse("10.1.0.2"),))


def verdicts() -> Verdicts:
    known = directory(cidr="dc=203.0.113.0/24:internet")
    return Verdicts(known, Points(known, Rows()))


def judge(one: Verdicts, peer: str, kind: Kind = Kind.IP) -> Judged:
    assert isinstance(WEB, Pod)
    return one.of(WEB, OWN, kind, *address.to_words(address.parse(peer)))


@pytest.mark.parametrize(
    ("peer", "label", "other"),
    [
        ("10.2.0.2", Label(Scope.CROSS_ZONE, "pod-cross-zone", "db", "data", "pod"), "data/db"),
        ("10.1.0.2", Label(Scope.SAME_POD, "own-address"), "shop/web"),
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
    assert one.labels.known[judged.label] == label
    assert SCOPES[judged.scope] is label.scope
    assert judged.other == other


@pytest.mark.parametrize("kind", [Kind.NOT_IP, Kind.MALFORMED, Kind.FOLDED])
def test_what_has_no_peer_is_unknown(kind: Kind) -> None:
    one = verdicts()
    judged = judge(one, "::", kind)
    assert one.labels.known[judged.label] == Label(Scope.UNKNOWN, kind.name.lower().replace("_", "-"))


def test_verdicts_stand_until_the_directory_changes() -> None:
    one = verdicts()
    one.refresh()
    before = judge(one, "10.2.0.2")
    known = one.directory
    assert isinstance(known, StaticDirectory)
    known._pods.clear()
    one.refresh()
    assert judge(one, "10.2.0.2") is before
    known.generation += 1
    one.refresh()
    assert one.labels.known[judge(one, "10.2.0.2").label].rule == "cluster-range"


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    one = verdicts()
    one.refresh()
    for at in range(3):
        judge(one, f"1.1.1.{at}")
    assert len(one._known) == 3
    one.refresh()
    assert one._known == {}
