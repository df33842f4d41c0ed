"""Pods that talk, for tests on a cluster: one that serves on each of two nodes, and one that asks."""

from __future__ import annotations

from typing import Any, Final

from tests.support.kube_target import Target

IPERF: Final = 5201
HTTP: Final = 8080
FILE_BYTES: Final = 1_000_000
CLIENT: Final = "client"
_ROOT: Final = "/tmp/served"
# Nothing here asks over the network whether it is ready: what a pod's interface counts is to be the test's own.
_SERVE: Final = f"""
mkdir -p {_ROOT} && head -c {FILE_BYTES} /dev/zero > {_ROOT}/file
iperf3 --server --daemon
exec python3 -m http.server --bind :: --directory {_ROOT} {HTTP}
"""
_LISTENS: Final = ["sh", "-c", f"ss -Hltn sport = :{IPERF} | grep -q . && ss -Hltn sport = :{HTTP} | grep -q ."]


def objects(namespace: str, image: str, nodes: tuple[str, str]) -> list[dict[str, Any]]:
    """Pods `near` and `far` that serve, `client` on the node of `near`; Services `far` and, on the nodes, `far-node`."""
    near, far = nodes
    ports = [{"name": "iperf3", "port": IPERF}, {"name": "http", "port": HTTP}]
    # iperf3 opens two connections, which have to reach the same pod; here there is just one.
    both = {"selector": {"serves": "far"}, "ports": ports, "ipFamilyPolicy": "PreferDualStack"}
    return [
        _pod(namespace, "near", near, image, ["sh", "-c", _SERVE], ready=_LISTENS),
        _pod(namespace, "far", far, image, ["sh", "-c", _SERVE], ready=_LISTENS),
        _pod(namespace, CLIENT, near, image, ["sleep", "infinity"]),
        _service(namespace, "far", both),
        _service(namespace, "far-node", both | {"type": "NodePort"}),
    ]


def start(target: Target, namespace: str, image: str, nodes: tuple[str, str]) -> None:
    """Make them, and wait until they are ready."""
    target.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    # A controller makes it, and no pod is taken before.
    target.run("wait", f"--namespace={namespace}", "--for=create", "--timeout=30s", "serviceaccount/default")
    target.apply(*objects(namespace, image, nodes))
    pods = [f"pod/{name}" for name in ("near", "far", CLIENT)]
    target.run("wait", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=60s", *pods, timeout_s=70)


def _pod(
    namespace: str, name: str, node: str, image: str, command: list[str], ready: list[str] | None = None
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "talks",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
    }
    if ready:
        container["startupProbe"] = {"exec": {"command": ready}, "periodSeconds": 1, "failureThreshold": 60}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    labels = {"serves": name} if ready else {}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _service(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
