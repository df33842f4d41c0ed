"""What is kept of Kubernetes objects."""

from __future__ import annotations

from typing import Any

import pytest

from services.aggregator.directory import objects
from services.flows import address


def metadata(name: str = "web-7d4b9-x2x", **more: Any) -> dict[str, Any]:
    return {"uid": "u1", "namespace": "shop", "name": name, **more}


def owned(kind: str, name: str, **labels: str) -> dict[str, Any]:
    """Metadata of a pod that a controller owns."""
    references = [{"kind": "Node", "name": "n"}, {"kind": kind, "name": name, "controller": True}]
    return {
        "metadata": metadata(ownerReferences=references, labels={k.replace("_", "-"): v for k, v in labels.items()})
    }


def test_a_running_pod() -> None:
    found = objects.pod(
        {
            "metadata": metadata(labels={"app": "web"}),
            "spec": {"nodeName": "node-a"},
            "status": {
                "phase": "Running",
                "podIP": "10.1.0.2",
                "podIPs": [{"ip": "10.1.0.2"}, {"ip": "fd00::2"}],
                "startTime": "2026-11-23T10:00:00Z",
                "containerStatuses": [{"containerID": "containerd://abc", "state": {"running": {}}}],
            },
        }
    )
    assert found == objects.PodObject(
        uid="u1",
        namespace="shop",
        name="web-7d4b9-x2x",
        node="node-a",
        addresses=(address.parse("10.1.0.2"), address.parse("fd00::2")),
        host_network=False,
        ended=False,
        started_us=1_795_428_000_000_000,
        began_us=0,
        ended_us=0,
        owner_kind="",
        owner_name="",
        container_id="containerd://abc",
        labels=(("app", "web"),),
    )


def test_a_pod_that_is_only_planned() -> None:
    found = objects.pod({"metadata": metadata(creationTimestamp="2026-11-23T10:00:00Z")})
    assert (found.node, found.addresses, found.started_us) == ("", (), 1_795_428_000_000_000)
    assert objects.pod({"metadata": metadata(), "status": {"podIP": "10.1.0.2"}}).addresses == (
        address.parse("10.1.0.2"),
    )


def at(second: int) -> str:
    return f"2026-11-23T10:00:{second:02}Z"


def began_s(*containers: dict[str, Any], **status: Any) -> float:
    """When a pod that came to its node at second 0 may have talked first, in seconds after that."""
    if containers:
        status["containerStatuses"] = list(containers)
    began_us = objects.pod({"metadata": metadata(), "status": {"startTime": at(0), **status}}).began_us
    return began_us and (began_us - 1_795_428_000_000_000) / 1_000_000


