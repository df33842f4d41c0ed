"""`podloxx-launch doctor --context`: what would hinder podloxx in a cluster, and what to do about each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from services.launcher import network_facts, networks, nodes, preflight
from services.launcher.context import Context, connected
from services.launcher.manifests import Chosen, objects
from services.launcher.nodes import Node
from services.launcher.preflight import Missing
from services.launcher.refusal import advice, asking
from services.runtime.errors import PodloxxError
from services.runtime.findings import Finding, State
from services.runtime.kubernetes_api import ApiError, KubernetesApi

_COUNTS: Final = (5, 5)
"""From this kernel on an agent can count in it."""
_CAPABILITIES: Final = (5, 8)
"""The first kernel that knows BPF and PERFMON as rights of their own."""


async def look(context: Context) -> list[Finding]:
    """All findings; raises UsageError where the kubeconfig cannot be used."""
    async with connected(context) as api:
        try:
            version = await preflight.version(api)
        except PodloxxError as error:
            what, _, mend = str(error).partition(". ")
            return [Finding("cluster", State.PROBLEM, what, mend or "choose another context with --context")]
        found = [Finding("cluster", State.OK, f"Kubernetes {version}, {api.server} (context {context.name})")]
        lacking = await preflight.missing(api, context.namespace)
        found += [*_rights(lacking, context), await _namespace(api, context)]
        found += await _nodes(api)
    return found


def _rights(lacking: list[Missing], context: Context) -> list[Finding]:
    forward = [one for one in lacking if one.right.resource == "pods/portforward"]
    others = [one for one in lacking if one not in forward]
    found = []
    for about, missing in (("rights", others), ("port-forward", forward)):
        if missing:
            listed = ", ".join(one.question for one in missing)
            first = f"kubectl auth can-i {missing[0].verb} {missing[0].right.name} -n {context.namespace}"
            mend = f"ask whoever runs the cluster for them; `{first}` shows the first"
            found.append(Finding(about, State.PROBLEM, f"missing: {listed}", mend))
        else:
            text = "get and create are allowed" if about == "port-forward" else "all that are needed are there"
            found.append(Finding(about, State.OK, text))
    return found


async def _namespace(api: KubernetesApi, context: Context) -> Finding:
    """Whether the cluster would let the namespace in with the level of Pod Security that agents need; nothing is created."""
    [namespace] = [one for one in objects(Chosen(namespace=context.namespace)) if one["kind"] == "Namespace"]
    try:
        with asking("the namespace", api.server):
            try:
                await api.send("POST", "/api/v1/namespaces", {"dryRun": "All"}, namespace)
            except ApiError as error:
                if error.status == 409:
                    text = f"{context.namespace} is there already"
                    return Finding(
                        "namespace", State.WARNING, text, "choose another one with --namespace, if it is not podloxx's"
                    )
                if error.status in {403, 422}:
                    mend = advice(str(error)) or "ask whoever runs the cluster"
                    return Finding("namespace", State.PROBLEM, f"it would not be let in: {error}", mend)
                raise
    except PodloxxError as error:
        return Finding("namespace", State.PROBLEM, str(error), "mend that, and run this again")
    return Finding(
        "namespace", State.OK, f"{context.namespace} would be let in, labelled for Pod Security level privileged"
    )


async def _nodes(api: KubernetesApi) -> list[Finding]:
    try:
        listed = await nodes.listed(api)
    except PodloxxError as error:
        return [Finding("nodes", State.PROBLEM, str(error), "mend that, and run this again")]
    linux = [one for one in listed if not nodes.hindrance(one)]
    found = [_count(listed, linux)]
    old = {nodes.name(one): _kernel(one) for one in linux if _version(_kernel(one)) < _CAPABILITIES}
    ancient = {name: kernel for name, kernel in old.items() if _version(kernel) < _COUNTS}
    if ancient:
        found.append(
            Finding(
                "kernels",
                State.WARNING,
                f"older than {_dotted(_COUNTS)}: {nodes.some(ancient)}",
                "there agents count from a ring, which loses some packets under floods",
            )
        )
    elif old:
        found.append(
            Finding(
                "kernels",
                State.WARNING,
                f"older than {_dotted(_CAPABILITIES)}: {nodes.some(old)}",
                "there agents count from a ring; k8s/overlays/old-kernels lets them count in the kernel",
            )
        )
    elif linux:
        found.append(Finding("kernels", State.OK, f"all can count in the kernel (from {_dotted(_COUNTS)} on)"))
    return found + await _networks(api, linux)


async def _networks(api: KubernetesApi, linux: Sequence[Node]) -> list[Finding]:
    """What the nodes' networks let agents see, one finding for all that have the same."""
    known = await network_facts.known(api, linux)
    lines = []
    for node in linux:
        network = known[nodes.name(node)]
        source, reason = networks.source_of("auto", node)
        text = network_facts.sentence(network, source, reason, advise=False)
        mend = networks.advice(network, source) if network.needs_cgroup else ""
        lines.append(((text, mend), nodes.name(node)))
    return [
        Finding("network", State.WARNING if mend else State.OK, f"{nodes.some(names)}: {text}", mend)
        for (text, mend), names in networks.grouped(lines).items()
    ]


def _count(listed: Sequence[Node], linux: Sequence[Node]) -> Finding:
    away = [nodes.name(one) for one in linux if not _ready(one)]
    others = {nodes.name(one): why for one in listed if (why := nodes.hindrance(one))}
    text = f"{len(linux)} may have an agent"
    if not linux:
        return Finding(
            "nodes", State.PROBLEM, "none runs Linux and DaemonSets", "choose another context with --context"
        )
    if away:
        return Finding(
            "nodes",
            State.WARNING,
            f"{text}; not Ready: {nodes.some(away)}",
            "their traffic is not seen: see `kubectl get nodes`",
        )
    if others:
        return Finding(
            "nodes",
            State.WARNING,
            f"{text}; none has {nodes.some(others)}",
            "of their pods only what others see is known",
        )
    return Finding("nodes", State.OK, text)


def _kernel(node: Node) -> str:
    return str(node.get("status", {}).get("nodeInfo", {}).get("kernelVersion", ""))


def _ready(node: Node) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))


def _version(kernel: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", kernel)
    # What a node does not tell is not held against it.
    return (int(match[1]), int(match[2])) if match else (99, 0)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
