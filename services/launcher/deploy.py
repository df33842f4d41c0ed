"""Brings a session into a cluster: claims the namespace, applies the objects, and refuses to adopt anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import orjson

from services.launcher import lease, teardown
from services.launcher.manifests import (
    MANAGED_LABEL,
    MANAGER,
    SESSION_LABEL,
    Chosen,
    Object,
    checking_pod,
    objects,
    path_of,
)
from services.launcher.progress import Progress, settled
from services.launcher.refusal import asking
from services.launcher.teardown import Found
from services.runtime.errors import UsageError
from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi

_APPLY: Final = "application/apply-patch+yaml"
_UNSURE_S: Final = 30.0
"""An API server that restarts is back by then."""
_AGAIN_S: Final = 0.5


async def claim(api: KubernetesApi, chosen: Chosen, progress: Progress) -> Found:
    """Create the namespace, or refuse: what was there before is never adopted.

    What a launcher left that is gone is removed first. Raises PodloxxError and Interrupted.
    """
    [namespace] = [one for one in objects(chosen) if one["kind"] == "Namespace"]
    with asking(f"the namespace {chosen.namespace} could not be created", api.server):
        await _make_room(api, chosen, progress)
        progress.check()
        made = await _created(api, chosen, namespace)
    return Found(chosen.namespace, made["metadata"]["uid"], chosen.session)


async def _created(api: KubernetesApi, chosen: Chosen, namespace: Object) -> Object:
    """The namespace, made by us; raises UsageError where somebody else was faster."""
    try:
        return await api.send("POST", "/api/v1/namespaces", {"fieldManager": MANAGER}, namespace)
    except ApiError as error:
        if error.status == 409:
            raise UsageError(
                f"somebody else has made the namespace {chosen.namespace} a moment ago: nothing was changed; start again to see "
                "who, or choose another one with --namespace"
            ) from error
        raise
    except (BrokenAnswer, OSError, TimeoutError):
        # It may be there without our having heard of it, and then nobody would remove it.
        if (made := await _made_after_all(api, chosen)) is not None:
            return made
        raise


async def _made_after_all(api: KubernetesApi, chosen: Chosen) -> Object | None:
    """The namespace, if it is there with our session's label; waits for an API server that is away for a moment."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_UNSURE_S):
            while True:
                try:
                    one = await api.get(f"/api/v1/namespaces/{chosen.namespace}")
                except ApiError:
                    return None
                except (BrokenAnswer, OSError):
                    await asyncio.sleep(_AGAIN_S)
                    continue
                return one if one["metadata"].get("labels", {}).get(SESSION_LABEL) == chosen.session else None
    return None


async def _make_room(api: KubernetesApi, chosen: Chosen, progress: Progress) -> None:
    """Remove what a dead session left under our names; raises UsageError where they are somebody's."""
    elsewhere = "choose another one with --namespace"
    try:
        there = await api.get(f"/api/v1/namespaces/{chosen.namespace}")
    except ApiError as error:
        if error.status != 404:
            raise
    else:
        labels = there["metadata"].get("labels", {})
        if labels.get(MANAGED_LABEL) != MANAGER:
            raise UsageError(
                f"the namespace {chosen.namespace} is there already, and podloxx-launch did not make it: nothing was "
                f"changed; {elsewhere}"
            )
        if "deletionTimestamp" not in there["metadata"]:
            await _refuse_living(api, chosen, elsewhere)
    for one in await teardown.find(api, chosen.namespace):
        progress.say(f"removing what session {one.session} left, whose launcher is gone")
        await teardown.remove(api, one, progress.show, progress.end_requested)
    await _refuse_strangers(api, chosen)


async def _refuse_living(api: KubernetesApi, chosen: Chosen, elsewhere: str) -> None:
    silent = await lease.silent_s(api, chosen.namespace)
    if silent is None:
        raise UsageError(
            f"podloxx is installed in the namespace {chosen.namespace} to stay: `podloxx-launch open` shows it, "
            f"`podloxx-launch clean --namespace {chosen.namespace}` removes it; or {elsewhere}"
        )
    if silent < lease.STALE_S:
        who = await lease.held_by(api, chosen.namespace) or "somebody who is just starting it"
        raise UsageError(
            f"the session of {who} runs in the namespace {chosen.namespace}: `podloxx-launch open` shows it; or {elsewhere}"
        )


async def _refuse_strangers(api: KubernetesApi, chosen: Chosen) -> None:
    """What is left under the names of our cluster roles is no launcher's."""
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        named = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": chosen.cluster_name}}
        try:
            await api.get(path_of(named))
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        raise UsageError(
            f"there is a {kind} {chosen.cluster_name} that podloxx-launch did not make: nothing was changed; remove it, or "
            "choose another namespace with --namespace"
        )


async def apply(api: KubernetesApi, made: Sequence[Object], session: Found, progress: Progress) -> None:
    """Apply objects one after the other; what is the cluster's goes with the session's namespace.

    Raises PodloxxError and Interrupted.
    """
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": session.namespace, "uid": session.uid}
    for one in made:
        progress.check()
        if one["kind"] in {"ClusterRole", "ClusterRoleBinding"}:
            one["metadata"]["ownerReferences"] = [owner]
        what = f"{one['kind']} {one['metadata']['name']} could not be created"
        with asking(what, api.server):
            await api.send("PATCH", path_of(one), {"fieldManager": MANAGER}, one, _APPLY)


async def deploy(api: KubernetesApi, chosen: Chosen, session: Found, progress: Progress) -> None:
    """Create everything in order and wait until it works; raises PodloxxError or Interrupted, leaving what was created.

    Redis and the agents come after the aggregator, which removes the session if we die.
    """
    made = [one for one in objects(chosen) if one["kind"] != "Namespace"]
    first = next(number for number, one in enumerate(made) if _is(one, "Deployment", "aggregator")) + 1
    agent = next(number for number, one in enumerate(made) if _is(one, "DaemonSet", "agent"))
    progress.step("aggregator")
    await apply(api, made[:first], session, progress)
    await settled(api, session, ["aggregator"], progress)
    progress.step("store, and one agent's image on one node")
    await apply(api, made[first:agent], session, progress)
    await _check(api, made[agent], session, progress)
    progress.step("agents on all nodes")
    await apply(api, made[agent:], session, progress)
    await settled(api, session, ["redis", "agent"], progress)


async def _check(api: KubernetesApi, agent: Object, session: Found, progress: Progress) -> None:
    """Whether one node gets the agents' image and starts a container with their rights; raises PodloxxError."""
    pod = checking_pod(agent)
    where = path_of(pod)
    with asking("agents would not be let in", api.server):
        await api.send("POST", where.rpartition("/")[0], {"fieldManager": MANAGER}, pod)
    await settled(api, session, ["check"], progress)
    with asking("the pod check could not be removed", api.server):
        await api.send("DELETE", where, {"gracePeriodSeconds": "0"})


def _is(one: Object, kind: str, name: str) -> bool:
    return bool(one["kind"] == kind and one["metadata"]["name"] == name)


def shown(made: Sequence[Object]) -> str:
    """Objects as a list in JSON, as kubectl takes it."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(made)}
    return orjson.dumps(listed, option=orjson.OPT_INDENT_2).decode()
