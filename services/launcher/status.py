"""`podloxx-launch status`: per node what its agent sees, and how the rest of a session in a cluster is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import aiohttp

from services.launcher import forwarded, lease, network_facts, nodes, preflight, run
from services.launcher.context import Context, connected
from services.launcher.ending import Ending
from services.launcher.manifests import COMPONENT_LABEL, NAME_LABEL, SESSION_LABEL
from services.launcher.networks import Network, grouped
from services.launcher.progress import problem_of
from services.launcher.refusal import asking
from services.launcher.run import Wanted
from services.runtime.errors import PodloxxError, UsageError
from services.runtime.kubernetes_api import KubernetesApi
from services.runtime.plain import plain

_ANSWER_S: Final = 10.0
_HERE: Final = "127.0.0.1"
_ASKED: Final = Wanted(0, _HERE, browser=False, for_s=None, verbose=False, store_memory="", api={}, aggregator={})
"""An API that only this process asks."""
_COLUMNS: Final = ("node", "agent", "restarts", "pods", "seen tx", "seen rx", "lost", "lag", "source")
_NONE: Final = "-"
"""What nobody could measure."""


async def status(context: Context, *, as_json: bool) -> bool:
    """Print how it is, and whether all is well; raises PodloxxError."""
    ending = Ending()
    async with connected(context) as api:
        await preflight.version(api)
        found = await _of_the_cluster(api, context.namespace)
        with ending.heard():
            try:
                async with forwarded.rig(api, context.namespace, _ASKED, ending.requested, run.echo) as one:
                    port = run.free_port(_HERE, 0)
                    await one.service("api", {"listen": _HERE, "port": port, **one.way})
                    await one.wait_ready(_ASKED, run.base_url(_ASKED, port), agents=0)
                    seen = await _asked(run.base_url(_ASKED, port))
            except UsageError:
                raise
            except PodloxxError as error:
                # What Kubernetes says is of use where the store says nothing.
                found["problem"] = str(error)
                seen = {}
    joined = _joined(found["nodes"], seen, found.pop("networks"))
    found = {"context": context.name, "namespace": context.namespace, **found, "nodes": joined}
    print(json.dumps(found, indent=2) if as_json else "\n".join(map(plain, _lines(found))))
    return all_is_well(found)


async def _of_the_cluster(api: KubernetesApi, namespace: str) -> dict[str, Any]:
    """What Kubernetes knows: the session, its pods, and which agent is on which node."""
    with asking("it cannot be seen what is there", api.server):
        base = f"/api/v1/namespaces/{namespace}"
        pods = (await api.get(f"{base}/pods", {"labelSelector": f"{NAME_LABEL}=podloxx"}))["items"]
        listed = await nodes.listed(api)
        if not pods:
            raise UsageError(
                f"podloxx does not run in the namespace {namespace}: `podloxx-launch start` or `install` brings it there, "
                "--namespace names another one"
            )
        silent = await lease.silent_s(api, namespace)
        held = await lease.held_by(api, namespace)
        networks = await network_facts.known(api, listed)
    services = {str(one["metadata"]["name"]): _pod(one) for one in pods if _component(one) != "agent"}
    agents = {str(one["spec"].get("nodeName", "")): _pod(one) for one in pods if _component(one) == "agent"}
    return {
        "session": {
            "id": pods[0]["metadata"]["labels"].get(SESSION_LABEL),
            "holder": held or None,
            "renewedSecondsAgo": silent,
        },
        "services": services,
        "nodes": {name: agents.get(name) for name in sorted({*map(nodes.name, listed), *agents} - {""})},
        "networks": networks,
        "problem": "",
    }


def _component(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get(COMPONENT_LABEL, ""))


def _pod(one: Mapping[str, Any]) -> dict[str, Any]:
    """How a pod is."""
    state = one.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in state.get("conditions", []))
    problem = problem_of(one)
    return {
        "pod": one["metadata"]["name"],
        "ready": ready,
        "restarts": sum(c.get("restartCount", 0) for c in state.get("containerStatuses", [])),
        "problem": "" if ready or problem is None else problem.sentence,
    }


async def _asked(url: str) -> dict[str, Any]:
    """What the API says of each node."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S)) as client,
            client.get(f"{url}/traffic/nodes") as answer,
        ):
            found: dict[str, Any] = await answer.json(content_type=None)
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        raise PodloxxError(f"the API does not tell of the nodes: {error}") from error
    if answer.status != 200:
        raise PodloxxError(f"the API does not tell of the nodes: {found.get('detail', answer.status)}")
    return found


