"""What a cluster says of its pods reaches `/traffic/total`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from tests.support import kube_objects
from tests.support.agents import ScriptedAgent, attachment, detached, flow, window
from tests.support.api_server import ApiServer
from tests.support.cluster_aggregator import ClusterAggregator, now_s
from tests.support.kube_client import KubeClient, Object
from tests.support.redis_server import RedisServer
from tests.support.served import Served, serving
from tests.support.wait import until

SOON_S: Final = 20.0
BEGAN: Final = 1_795_428_000
BEGAN_TEXT: Final = "2026-11-23T10:00:00Z"
HASH: Final = {"pod-template-hash": "5d4f"}
PODS: Final[dict[str, tuple[tuple[str, str] | None, dict[str, str], tuple[str, str]]]] = {
    "web-5d4f-x": (("ReplicaSet", "web-5d4f"), {"app": "web", **HASH}, ("Deployment", "web")),
    "bare-5d4f-x": (("ReplicaSet", "bare"), HASH, ("ReplicaSet", "bare")),
    "db-0": (("StatefulSet", "db"), {"app": "db"}, ("StatefulSet", "db")),
    "proxy-n1": (("DaemonSet", "proxy"), {}, ("DaemonSet", "proxy")),
    "nightly-29123456-x": (("Job", "nightly-29123456"), {}, ("CronJob", "nightly")),
    "once-x": (("Job", "once"), {}, ("Job", "once")),
    "alone": (None, {}, ("", "")),
}
"""Each pod's controller and labels, and what is to be shown as its owner."""


@pytest.fixture
async def served(api_server: ApiServer, redis_server: RedisServer, admin: KubeClient) -> AsyncIterator[Served]:
    """An aggregator and the API, with a node that has a place."""
    admin.create(kube_objects.node("n1", addresses=["10.80.0.1"], pod_cidrs=["10.81.1.0/24"], zone="z1", region="r1"))
    with ClusterAggregator(redis_server, api_server.kubeconfig()).running():
        async with serving(redis_server) as api:
            yield api


def ips_of(number: int) -> tuple[str, str]:
    return f"10.81.1.{number}", f"fd81:0:0:1::{number}"


def create(admin: KubeClient, namespace: str, name: str, number: int) -> Object:
    """A pod that runs, in both families."""
    owner, labels, _ = PODS[name]
    made = admin.create(kube_objects.pod(namespace, name, node="n1", labels=labels, owner=owner))
    status = kube_objects.lived(ips_of(number), from_s=BEGAN, container=f"containerd://{number}")
    return admin.set_status(made, status)


async def total(served: Served, key: str) -> dict[str, Any]:
    """A pod of `/traffic/total`; empty until it is there."""
    answer = await served.ask("/traffic/total")
    found: dict[str, Any] = answer.json.get(key, {}) if answer.status == 200 else {}
    return found


async def test_owners_labels_places_and_times_are_shown(
    served: Served, redis: Any, admin: KubeClient, namespace: str
) -> None:
    made = {name: create(admin, namespace, name, number) for number, name in enumerate(PODS, 2)}
    points = [attachment(number, *ips_of(number)) for number, _ in enumerate(PODS, 2)]
    flows = [flow(point.id, "1.1.1.1", tx=1000 * point.id, local=str(point.addresses[0])) for point in points]
    agent = ScriptedAgent(node="n1")
    await agent.send(redis, agent.batch(window(points, *flows, second=await now_s(redis))))

    async def all_named() -> bool:
        """Windows go on, and each one looks who is known by now."""
        await agent.send(redis, agent.batch(window(points, second=await now_s(redis))))
        return all([await total(served, f"{namespace}/{name}") for name in PODS])

    await until(all_named, "all pods are shown by their names", SOON_S)
    for number, (name, (_, labels, (kind, owner))) in enumerate(PODS.items(), 2):
        # The API server adds those of the node's place.
        given = made[name]["metadata"]["labels"]
        assert labels.items() <= given.items()
        shown = await total(served, f"{namespace}/{name}")
        expected = {
            "podName": name,
            "namespace": namespace,
            "uid": made[name]["metadata"]["uid"],
            "node": "n1",
            "zone": "z1",
            "region": "r1",
            "ip": ips_of(number)[0],
            "ips": list(ips_of(number)),
            "labels": given,
            "ownerKind": kind,
            "ownerName": owner,
            "containerId": f"containerd://{number}",
            "startTime": BEGAN_TEXT,
            "fileName": f"veth{number}",
        }
        assert {key: shown[key] for key in expected} == expected
        assert shown["scopes"]["internet"]["transmitBytes"] == 1000 * number


async def test_what_changes_is_shown_and_what_ended_keeps_what_it_had(
    served: Served, redis: Any, admin: KubeClient, namespace: str
) -> None:
    key = f"{namespace}/alone"
    made = create(admin, namespace, "alone", 2)
    agent = ScriptedAgent(node="n1")
    point = attachment(1, *ips_of(2))

    async def shows(**expected: object) -> bool:
        await agent.send(redis, agent.batch(window([point], second=await now_s(redis))))
        shown = await total(served, key)
        shown |= {"labels": {name: text for name, text in shown.get("labels", {}).items() if name == "team"}}
        return {name: shown.get(name) for name in expected} == expected

    await until(lambda: shows(zone="z1", labels={}), "the pod is shown", SOON_S)
    admin.patch(made, {"metadata": {"labels": {"team": "a"}}})
    await until(lambda: shows(labels={"team": "a"}), "its new label is shown", SOON_S)
    node = kube_objects.node("n1")
    admin.patch(node, {"metadata": {"labels": {"topology.kubernetes.io/zone": "z2"}}})
    await until(lambda: shows(zone="z2", region="r1"), "its node's new zone is shown", SOON_S)
    admin.delete(made)
    ended = await now_s(redis)
    point = detached(point, ended * 1_000_000)
    text = datetime.fromtimestamp(ended, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    await until(lambda: shows(endTime=text), "its end is shown", SOON_S)
    # The cluster knows nothing of it any more.
    assert await shows(zone="z2", node="n1", labels={"team": "a"}, containerId="containerd://2", startTime=BEGAN_TEXT)
