"""The static address file of the demo's cluster, as the aggregator reads it."""

from __future__ import annotations

import json

from services.launcher.demo.topology import REGION, NodeSpec, Pod, Topology


def static_directory(topology: Topology) -> bytes:
    """JSON of version 1.

    `{"version": 1, "addresses": {address: {namespace, pod, node, zone, region, labels}},
    "nodes": {name: {addresses, zone, region, pod_cidrs}}, "services": {address: {namespace,
    name}}, "cidrs": {label: {cidr, scope}}}`
    """
    return json.dumps(
        {
            "version": 1,
            "addresses": {
                address: _pod(pod, topology.node(pod.node)) for pod in topology.pods for address in pod.address.both()
            },
            "nodes": {node.name: _node(node) for node in topology.nodes},
            "services": {
                address: {"namespace": service.namespace, "name": service.name}
                for service in topology.services
                for address in service.address.both()
            },
            "cidrs": {label: {"cidr": cidr, "scope": "private"} for label, cidr in topology.cidrs.items()},
        },
        indent=1,
    ).encode()


def _pod(pod: Pod, node: NodeSpec) -> dict[str, object]:
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "node": node.name,
        "zone": node.zone,
        "region": REGION,
        "labels": dict(pod.labels),
    }


def _node(node: NodeSpec) -> dict[str, object]:
    return {
        "addresses": [*node.fabric.both(), *node.uplink.both()],
        "zone": node.zone,
        "region": REGION,
        "pod_cidrs": [node.pod_ipv4, node.pod_ipv6],
    }
