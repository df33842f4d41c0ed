"""What a cluster must allow before anything is created in it: asked, not tried."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final

from services.launcher.refusal import asking
from services.runtime.errors import PodloxxError, PrivilegeError
from services.runtime.kubernetes_api import KubernetesApi

_OLDEST: Final = (1, 22)
"""The first one with server-side apply, EndpointSlices and all else by the names that we use."""
_AT_A_TIME: Final = 8


@dataclass(frozen=True, slots=True)
class Right:
    """Something that the launcher does: verbs on a resource, in the session's namespace or (`everywhere`) in the cluster."""

    resource: str
    verbs: tuple[str, ...]
    group: str = ""
    everywhere: bool = False

    @property
    def name(self) -> str:
        """As `kubectl auth can-i` takes it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


_ROLES: Final = "rbac.authorization.k8s.io"
_MADE: Final = ("create", "patch")
RIGHTS: Final = (
    Right("namespaces", ("list", "create", "delete"), everywhere=True),
    Right("clusterroles", ("list", "delete", *_MADE), _ROLES, everywhere=True),
    Right("clusterrolebindings", ("list", "delete", *_MADE), _ROLES, everywhere=True),
    # Nobody may give what he does not have.
    *(Right(name, ("list", "watch"), everywhere=True) for name in ("pods", "nodes", "services")),
    Right("endpointslices", ("list", "watch"), "discovery.k8s.io", everywhere=True),
    Right("servicecidrs", ("list", "watch"), "networking.k8s.io", everywhere=True),
    Right("roles", _MADE, _ROLES),
    Right("rolebindings", _MADE, _ROLES),
    *(Right(name, _MADE) for name in ("serviceaccounts", "secrets", "configmaps", "services")),
    Right("leases", ("get", *_MADE), "coordination.k8s.io"),
    Right("networkpolicies", _MADE, "networking.k8s.io"),
    Right("deployments", _MADE, "apps"),
    Right("daemonsets", ("get", *_MADE), "apps"),
    Right("pods", ("create", "delete", "list")),
    Right("pods/log", ("get",)),
    Right("events", ("list",)),
    # From Kubernetes 1.35 on the upgrade to a WebSocket takes both.
    Right("pods/portforward", ("get", "create")),
)
VIEWER_RIGHTS: Final = (
    Right("pods", ("list",)),
    Right("secrets", ("get",)),
    Right("pods/portforward", ("get", "create")),
)
"""What it takes to look at a session that is there."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A right that the caller does not have, and why the API server says so."""

    right: Right
    verb: str
    reason: str

    @property
    def question(self) -> str:
        """What shows the same."""
        where = "" if self.right.everywhere else " in the namespace"
        return f"{self.verb} {self.right.name}{where}"


async def version(api: KubernetesApi) -> str:
    """The cluster's version; raises PodloxxError where it is too old or none is told."""
    with asking("the cluster cannot be asked for its version", api.server):
        found = str((await api.get("/version")).get("gitVersion", ""))
    match = re.match(r"v(\d+)\.(\d+)", found)
    if match is None:
        raise PodloxxError(f"{api.server} does not tell a version of Kubernetes: is it an API server?")
    if (int(match[1]), int(match[2])) < _OLDEST:
        raise PodloxxError(f"the cluster is Kubernetes {found}; podloxx needs {'.'.join(map(str, _OLDEST))} or later")
    return found


async def missing(api: KubernetesApi, namespace: str, rights: tuple[Right, ...] = RIGHTS) -> list[Missing]:
    """The rights that the caller does not have; raises PodloxxError where that cannot be asked."""
    at_a_time = asyncio.Semaphore(_AT_A_TIME)

    async def ask(right: Right, verb: str) -> Missing | None:
        resource, _, sub = right.resource.partition("/")
        attributes = {"group": right.group, "resource": resource, "subresource": sub, "verb": verb}
        if not right.everywhere:
            attributes["namespace"] = namespace
        review = {"spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}}}
        async with at_a_time:
            status: dict[str, Any] = (
                await api.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", None, _review(review))
            )["status"]
        return None if status.get("allowed") else Missing(right, verb, status.get("reason", ""))

    with asking("the cluster cannot be asked for our rights", api.server):
        try:
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(ask(right, verb)) for right in rights for verb in right.verbs]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
    return [found for task in asked if (found := task.result()) is not None]


def _review(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", **spec}


def refuse(lacking: list[Missing], namespace: str) -> None:
    """Raise PrivilegeError naming all of `lacking`, if anything is."""
    if lacking:
        listed = ", ".join(one.question for one in lacking)
        raise PrivilegeError(
            f"nothing was created, since these rights are missing: {listed}. Ask whoever runs the cluster for them "
            f"(`kubectl auth can-i {lacking[0].verb} {lacking[0].right.name} -n {namespace}` shows the first), or choose "
            "another context with --context"
        )
