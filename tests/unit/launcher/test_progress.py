"""What hinders a pod, in the words of its status, and what to do about it."""

from __future__ import annotations

from services.launcher.progress import problem_of


def test_a_pod_without_a_node_says_why_and_what_helps() -> None:
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/2 nodes are available:\n2 node(s) didn't match Pod's node affinity/selector.",
    }
    problem = problem_of({"metadata": {"name": "check"}, "spec": {}, "status": {"conditions": [unscheduled]}})
    assert problem is not None
    assert problem.what.startswith(
        "the pod check gets no node: 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. Next: "
    )
    assert "--node-selector" in problem.what
