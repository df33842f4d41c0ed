"""The lease of a session in a cluster: the launcher renews it, and whoever sees that nobody does may remove the session."""

from __future__ import annotations

import asyncio
import getpass
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from services.launcher.manifests import LEASE, MANAGED_LABEL, MANAGER
from services.runtime.errors import PodloxxError
from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi

RENEW_S: Final = 10.0
STALE_S: Final = 35.0
"""Three renewals did not come: that launcher is gone, or away from its network."""
_ANSWER_S: Final = 8.0


def path(namespace: str) -> str:
    """Where the lease of a namespace is."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"


def holder() -> str:
    """Who we are, for others who meet our session."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


async def renew(api: KubernetesApi, namespace: str, uid: str) -> None:
    """Say once that the session's launcher lives; raises as KubernetesApi does, a 404 where the session is gone.

    `uid` is the namespace's, so that a later one of the same name is not taken for it.
    """
    async with asyncio.timeout(_ANSWER_S):
        found = await api.get(f"/api/v1/namespaces/{namespace}")
        if found["metadata"]["uid"] != uid or "deletionTimestamp" in found["metadata"]:
            raise ApiError(404, f"the namespace {namespace} is another one now, or goes")
        change = {"spec": {"renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
        query = {"fieldManager": MANAGER}
        try:
            await api.send("PATCH", path(namespace), query, change, "application/merge-patch+json")
        except ApiError as error:
            # A session that comes up has none yet.
            if error.status != 404:
                raise


async def keep(api: KubernetesApi, namespace: str, uid: str, on_problem: Callable[[str], None]) -> None:
    """Renew until cancelled; `on_problem` is told why it fails, and of the end of that (empty).

    Raises PodloxxError where the session is gone.
    """
    failing = False
    while True:
        try:
            await renew(api, namespace, uid)
        except ApiError as error:
            if error.status == 404:
                raise PodloxxError(
                    f"the session in namespace {namespace} is gone from the cluster: nobody renewed its lease for longer "
                    "than --ttl (did this machine sleep?), or somebody removed it. Start it again"
                ) from error
            failing = _told(failing, on_problem, f"the lease cannot be renewed: {error}")
        except (BrokenAnswer, OSError, TimeoutError) as error:
            why = " ".join(str(error).split()) or f"no answer within {_ANSWER_S:.0f} s"
            failing = _told(failing, on_problem, f"the API server cannot be reached: {why}")
        else:
            if failing:
                on_problem("")
            failing = False
        await asyncio.sleep(RENEW_S if not failing else RENEW_S / 5)


def _told(failing: bool, on_problem: Callable[[str], None], why: str) -> bool:
    if not failing:
        on_problem(why)
    return True


async def silent_s(api: KubernetesApi, namespace: str) -> float | None:
    """Seconds since the lease was written, by the API server's own clock; None where it needs no renewal.

    Where there is none yet, as in the first moments of a session, its namespace's age counts. No launcher's clock plays a
    part: machines' clocks differ.
    """
    try:
        found = await api.get(path(namespace))
    except ApiError as error:
        if error.status != 404:
            raise
        found = await api.get(f"/api/v1/namespaces/{namespace}")
        if found["metadata"].get("labels", {}).get(MANAGED_LABEL) != MANAGER:
            # Whoever applied the manifests by hand renews nothing.
            return None
        times = []
    else:
        if "leaseDurationSeconds" not in (found.get("spec") or {}):
            return None
        times = [_moment(entry["time"]) for entry in found["metadata"].get("managedFields", []) if "time" in entry]
    times.append(_moment(found["metadata"]["creationTimestamp"]))
    return (await api.server_time() - max(times)).total_seconds()


async def held_by(api: KubernetesApi, namespace: str) -> str:
    """Who holds the lease of a namespace; empty where nobody does."""
    try:
        found: dict[str, Any] = await api.get(path(namespace))
    except ApiError as error:
        if error.status == 404:
            return ""
        raise
    return str((found.get("spec") or {}).get("holderIdentity", ""))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
