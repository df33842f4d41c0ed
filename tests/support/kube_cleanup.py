"""What a cluster's controllers do when something goes, done for an API server that has none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.support.kube_client import KubeClient, Object, Refused


def remove_namespace(client: KubeClient, name: str) -> None:
    """Delete a namespace and everything in it; one that is not there is no error."""
    path = f"/api/v1/namespaces/{name}"
    try:
        client.request("DELETE", path)
    except Refused as refusal:
        if refusal.reason != "NotFound":
            raise
        return
    finalize_namespace(client, name)


def finalize_namespace(client: KubeClient, name: str) -> None:
    """Let a namespace go that somebody deleted: first what is in it, then itself."""
    for collection in _collections(client):
        inside = collection.format(namespace=name)
        client.request("DELETE", inside, {"gracePeriodSeconds": 0})
        for left in client.get(inside)["items"]:
            # Whoever was to finalize it does not run.
            with contextlib.suppress(Refused):
                client.request("PATCH", f"{inside}/{left['metadata']['name']}", {"metadata": {"finalizers": None}})
    path = f"/api/v1/namespaces/{name}"
    try:
        one = client.get(path)
        one["spec"]["finalizers"] = []
        client.request("PUT", f"{path}/finalize", one)
    except Refused as refusal:
        # A test that plays the controllers itself was still at it.
        if refusal.reason != "NotFound":
            raise


def remove_cluster_objects(client: KubeClient) -> None:
    """Delete the nodes, and the roles that did not come with the API server."""
    client.request("DELETE", "/api/v1/nodes")
    for kind in ("clusterrolebindings", "clusterroles"):
        path = f"/apis/rbac.authorization.k8s.io/v1/{kind}"
        client.request("DELETE", f"{path}?labelSelector=%21kubernetes.io%2Fbootstrapping")


def _collections(client: KubeClient) -> Iterator[str]:
    """The path of everything that may be in a namespace and be deleted as a whole."""
    for resource in _resources(client, "/api/v1"):
        yield f"/api/v1/namespaces/{{namespace}}/{resource}"
    for group in client.get("/apis")["groups"]:
        base = f"/apis/{group['preferredVersion']['groupVersion']}"
        for resource in _resources(client, base):
            yield f"{base}/namespaces/{{namespace}}/{resource}"


def _resources(client: KubeClient, base: str) -> Iterator[str]:
    listed: list[Object] = client.get(base)["resources"]
    for one in listed:
        if one["namespaced"] and "deletecollection" in one["verbs"]:
            yield one["name"]
