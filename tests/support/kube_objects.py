"""Kubernetes objects as tests need them, each with the status that a kubelet or a controller would give it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from tests.support.kube_client import Object

IMAGE: Final = "localhost/none:1"


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}


def pod(
    where: str,
    name: str,
    *,
    node: str = "",
    ips: Iterable[str] = (),
    phase: str = "Running",
    labels: Mapping[str, str] | None = None,
    owner: tuple[str, str] | None = None,
    host_network: bool = False,
    ready: bool = True,
) -> Object:
    """A pod of namespace `where`; `owner` is the kind and name of its controller.

    Without `ips` it has no addresses yet; without `node` no place.
    """
    metadata: Object = {"name": name, "namespace": where, "labels": dict(labels or {})}
    if owner is not None:
        metadata["ownerReferences"] = [_owner(*owner)]
    spec: Object = {"containers": [{"name": "main", "image": IMAGE}], "hostNetwork": host_network}
    if node:
        spec["nodeName"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": pod_status(phase, ips, ready=ready and phase == "Running"),
    }


def pod_status(phase: str, ips: Iterable[str] = (), *, ready: bool = True) -> Object:
    """What a kubelet says of a pod; `podIP` goes before `podIPs` where they differ, so both are there."""
    listed = [{"ip": one} for one in ips]
    addresses: Object = {"podIP": listed[0]["ip"], "podIPs": listed} if listed else {}
    return {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}], **addresses}


def lived(ips: Iterable[str], *, from_s: float, to_s: float | None = None, container: str = "") -> Object:
    """The status of a pod that began at the Unix time `from_s`, and ended well where `to_s` is given.

    `container` is the id of its only container; what ended has one in any case.
    """
    status = pod_status("Running" if to_s is None else "Succeeded", ips) | {"startTime": _moment(from_s)}
    if to_s is None and not container:
        return status
    began: Object = {"startedAt": _moment(from_s)}
    ended = {**began, "exitCode": 0, "finishedAt": _moment(to_s or 0)}
    main: Object = {
        "name": "main",
        "image": IMAGE,
        "imageID": IMAGE,
        "containerID": container,
        "restartCount": 0,
        "ready": to_s is None,
        "state": {"running": began} if to_s is None else {"terminated": ended},
    }
    return status | {"containerStatuses": [main]}


def node(
    name: str,
    *,
    addresses: Iterable[str] = (),
    pod_cidrs: Iterable[str] = (),
    zone: str = "",
    region: str = "",
    external: Iterable[str] = (),
) -> Object:
    """A node with its internal and `external` addresses."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    labels |= {"topology.kubernetes.io/zone": zone} if zone else {}
    labels |= {"topology.kubernetes.io/region": region} if region else {}
    cidrs = list(pod_cidrs)
    listed = [{"type": "InternalIP", "address": one} for one in addresses]
    listed += [{"type": "ExternalIP", "address": one} for one in external]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs} if cidrs else {},
        "status": {
            "addresses": [*listed, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def service(
    where: str,
    name: str,
    *,
    ports: Iterable[tuple[str, int, int | str]] = (("TCP", 80, 8080),),
    selector: Mapping[str, str] | None = None,
    cluster_ips: Iterable[str] = (),
    external_ips: Iterable[str] = (),
    balancers: Iterable[str] = (),
    headless: bool = False,
) -> Object:
    """A Service for both families; `ports` are protocol, port and target, `balancers` a load balancer's addresses.

    Without `cluster_ips` the API server chooses them.
    """
    listed = ["None"] if headless else list(cluster_ips)
    given = list(balancers)
    spec: Object = {
        "type": "LoadBalancer" if given else "ClusterIP",
        "ipFamilyPolicy": "PreferDualStack",
        "selector": dict(selector or {}),
        "externalIPs": list(external_ips),
        "ports": [
            {"name": f"{protocol.lower()}-{port}", "protocol": protocol, "port": port, "targetPort": target}
            for protocol, port, target in ports
        ],
    }
    if listed:
        spec |= {"clusterIP": listed[0], "clusterIPs": listed}
    one = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": where}, "spec": spec}
    status = {"status": {"loadBalancer": {"ingress": [{"ip": entry} for entry in given]}}} if given else {}
    return one | status


def endpoint_slice(
    where: str,
    name: str,
    *,
    service: str,
    addresses: Iterable[str],
    family: str = "IPv4",
    ports: Iterable[tuple[str, int]] = (("TCP", 8080),),
) -> Object:
    """A slice of a Service's endpoints, all of one `family` (`IPv4`, `IPv6`, `FQDN`); `ports` are protocol and port."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": where, "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": [{"addresses": [one], "conditions": {"ready": True}} for one in addresses],
        "ports": [
            {"name": f"{protocol.lower()}-{port}", "protocol": protocol, "port": port} for protocol, port in ports
        ],
    }


def service_account(where: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": where}}


def cluster_role(name: str, *rules: tuple[str, str, Iterable[str]]) -> Object:
    """A role for the whole cluster; each rule is an API group, a resource and verbs."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in rules
        ],
    }


def cluster_role_binding(role: str, *subjects: str) -> Object:
    """Gives the role to users, and to service accounts that are written `namespace/name`."""
    listed = []
    for one in subjects:
        inside, slash, name = one.partition("/")
        user = {"kind": "User", "name": one, "apiGroup": "rbac.authorization.k8s.io"}
        listed.append({"kind": "ServiceAccount", "name": name, "namespace": inside} if slash else user)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": listed,
    }


def _moment(unix_s: float) -> str:
    """Whole seconds, as Kubernetes writes them."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _owner(kind: str, name: str) -> Object:
    groups = {"Node": "v1", "Job": "batch/v1", "CronJob": "batch/v1", "ReplicationController": "v1"}
    # Nobody looks whether the owner exists: a collector of garbage would, and there is none.
    uid = "00000000-0000-4000-8000-000000000000"
    return {"apiVersion": groups.get(kind, "apps/v1"), "kind": kind, "name": name, "uid": uid, "controller": True}
