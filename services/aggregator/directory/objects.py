"""What is kept of each Kubernetes object: a few fields, as tuples that cost little memory."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from services.aggregator.directory.ranges import Network
from services.aggregator.directory.reflector import Resource
from services.flows import address
from services.flows.address import Address
from services.flows.protocols import SCTP, TCP, UDP

_ENDED: Final = frozenset(("Succeeded", "Failed"))
_ZONE: Final = "topology.kubernetes.io/zone"
_REGION: Final = "topology.kubernetes.io/region"
_PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_OF_SERVICE: Final = "kubernetes.io/service-name"
_HAS_NETWORK: Final = "PodReadyToStartContainers"
_HASH_LABEL: Final = "pod-template-hash"
_JOB_OF_CRONJOB: Final = re.compile(r"-\d{6,}$")
Labels = tuple[tuple[str, str], ...]


class PodObject(NamedTuple):
    """A pod. Times are microseconds of wall time, 0 where not known."""

    uid: str
    namespace: str
    name: str
    node: str
    addresses: tuple[Address, ...]
    host_network: bool
    ended: bool
    started_us: int
    began_us: int
    """When it may have used its addresses first; 0 where it has not, by what is told."""
    ended_us: int
    """When its last container ended, if all did."""
    owner_kind: str
    owner_name: str
    container_id: str
    labels: Labels


class NodeObject(NamedTuple):
    """A node."""

    name: str
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    zone: str
    region: str


class ServicePort(NamedTuple):
    """A port of a Service; `target` is a number, a name, or empty where the endpoints tell."""

    protocol: str
    port: int
    target: str


class ServiceObject(NamedTuple):
    """A Service with every address that reaches it."""

    uid: str
    namespace: str
    name: str
    addresses: tuple[Address, ...]
    ports: tuple[ServicePort, ...]


Port = tuple[int, int]
"""Protocol number and port number."""


class EndpointsObject(NamedTuple):
    """A slice of a Service's endpoints; all of them have all of the `ports`."""

    uid: str
    namespace: str
    service: str
    addresses: tuple[Address, ...]
    ports: frozenset[Port]


class RangeObject(NamedTuple):
    """A range from which Services get their addresses."""

    networks: tuple[Network, ...]


def pod(one: Mapping[str, Any]) -> PodObject:
    """A pod as the API server writes it; raises as `Resource.slim` may."""
    metadata, spec, status = one["metadata"], one.get("spec") or {}, one.get("status") or {}
    labels = metadata.get("labels") or {}
    kind, name = _owner(metadata, labels)
    listed = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    containers: list[Mapping[str, Any]] = status.get("containerStatuses") or [{}]
    started = _moment(status.get("startTime") or metadata.get("creationTimestamp"))
    return PodObject(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        node=spec.get("nodeName") or "",
        addresses=_addresses(listed),
        host_network=bool(spec.get("hostNetwork")),
        ended=status.get("phase") in _ENDED,
        started_us=started,
        began_us=_began_us(status, started),
        ended_us=_ended_us(status),
        owner_kind=kind,
        owner_name=name,
        container_id=containers[0].get("containerID") or "",
        labels=tuple(sorted((str(key), str(value)) for key, value in labels.items())),
    )


def node(one: Mapping[str, Any]) -> NodeObject:
    """A node as the API server writes it."""
    metadata, spec, status = one["metadata"], one.get("spec") or {}, one.get("status") or {}
    labels = metadata.get("labels") or {}
    cidrs = spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")])
    # Host names are among them.
    listed = [entry.get("address") for entry in status.get("addresses") or () if str(entry.get("type")).endswith("IP")]
    return NodeObject(
        name=metadata["name"],
        addresses=_addresses(listed),
        pod_cidrs=tuple(map(ipaddress.ip_network, cidrs)),
        zone=str(labels.get(_ZONE, "")),
        region=str(labels.get(_REGION, "")),
    )


