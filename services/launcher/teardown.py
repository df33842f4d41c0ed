"""Removes sessions from a cluster, and proves that nothing is left of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from services.launcher import lease
from services.launcher.manifests import MANAGED_LABEL, MANAGER, OURS, SESSION_LABEL
from services.runtime.errors import LeftoverError
from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi

_GONE_S: Final = 180.0
"""Namespaces go within seconds, where all that answers for their contents is well."""
_POLL_S: Final = 0.3
_RETRY_S: Final = 1.0
_SOON: Final = {"gracePeriodSeconds": 1}
_NAMESPACES: Final = "/api/v1/namespaces"
_CLUSTER_KINDS: Final = {
    "clusterrolebinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "clusterrole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A session in the cluster: its namespace, that one's uid (both empty where only cluster roles are left), and its id."""

    namespace: str
    uid: str
    session: str
    leaving: bool = False


async def find(api: KubernetesApi, namespace: str = "") -> list[Found]:
    """Every session that launchers made, in one namespace or in all; those whose namespace is gone come last."""
    found = {}
    for one in (await api.get(_NAMESPACES, {"labelSelector": OURS}))["items"]:
        metadata = one["metadata"]
        session = metadata["labels"].get(SESSION_LABEL, "")
        if namespace in {"", metadata["name"]}:
            found[session] = Found(metadata["name"], metadata["uid"], session, "deletionTimestamp" in metadata)
    for path in _CLUSTER_KINDS.values():
        for one in (await api.get(path, {"labelSelector": OURS}))["items"]:
            session = one["metadata"]["labels"].get(SESSION_LABEL, "")
            [inside] = [one["metadata"]["name"].removeprefix("podloxx-").removesuffix("-aggregator")]
            if session not in found and namespace in {"", inside} and not await _exists(api, inside, session):
                found[session] = Found("", "", session)
    return list(found.values())


async def _exists(api: KubernetesApi, namespace: str, session: str) -> bool:
    """Whether a session's namespace is there."""
    try:
        one = await api.get(f"{_NAMESPACES}/{namespace}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return bool(one["metadata"].get("labels", {}).get(SESSION_LABEL) == session)


async def remove(api: KubernetesApi, one: Found, say: Say, gives_up: asyncio.Event | None = None) -> None:
    """Delete a session and wait until nothing of it is left; raises LeftoverError naming what is.

    Failing requests are repeated: an API server that restarts comes back. Once `gives_up` is set nobody waits.
    """
    end = time.monotonic() + _GONE_S
    why = ""
    while time.monotonic() < end and not (gives_up and gives_up.is_set()):
        try:
            await _delete(api, one)
            left = await leftovers(api, one)
        except (ApiError, BrokenAnswer, OSError, TimeoutError) as error:
            if isinstance(error, ApiError) and error.status in {401, 403}:
                raise LeftoverError(f"nothing could be removed: {error}. {by_hand(one)}") from error
            why = " ".join(str(error).split()) or "no answer in time"
            say(f"removing: the API server cannot be asked: {why}")
            await asyncio.sleep(_RETRY_S)
            continue
        if not left:
            return
        why = ", ".join(left)
        say(f"removing, {len(left)} left: {why}")
        await asyncio.sleep(_POLL_S)
    if gives_up and gives_up.is_set():
        raise LeftoverError(f"not waited for: {why or 'nothing was removed yet'}. {by_hand(one)}")
    raise LeftoverError(f"not removed within {_GONE_S:.0f} s: {why}{await _reasons(api, one)}. {by_hand(one)}")


def by_hand(one: Found) -> str:
    """What to type where we cannot."""
    roles = ",".join(_CLUSTER_KINDS)
    steps = [f"kubectl delete {roles} -l {SESSION_LABEL}={one.session}"]
    if one.namespace:
        steps.insert(0, f"kubectl delete namespace {one.namespace}")
    return f"By hand: {'; '.join(steps)} (or later: podloxx-launch clean)"


async def _delete(api: KubernetesApi, one: Found) -> None:
    if one.namespace:
        only = {"preconditions": {"uid": one.uid}, "propagationPolicy": "Background"}
        await _unless_gone(api.send("DELETE", f"{_NAMESPACES}/{one.namespace}", None, only))
        # Now, and without the time that a rollout gives them: what they have to say nobody adds up any more. Who may
        # not do that waits some seconds longer, for the namespace takes them with it.
        soon = api.send("DELETE", f"{_NAMESPACES}/{one.namespace}/pods", _selecting(one), _SOON)
        await _unless_gone(soon, 403)
    for path in _CLUSTER_KINDS.values():
        for role in (await api.get(path, _selecting(one)))["items"]:
            only = {"preconditions": {"uid": role["metadata"]["uid"]}}
            await _unless_gone(api.send("DELETE", f"{path}/{role['metadata']['name']}", None, only))


async def _unless_gone(deletion: Any, *also: int) -> None:
    try:
        await deletion
    except ApiError as error:
        # 409: another one of that name, or it goes already.
        if error.status not in {404, 409, *also}:
            raise


async def leftovers(api: KubernetesApi, one: Found) -> list[str]:
    """What is left of a session, as `kind/name`."""
    left = []
    for kind, path in {"namespace": _NAMESPACES, **_CLUSTER_KINDS}.items():
        left += [f"{kind}/{item['metadata']['name']}" for item in (await api.get(path, _selecting(one)))["items"]]
    return left


def _selecting(one: Found) -> dict[str, str]:
    return {"labelSelector": f"{MANAGED_LABEL}={MANAGER},{SESSION_LABEL}={one.session}"}


async def _reasons(api: KubernetesApi, one: Found) -> str:
    """Why the namespace does not go, in the words of whoever finalizes it."""
    try:
        conditions = (await api.get(f"{_NAMESPACES}/{one.namespace}"))["status"].get("conditions", [])
    except (ApiError, BrokenAnswer, OSError, TimeoutError, KeyError):
        return ""
    messages = [condition["message"] for condition in conditions if condition.get("status") == "True"]
    return f" ({' '.join(messages)})" if messages else ""


async def clean(api: KubernetesApi, namespace: str, *, everything: bool, say: Say) -> None:
    """Remove the sessions whose launcher is gone; those of `namespace`, or all with `everything`, also where one lives.

    Raises LeftoverError where something could not be removed.
    """
    removed, failures = 0, []
    for one in await find(api, namespace):
        if one.namespace and not one.leaving and not namespace and not everything:
            silent = await lease.silent_s(api, one.namespace)
            if silent is None:
                say(
                    f"kept: namespace {one.namespace}, which was installed to stay (--namespace {one.namespace} removes it)"
                )
                continue
            if silent < lease.STALE_S:
                who = await lease.held_by(api, one.namespace) or "it is just starting"
                say(
                    f"kept: namespace {one.namespace}, whose launcher lives ({who}; --namespace {one.namespace} removes it)"
                )
                continue
        say(f"removing session {one.session}" + (f" in namespace {one.namespace}" if one.namespace else ""))
        try:
            await remove(api, one, say)
            removed += 1
        except LeftoverError as error:
            failures.append(str(error))
    if failures:
        raise LeftoverError("; ".join(failures))
    sessions = "1 session" if removed == 1 else f"{removed} sessions"
    say(f"{sessions} removed, 0 objects left" if removed else "nothing to remove")
