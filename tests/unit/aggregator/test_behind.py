"""The pods that may be behind peers that are Services or nodes."""

from __future__ import annotations

import pytest

from services.aggregator.behind import Behind
from services.aggregator.directory.static_file import StaticDirectory
from services.aggregator.verdicts import Label, Labels
from services.flows.scope import Named, Rule, Scope
from tests.support.worlds import directory

SERVICE = Label(Scope.SERVICE, Rule.SERVICE.value, "dns", "kube-system", "service")
NODE = Label(Scope.NODE, Rule.NODE.value, "node-b", "", "node")
POD = Label(Scope.SAME_NODE, Rule.POD_SAME_NODE.value, "web", "shop", "pod")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """What the directory says, by name."""
    said: dict[str, set[str]] = {}
    monkeypatch.setattr(StaticDirectory, "behind", lambda _, what, name: said.get(f"{what}/{name.name}", set()))
    return said


def test_services_and_nodes_that_are_peers_are_looked_up(found: dict[str, set[str]]) -> None:
    labels = Labels()
    behind = Behind(directory(), labels)
    for label in (SERVICE, POD, NODE):
        labels.number(label)
    found |= {"service/dns": {"kube-system/dns-2", "kube-system/dns-1"}, "pod/web": {"shop/web"}}
    behind.refresh(10_000_000)
    dns, node = ("service", Named("dns", "kube-system")), ("node", Named("node-b"))
    assert behind.known == {dns: ("kube-system/dns-1", "kube-system/dns-2"), node: ()}
    assert behind.changed == {dns}
    behind.committed()
    found["node/node-b"] = {"kube-system/proxy"}
    behind.refresh(14_999_999)
    assert not behind.changed, "too soon"
    behind.refresh(15_000_000)
    assert behind.changed == {node}
    assert behind.known[node] == ("kube-system/proxy",)