def service(one: Mapping[str, Any]) -> ServiceObject:
    """A Service as the API server writes it."""
    metadata, spec, status = one["metadata"], one.get("spec") or {}, one.get("status") or {}
    balancers = (status.get("loadBalancer") or {}).get("ingress") or ()
    listed = [
        *(spec.get("clusterIPs") or [spec.get("clusterIP")]),
        *(spec.get("externalIPs") or ()),
        *(entry.get("ip") for entry in balancers),
    ]
    return ServiceObject(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        addresses=_addresses(text for text in listed if text != "None"),
        ports=tuple(
            ServicePort(str(port.get("protocol") or "TCP"), int(port["port"]), str(port.get("targetPort") or ""))
            for port in spec.get("ports") or ()
        ),
    )


def endpoints(one: Mapping[str, Any]) -> EndpointsObject:
    """An EndpointSlice as the API server writes it."""
    metadata = one["metadata"]
    listed = () if one.get("addressType") == "FQDN" else (one.get("endpoints") or ())
    ports = {(str(port.get("protocol") or "TCP"), port.get("port")) for port in one.get("ports") or ()}
    return EndpointsObject(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        service=str((metadata.get("labels") or {}).get(_OF_SERVICE, "")),
        addresses=_addresses(text for entry in listed for text in entry.get("addresses") or ()),
        ports=frozenset((_PROTOCOLS[name], number) for name, number in ports if name in _PROTOCOLS and number),
    )


def service_range(one: Mapping[str, Any]) -> RangeObject:
    """A ServiceCIDR as the API server writes it."""
    return RangeObject(tuple(map(ipaddress.ip_network, (one.get("spec") or {}).get("cidrs") or ())))


PODS: Final = Resource("pods", "/api/v1/pods", pod)
NODES: Final = Resource("nodes", "/api/v1/nodes", node)
SERVICES: Final = Resource("services", "/api/v1/services", service)
ENDPOINTS: Final = Resource("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", endpoints)
RANGES: Final = Resource("servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs", service_range)


def _addresses(listed: Iterable[str | None]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(address.parse(text) for text in listed if text))


def _moment(text: str | None) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000) if text else 0


def _began_us(status: Mapping[str, Any], started_us: int) -> int:
    """When a pod may have used its addresses first: long after its start, where images had to be pulled."""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    if not containers:
        return started_us
    begins = [
        _moment(entry.get("lastTransitionTime"))
        for entry in status.get("conditions") or ()
        if entry.get("type") == _HAS_NETWORK and entry.get("status") == "True"
    ]
    for one in containers:
        if one.get("restartCount", 0) > 1:
            # Only the last start and the one before are told.
            return started_us
        runs = [*(one.get("state") or {}).values(), *(one.get("lastState") or {}).values()]
        begins += [_moment(run.get("startedAt")) for run in runs]
    return min(filter(None, begins), default=0)


def _ended_us(status: Mapping[str, Any]) -> int:
    """The moment after which no container of a pod could use its address; 0 where one may go on."""
    ends = [
        ((entry.get("state") or {}).get("terminated") or {}).get("finishedAt")
        for entry in status.get("containerStatuses") or ()
    ]
    return max(map(_moment, ends)) if ends and all(ends) else 0


def _owner(metadata: Mapping[str, Any], labels: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of the workload, which is above the ReplicaSet or Job that owns the pod itself.

    Both are told by names alone, so that no right on them is needed.
    """
    owner = next((entry for entry in metadata.get("ownerReferences") or () if entry.get("controller")), None)
    if owner is None:
        return "", ""
    kind, name = str(owner["kind"]), str(owner["name"])
    suffix = f"-{labels.get(_HASH_LABEL, '')}"
    if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
        return "Deployment", name.removesuffix(suffix)
    if kind == "Job" and _JOB_OF_CRONJOB.search(name):
        return "CronJob", _JOB_OF_CRONJOB.sub("", name)
    return kind, name
