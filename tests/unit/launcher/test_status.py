"""What `status` says of nodes, from what Kubernetes and the API know of them."""

from __future__ import annotations

from typing import Any

from services.launcher import status

REPORT = {
    "live": True,
    "lagSeconds": 0.84,
    "attachments": 7,
    "transmit": {"coveragePercent": 100.0},
    "receive": {"coveragePercent": 99.5},
    "lostPackets": {"kernel-drop": 2, "table-full": 1},
    "source": "ebpf",
}


def pod(name: str, *, ready: bool = True, problem: str = "") -> dict[str, Any]:
    return {"pod": name, "ready": ready, "restarts": 0, "problem": problem}


def found(agents: dict[str, Any], seen: dict[str, Any], problem: str = "") -> dict[str, Any]:
    return {
        "context": "lab",
        "namespace": "podloxx",
        "problem": problem,
        "session": {"id": "5e55", "holder": "anna@laptop", "renewedSecondsAgo": 3.2},
        "services": {"aggregator-x": pod("aggregator-x"), "redis-x": pod("redis-x")},
        "nodes": status._joined(agents, seen),
    }


def test_each_node_has_a_line_with_what_its_agent_sees() -> None:
    one = found({"n1": pod("agent-1")}, {"n1": REPORT})
    lines = status._lines(one)
    assert lines[0] == "context lab, namespace podloxx: session 5e55 of anna@laptop, renewed 3 s ago"
    assert lines[-1].split() == ["n1", "ready", "0", "7", "100.00", "%", "99.50", "%", "3", "0.8", "s", "ebpf"]
    assert status.all_is_well(one)


def test_a_node_without_an_agent_and_one_that_is_silent_are_told_apart() -> None:
    one = found({"n1": pod("agent-1"), "n2": None}, {"n1": {**REPORT, "live": False}})
    cells = {line.split()[0]: line.split()[1] for line in status._lines(one)[-2:]}
    assert cells == {"n1": "silent", "n2": "none"}
    # A node that runs no agents hinders nothing; an agent that says nothing does.
    assert not status.all_is_well(one)
    assert status.all_is_well(found({"n1": pod("agent-1"), "n2": None}, {"n1": REPORT}))


def test_an_agent_that_does_not_start_says_why() -> None:
    one = found({"n1": pod("agent-1", ready=False, problem="agent-1 does not start: no image")}, {})
    assert status._lines(one)[-1] == "n1: agent-1 does not start: no image"
    assert not status.all_is_well(one)


def test_what_nobody_could_measure_is_no_zero() -> None:
    unknown = {**REPORT, "transmit": None, "receive": None, "lostPackets": None, "lagSeconds": None, "source": None}
    last = status._lines(found({"n1": pod("agent-1")}, {"n1": unknown}))[-1].split()
    assert last == ["n1", "ready", "0", "7", "-", "-", "-", "-", "-"]


def test_a_way_that_is_closed_is_a_problem_beside_what_kubernetes_knows() -> None:
    one = found({"n1": pod("agent-1")}, {}, "no answer came through the port-forward")
    assert status._lines(one)[-1] == "no answer came through the port-forward"
    assert not status.all_is_well(one)
