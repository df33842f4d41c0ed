"""What hinders a pod, in the words of its status, and what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from services.launcher.progress import Progress, problem_of, settled
from services.launcher.teardown import Found
from services.runtime.errors import PodloxxError


def test_a_pod_without_a_node_says_why_and_what_helps() -> None:
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/2 nodes are available:\n2 node(s) didn't match Pod's node affinity/selector.",
    }
    problem = problem_of({"metadata": {"name": "check"}, "spec": {}, "status": {"conditions": [unscheduled]}})
    assert problem is not None
    assert problem.what == (
        "the pod check gets no node: 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector"
    )
    assert "--node-selector" in problem.step
    assert problem.sentence == f"{problem.what}. Next: {problem.step}"


class Idle:
    """An API server in whose cluster nobody makes pods, and nobody says why."""

    server = "https://a"

    async def get(self, *_: object) -> dict[str, Any]:
        return {"items": []}


async def test_a_cluster_that_does_nothing_is_not_waited_for_for_ever() -> None:
    session = Found("podloxx", "1", "2")
    shown: list[str] = []
    waiting = Progress(shown.append, shown.append, interval_s=0.001, longest_s=0.01)
    with pytest.raises(PodloxxError, match=r"not ready within 0 s: aggregator 0 of 1\. Next: let it stay with --keep"):
        await settled(Idle(), session, ["aggregator"], waiting)  # type: ignore[arg-type]
