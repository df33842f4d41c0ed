"""Asks the API server for what tells a cluster's network; what the caller may not see is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from services.launcher import networks, nodes
from services.launcher.networks import CILIUM_CONFIG, Daemon, Facts, Network, Node
from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi

_PAGE: Final = {"limit": "500"}
"""One page has to do: DaemonSets are few, and of pods one of each is enough."""
_NAMESPACES: Final = (
    "kube-system",
    "calico-system",
    "cilium",
    "kube-flannel",
    "openshift-ovn-kubernetes",
    "ovn-kubernetes",
)
"""Where networks run, for those who may list pods there, but no DaemonSets."""
_ANSWER_S: Final = 5.0
"""It is extra: nobody waits long for it."""
_FELIX: Final = "/apis/crd.projectcalico.org/v1/felixconfigurations/default"


async def known(api: KubernetesApi, listed: Iterable[Node]) -> dict[str, Network]:
    """The network of each of these nodes that may have an agent."""
    facts = await read(api)
    return {nodes.name(one): networks.network_of(one, facts) for one in listed if not nodes.hindrance(one)}


async def read(api: KubernetesApi) -> Facts:
    """What can be seen; never fails."""
    daemons = await _daemons(api)
    names = {one.name: one.namespace for one in daemons or ()}
    where = next((names[name] for name in ("cilium", "anetd") if name in names), "kube-system")
    config = await _seen(api, f"/api/v1/namespaces/{where}/configmaps/{CILIUM_CONFIG}")
    felix = await _seen(api, _FELIX)
    return Facts(daemons, _part(config, "data"), _part(felix, "spec"))


def _part(one: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    return None if one is None else one.get(name) or {}


async def _daemons(api: KubernetesApi) -> Sequence[Daemon] | None:
    listed = await _seen(api, "/apis/apps/v1/daemonsets", _PAGE)
    if listed is not None:
        return [_of_daemon_set(one) for one in listed["items"] if not _unused(one)]
    pages = [await _seen(api, f"/api/v1/namespaces/{one}/pods", _PAGE) for one in _NAMESPACES]
    if all(page is None for page in pages):
        return None
    found = {}
    for pod in (pod for page in pages if page for pod in page["items"]):
        for owner in pod["metadata"].get("ownerReferences", ()):
            if owner["kind"] == "DaemonSet":
                key = pod["metadata"]["namespace"], owner["name"]
                found[key] = Daemon.of(*key, pod["spec"])
    return list(found.values())


def _of_daemon_set(one: Mapping[str, Any]) -> Daemon:
    return Daemon.of(one["metadata"]["namespace"], one["metadata"]["name"], one["spec"]["template"]["spec"])


def _unused(one: Mapping[str, Any]) -> bool:
    """Whether a controller found no node for it: clouds bring DaemonSets for what a cluster may not have."""
    status = one.get("status", {})
    return bool(status.get("observedGeneration")) and not status.get("desiredNumberScheduled")


async def _seen(api: KubernetesApi, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """What lies at a path; None where it is not to be had."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await api.get(path, query)
    except (ApiError, BrokenAnswer, OSError, TimeoutError):
        # Whoever needs the API server hears elsewhere that it is away.
        return None


def told(listed: Iterable[Node], found: Mapping[str, Network], capture: str, say: Callable[[str], None]) -> None:
    """Say which network the nodes have, and which source agents take there and why."""
    lines = [
        (sentence(found[name], *networks.source_of(capture, node)), name)
        for node in listed
        if (name := nodes.name(node)) in found
    ]
    for text, names in networks.grouped(lines).items():
        say(f"network of {nodes.some(names)}: {text}")


def sentence(network: Network, source: str | None, reason: str = "", *, advise: bool = True) -> str:
    """A network, the source that is used there (None: nobody knows), and what to do where that sees too little."""
    text = f"{network.title} ({network.why})"
    if network.links:
        text += f"; pods' links are called {network.links}"
    if source:
        text += f"; agents count by {source}" + (f" ({reason})" if reason else "")
    hint = networks.advice(network, source or "") if advise else ""
    return f"{text}. {hint[0].upper()}{hint[1:]}" if hint else text
