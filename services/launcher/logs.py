"""`podloxx-launch logs`: what a session's pods in the cluster say, each line with its pod's name."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from services.launcher.context import Context, connected
from services.launcher.manifests import COMPONENT_LABEL, NAME_LABEL
from services.launcher.refusal import asking
from services.runtime.errors import UsageError
from services.runtime.kubernetes_api import ApiError, KubernetesApi
from services.runtime.plain import plain

_PAUSE_S: Final = 30.0
_FOR_EVER_S: Final = 24 * 3600.0
"""A pod may have nothing to say for long."""


async def logs(context: Context, component: str, tail: int, *, follow: bool) -> None:
    """Print the last `tail` lines of each pod, and with `follow` what comes after them. Raises PodloxxError."""
    async with connected(context) as api:
        selector = f"{NAME_LABEL}=podloxx" + (f",{COMPONENT_LABEL}={component}" if component else "")
        base = f"/api/v1/namespaces/{context.namespace}/pods"
        with asking("the pods cannot be listed", api.server):
            pods = (await api.get(base, {"labelSelector": selector}))["items"]
        if not pods:
            what = f"no {component}" if component else "no pod of podloxx"
            raise UsageError(f"there is {what} in the namespace {context.namespace}: --namespace names another one")
        async with asyncio.TaskGroup() as tasks:
            for one in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
                tasks.create_task(_say(api, base, one, tail, follow=follow))


async def _say(api: KubernetesApi, base: str, pod: dict[str, Any], tail: int, *, follow: bool) -> None:
    name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "no node")
    query = {"tailLines": str(tail)} | ({"follow": "true"} if follow else {})
    with asking(f"the log of {name} cannot be read", api.server):
        try:
            async with api.stream(f"{base}/{name}/log", query, pause_s=_FOR_EVER_S if follow else _PAUSE_S) as content:
                async for line in content:
                    print(plain(f"{name} ({node}): {line.decode(errors='replace').rstrip()}"), flush=True)
        except ApiError as error:
            if error.status not in {400, 404}:
                raise
            # It has not started yet, or is gone.
            print(plain(f"{name} ({node}): {error}"), flush=True)