def _joined(
    agents: Mapping[str, Any], seen: Mapping[str, Any], networks: Mapping[str, Network] | None = None
) -> dict[str, Any]:
    """By node: its agent's pod (None where none runs), what that reports, and the network (None where no agent can be)."""
    networks = networks or {}
    return {
        name: {
            "agent": agents.get(name),
            "reported": _report(seen.get(name)),
            "network": asdict(networks[name]) if name in networks else None,
        }
        for name in sorted({*agents, *seen})
    }


def _report(one: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if one is None:
        return None
    lost = one["lostPackets"]
    return {
        "live": one["live"],
        "lagSeconds": one["lagSeconds"],
        "attachments": one["attachments"],
        "transmitCoveragePercent": (one["transmit"] or {}).get("coveragePercent"),
        "receiveCoveragePercent": (one["receive"] or {}).get("coveragePercent"),
        "lostPackets": None if lost is None else sum(lost.values()),
        "source": one["source"],
    }


def all_is_well(found: Mapping[str, Any]) -> bool:
    """Whether everything runs and every node with an agent reports."""
    services = all(one["ready"] for one in found["services"].values())
    agents = [one for one in found["nodes"].values() if one["agent"] is not None]
    reporting = all(one["agent"]["ready"] and (one["reported"] or {}).get("live") for one in agents)
    return services and reporting and bool(agents) and not found["problem"]


def _lines(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    session = found["session"]
    whose = f"session {session['id']} of {session['holder']}" if session["holder"] else "installed to stay"
    renewed = session["renewedSecondsAgo"]
    lines = [
        f"context {found['context']}, namespace {found['namespace']}: {whose}"
        + (f", renewed {renewed:.0f} s ago" if renewed is not None else "")
    ]
    for name, one in sorted(found["services"].items()):
        lines.append(
            f"{name}: {'ready' if one['ready'] else one['problem'] or 'not ready'}, {one['restarts']} restarts"
        )
    lines += _table([_COLUMNS, *(_row(name, one) for name, one in found["nodes"].items())])
    lines += [
        f"{name}: {one['agent']['problem']}"
        for name, one in found["nodes"].items()
        if (one["agent"] or {}).get("problem")
    ]
    lines += _networks(found["nodes"])
    if found["problem"]:
        lines.append(found["problem"])
    return lines


def _networks(nodes_: Mapping[str, Any]) -> list[str]:
    """What network the nodes have, and what to do where their source sees less than all of it."""
    told = [
        (network_facts.sentence(Network(**one["network"]), (one["reported"] or {}).get("source")), name)
        for name, one in nodes_.items()
        if one["network"] is not None
    ]
    return [f"network of {nodes.some(names)}: {text}" for text, names in grouped(told).items()]


def _row(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    agent, report = one["agent"], one["reported"] or {}
    state = "none" if agent is None else "ready" if agent["ready"] else "not ready"
    if agent is not None and agent["ready"] and not report.get("live"):
        state = "silent"
    return (
        name,
        state,
        _shown(None if agent is None else agent["restarts"]),
        _shown(report.get("attachments")),
        _shown(report.get("transmitCoveragePercent"), "{:.2f} %"),
        _shown(report.get("receiveCoveragePercent"), "{:.2f} %"),
        _shown(report.get("lostPackets")),
        _shown(report.get("lagSeconds"), "{:.1f} s"),
        report.get("source") or _NONE,
    )


def _shown(value: float | None, form: str = "{}") -> str:
    return _NONE if value is None else form.format(value)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
