"""`podloxx-launch local --kubeconfig` names one node's pods as its cluster does, and deploys nothing."""

from __future__ import annotations

from typing import Any

from tests.support import generators, kube_objects
from tests.support.api_server import ApiServer
from tests.support.kube_client import KubeClient
from tests.support.launched import Launched, launched
from tests.support.netns import namespaces, veth
from tests.support.relay import relayed
from tests.support.truth import wait_for_total

SERVICE = "10.96.0.77"


def peers_of(podloxx: Launched, name: str) -> dict[str, Any]:
    """A pod's peers by address."""
    return {peer["address"]: peer for peer in podloxx.get(f"/traffic/peers?pod={name}")["peers"]}


def test_pods_have_the_names_of_their_cluster(api_server: ApiServer, admin: KubeClient, namespace: str) -> None:
    for name, zone, net in (("plx-here", "z1", 1), ("plx-there", "z2", 2)):
        made = kube_objects.node(
            name, addresses=[f"192.168.0.{net}"], pod_cidrs=[f"10.77.{net}.0/24"], zone=zone, region="r"
        )
        admin.create(made)
        admin.set_status(made, made["status"])

    def pod(name: str, address: str, node: str, **more: Any) -> None:
        made = kube_objects.pod(namespace, name, node=node, ips=[address], **more)
        admin.create(made)
        admin.set_status(made, made["status"])

    pod("web", "10.77.1.2", "plx-here", labels={"app": "web"})
    pod("there", "10.77.2.9", "plx-there")
    admin.create(kube_objects.service(namespace, "shop", cluster_ips=[SERVICE]))
    before = admin.get("/api/v1/pods")["items"]
    with namespaces("node", "web") as (node, web), relayed(node, api_server.port):
        veth(node, "veth1", web, "10.77.1.2/24")
        node.ip("addr add 10.77.1.1/24 dev veth1")
        web.ip("route add default via 10.77.1.1")
        arguments = [f"--kubeconfig={api_server.kubeconfig()}", "--node=plx-here", "--interface=veth1"]
        with launched("local", *arguments, inside=node) as podloxx:

            def named(pods: Any) -> bool:
                for target in ("10.77.2.9", SERVICE, "10.77.1.1", "8.8.8.8"):
                    generators.udp(web, target, 9000, count=1, size=100)
                return f"{namespace}/web" in pods and pods[f"{namespace}/web"]["packetsSum"] > 8

            total = wait_for_total(podloxx, named, "the pod has its name")
            shown = total[f"{namespace}/web"]
            assert (shown["node"], shown["zone"], shown["region"]) == ("plx-here", "z1", "r")
            assert shown["labels"]["app"] == "web"
            peers = peers_of(podloxx, f"{namespace}/web")
            told = {address: (peer["scope"], peer["rule"], peer["name"]) for address, peer in peers.items()}
            assert told["10.77.2.9"] == ("cross-zone", "pod-cross-zone", "there")
            assert told[SERVICE] == ("service", "service", "shop")
            assert told["10.77.1.1"] == ("node", "node-gateway", "plx-here")
            assert told["8.8.8.8"] == ("internet", "public", "")
            assert podloxx.end() == 0
    assert [one["metadata"]["uid"] for one in admin.get("/api/v1/pods")["items"]] == [
        one["metadata"]["uid"] for one in before
    ]
