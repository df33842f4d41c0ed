"""What a cluster's controllers and kubelets do, done for an API server that has none, as far as a launcher looks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.kube_cleanup import finalize_namespace
from tests.support.kube_client import KubeClient, Object, Refused

_ROUND_S: Final = 0.05
_OURS: Final = "app.kubernetes.io/managed-by=podloxx-launch"
_APPS: Final = "/apis/apps/v1"
Fate = Callable[[str, str], Object | None]
"""The status of a pod of a component on a node; None leaves it Pending."""


def ready(component: str, node: str) -> Object:  # noqa: ARG001  # a fate
    """Every pod works."""
    if component == "check":
        return {"phase": "Succeeded", "conditions": []}
    return {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def waiting(reason: str, message: str, image: str = "podloxx/one:1") -> Object:
    """The status of a pod whose container does not start."""
    container: Object = {
        "name": "main",
        "image": image,
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        "state": {"waiting": {"reason": reason, "message": message}},
    }
    return {"phase": "Pending", "conditions": [], "containerStatuses": [container]}


@dataclass
class Controllers:
    """Makes the pods of launchers' workloads on `nodes`, gives each its `fate`, and lets deleted namespaces go."""

    client: KubeClient
    nodes: list[str] = field(default_factory=lambda: ["n1", "n2"])
    fate: Fate = ready
    finalizing: bool = True
    made: list[str] = field(default_factory=list)
    """The components whose pods were made, in order."""
    seen: list[str] = field(default_factory=list)
    """Namespaces that were let go."""
    _end: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Work until the end."""
        while not self._end.wait(_ROUND_S):
            # Whatever it looked at may be gone meanwhile, and the API server as well.
            with contextlib.suppress(OSError, Refused):
                for namespace in self.client.get("/api/v1/namespaces", labelSelector=_OURS)["items"]:
                    self._look_after(namespace["metadata"])

    def end(self) -> None:
        """Stop working."""
        self._end.set()

    def _look_after(self, namespace: Object) -> None:
        name = namespace["name"]
        if "deletionTimestamp" in namespace:
            if self.finalizing:
                finalize_namespace(self.client, name)
                self.seen.append(name)
            return
        for one in self.client.get(f"{_APPS}/namespaces/{name}/deployments")["items"]:
            for node in self.nodes[:1]:
                self._pod(one, node, f"{one['metadata']['name']}-5d4f-x")
        for one in self.client.get(f"{_APPS}/namespaces/{name}/daemonsets")["items"]:
            for node in self.nodes:
                self._pod(one, node, f"{one['metadata']['name']}-{node}")
            count = len(self.nodes)
            scheduled = {"observedGeneration": 1, "desiredNumberScheduled": count}
            counts = {"currentNumberScheduled": count, "numberMisscheduled": 0, "numberReady": 0}
            self.client.set_status({**one, "apiVersion": "apps/v1", "kind": "DaemonSet"}, scheduled | counts)
        pods = f"/api/v1/namespaces/{name}/pods"
        for pod in self.client.get(pods, labelSelector="app.kubernetes.io/component=check")["items"]:
            if pod["status"]["phase"] == "Pending" and (status := self.fate("check", self.nodes[0])):
                self.client.set_status({**pod, "apiVersion": "v1", "kind": "Pod"}, status)

    def _pod(self, workload: Object, node: str, name: str) -> None:
        template = workload["spec"]["template"]
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        metadata = {**template["metadata"], "name": name, "namespace": workload["metadata"]["namespace"]}
        status = self.fate(component, node)
        pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        pod["spec"] = {**template["spec"], "nodeName": node}
        try:
            self.client.create(pod | ({"status": status} if status else {}))
            self.made.append(component)
        except Refused as refused:
            if refused.reason != "AlreadyExists":
                self._tell(workload, str(refused).partition(": ")[2])

    def _tell(self, workload: Object, message: str) -> None:
        """Leave an event, as whoever makes pods does where he may not."""
        about = {name: workload["metadata"][name] for name in ("name", "namespace", "uid")}
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about['name']}.refused", "namespace": about["namespace"]},
            "involvedObject": {"apiVersion": "apps/v1", "kind": "ReplicaSet", **about},
            "reason": "FailedCreate",
            "message": f"Error creating: {message}",
            "type": "Warning",
        }
        with contextlib.suppress(Refused):
            self.client.create(event)


@contextlib.contextmanager
def controlling(client: KubeClient) -> Iterator[Controllers]:
    """Controllers at work."""
    one = Controllers(client)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        yield one
    finally:
        one.end()
        thread.join()