def test_when_a_pod_may_have_talked_first() -> None:
    waits: dict[str, Any] = {"restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    runs = {"restartCount": 0, "state": {"running": {"startedAt": at(20)}}}
    again = {
        "restartCount": 1,
        "state": {"running": {"startedAt": at(30)}},
        "lastState": {"terminated": {"startedAt": at(10)}},
    }
    often = {**again, "restartCount": 2}
    network = {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": at(5)}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(1)}
    assert began_s() == 0
    assert began_s(runs) == 20
    assert began_s(runs, again) == 10
    assert began_s(runs, often) == 0
    assert began_s(runs, waits) == 20
    assert began_s(waits, initContainerStatuses=[again]) == 10
    assert began_s(runs, conditions=[scheduled, network]) == 5
    assert began_s(runs, conditions=[{**network, "status": "False"}]) == 20
    assert objects.pod({"metadata": metadata(), "status": {"containerStatuses": [waits]}}).began_us == 0


def test_a_pod_that_ended_says_when() -> None:
    def ended(*finished: str) -> objects.PodObject:
        states: list[Any] = [
            {"state": {"terminated": {"finishedAt": text}} if text else {"running": {}}} for text in finished
        ]
        return objects.pod({"metadata": metadata(), "status": {"phase": "Succeeded", "containerStatuses": states}})

    both = ended("2026-11-23T10:00:00Z", "2026-11-23T10:00:05Z")
    assert (both.ended, both.ended_us) == (True, 1_795_428_005_000_000)
    assert ended("2026-11-23T10:00:00Z", "").ended_us == 0
    assert ended().ended_us == 0


@pytest.mark.parametrize(
    ("one", "kind", "name"),
    [
        (owned("ReplicaSet", "web-7d4b9", pod_template_hash="7d4b9"), "Deployment", "web"),
        (owned("ReplicaSet", "web-7d4b9", pod_template_hash="other"), "ReplicaSet", "web-7d4b9"),
        (owned("ReplicaSet", "web-7d4b9"), "ReplicaSet", "web-7d4b9"),
        (owned("Job", "report-29381220"), "CronJob", "report"),
        (owned("Job", "report"), "Job", "report"),
        (owned("StatefulSet", "db"), "StatefulSet", "db"),
        (owned("DaemonSet", "log"), "DaemonSet", "log"),
        ({"metadata": metadata(ownerReferences=[{"kind": "Node", "name": "n"}])}, "", ""),
    ],
)
def test_the_workload_is_told_by_names_alone(one: dict[str, Any], kind: str, name: str) -> None:
    found = objects.pod(one)
    assert (found.owner_kind, found.owner_name) == (kind, name)


def test_a_node() -> None:
    found = objects.node(
        {
            "metadata": metadata(
                "node-a", labels={"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1"}
            ),
            "spec": {"podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "192.168.0.2"},
                    {"type": "ExternalIP", "address": "198.51.100.2"},
                    {"type": "Hostname", "address": "node-a"},
                ]
            },
        }
    )
    assert (found.name, found.zone, found.region) == ("node-a", "z1", "r1")
    assert [str(one) for one in found.addresses] == ["192.168.0.2", "198.51.100.2"]
    assert [str(one) for one in found.pod_cidrs] == ["10.1.0.0/24", "fd00:1::/64"]
    bare = objects.node({"metadata": metadata("n"), "spec": {"podCIDR": "10.2.0.0/24"}})
    assert ([str(one) for one in bare.pod_cidrs], bare.addresses, bare.zone) == (["10.2.0.0/24"], (), "")


def test_a_service_with_every_address_that_reaches_it() -> None:
    found = objects.service(
        {
            "metadata": metadata("web"),
            "spec": {
                "clusterIP": "10.96.0.10",
                "clusterIPs": ["10.96.0.10", "fd96::a"],
                "externalIPs": ["192.0.2.1"],
                "ports": [{"port": 80, "targetPort": "http"}, {"port": 53, "protocol": "UDP"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}, {"hostname": "lb.example"}]}},
        }
    )
    assert [str(one) for one in found.addresses] == ["10.96.0.10", "fd96::a", "192.0.2.1", "203.0.113.5"]
    assert found.ports == (objects.ServicePort("TCP", 80, "http"), objects.ServicePort("UDP", 53, ""))
    headless = objects.service({"metadata": metadata("db"), "spec": {"clusterIP": "None", "clusterIPs": ["None"]}})
    assert headless.addresses == ()
    assert objects.service({"metadata": metadata("name"), "spec": {"type": "ExternalName"}}).addresses == ()


def test_endpoints_and_ranges() -> None:
    label = {"kubernetes.io/service-name": "web"}
    raw = {
        "metadata": metadata(labels=label),
        "endpoints": [{"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.3"]}, {}],
    }
    found = objects.endpoints(raw)
    assert (found.service, [str(one) for one in found.addresses]) == ("web", ["10.1.0.2", "10.1.0.3"])
    assert objects.endpoints({**raw, "addressType": "FQDN"}).addresses == ()
    ranges = objects.service_range({"metadata": metadata(), "spec": {"cidrs": ["10.96.0.0/16", "fd96::/112"]}})
    assert [str(one) for one in ranges.networks] == ["10.96.0.0/16", "fd96::/112"]


@pytest.mark.parametrize(
    "one",
    [
        {},
        {"metadata": None},
        {"metadata": metadata(), "status": {"podIP": "nonsense"}},
        {"metadata": metadata(), "spec": 3},
    ],
)
def test_what_is_no_pod_raises_what_the_reflector_expects(one: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        objects.pod(one)
