"""Which nodes of a cluster can have an agent, and what keeps the others from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from services.launcher.refusal import asking
from services.runtime.errors import PodloxxError
from services.runtime.kubernetes_api import KubernetesApi

Node = Mapping[str, Any]
_PAGE: Final = "500"
_SHOWN: Final = 5
_VIRTUAL_TAINTS: Final = ("virtual-kubelet.io/provider", "virtual-kubelet.io/compute-type")
_AUTOPILOT: Final = "gk3-"
"""With this the names of GKE Autopilot's nodes begin; no label of theirs tells them from others."""


async def listed(api: KubernetesApi) -> list[Node]:
    """All nodes; raises PodloxxError."""
    found: list[Node] = []
    query = {"limit": _PAGE}
    with asking("the nodes cannot be listed", api.server):
        while True:
            page = await api.get("/api/v1/nodes", query)
            found += page["items"]
            if not (more := page["metadata"].get("continue")):
                return found
            query = {"limit": _PAGE, "continue": more}


def name(node: Node) -> str:
    """What a node is called."""
    return str(node["metadata"]["name"])


def hindrance(node: Node) -> str:
    """What keeps every agent from a node; empty where nothing does."""
    labels: Mapping[str, str] = node["metadata"].get("labels", {})
    system = node.get("status", {}).get("nodeInfo", {}).get("operatingSystem") or labels.get(
        "kubernetes.io/os", "linux"
    )
    if labels.get("eks.amazonaws.com/compute-type") == "fargate":
        return "Fargate"
    taints = {one.get("key") for one in node.get("spec", {}).get("taints", ())}
    if labels.get("type") == "virtual-kubelet" or taints.intersection(_VIRTUAL_TAINTS):
        return "a virtual node"
    return "" if system == "linux" else str(system).capitalize()


def told(nodes: Iterable[Node], say: Callable[[str], None]) -> None:
    """Say which nodes will have no agent; raises PodloxxError where no node can have one."""
    nodes = list(nodes)
    without = {name(one): why for one in nodes if (why := hindrance(one))}
    if nodes and len(without) == len(nodes):
        raise PodloxxError(
            f"no node of the cluster can have an agent: {some(without)}. They run no DaemonSets for Linux: choose another "
            "context with --context"
        )
    if without:
        say(f"no agent can run on {some(without)}: of their pods only what others see is known")
    autopilot = [name(one) for one in nodes if name(one).startswith(_AUTOPILOT)]
    if autopilot:
        say(
            f"{some(autopilot)}: nodes of GKE Autopilot, which may forbid agents; one container on one node will show it"
        )


def some(names: Iterable[str] | Mapping[str, str]) -> str:
    """The first names, with what is told of each in parentheses, and how many more there are."""
    known = [f"{one} ({what})" for one, what in names.items()] if isinstance(names, Mapping) else list(names)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more
