"""CoreDNS for a cluster of the tests, as pods behind the Service that every cluster has."""

from __future__ import annotations

from typing import Any, Final

from tests.support.kube_images import COREDNS
from tests.support.kube_network import INTERNET
from tests.support.kube_node import DNS

_NAMESPACE: Final = "kube-system"
_LABELS: Final = {"k8s-app": "kube-dns"}
_COREFILE: Final = f"""
.:53 {{
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa
    forward . {INTERNET[0]}
}}
"""


def objects() -> list[dict[str, Any]]:
    """All of it, in the order in which it can be created."""
    account = {"kind": "ServiceAccount", "name": "coredns", "namespace": _NAMESPACE}
    role = {"kind": "ClusterRole", "name": "plx:coredns", "apiGroup": "rbac.authorization.k8s.io"}
    read = ["list", "watch"]
    return [
        _one("v1", "ServiceAccount", "coredns"),
        _one("v1", "ConfigMap", "coredns", data={"Corefile": _COREFILE}),
        _one(
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            "plx:coredns",
            rules=[
                {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": read},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
            ],
        ),
        _one("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "plx:coredns", roleRef=role, subjects=[account]),
        _one(
            "v1",
            "Service",
            "kube-dns",
            spec={
                "selector": _LABELS,
                "clusterIP": DNS,
                "ipFamilyPolicy": "PreferDualStack",
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            },
        ),
        _one("apps/v1", "Deployment", "coredns", spec={"selector": {"matchLabels": _LABELS}, "template": _pod()}),
    ]


def _pod() -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": COREDNS,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    volume = {"name": "config", "configMap": {"name": "coredns"}}
    spec = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [volume],
    }
    return {"metadata": {"labels": _LABELS}, "spec": spec}


def _one(version: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    inside = {} if kind.startswith("Cluster") else {"namespace": _NAMESPACE}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": _LABELS, **inside},
        **more,
    }
