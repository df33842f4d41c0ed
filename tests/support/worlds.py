"""A small cluster, written down as an address file."""

from __future__ import annotations

from typing import Any

from services.aggregator.directory.static_file import StaticDirectory

CONTENT: dict[str, Any] = {
    "version": 1,
    "addresses": {
        "10.1.0.2": {"namespace": "shop", "pod": "web", "node": "node-a", "labels": {"app": "web"}},
        "fd00:1::2": {"namespace": "shop", "pod": "web", "node": "node-a"},
        "10.1.0.3": {"namespace": "shop", "pod": "api", "node": "node-a"},
        "10.2.0.2": {"namespace": "data", "pod": "db", "node": "node-b"},
    },
    "nodes": {
        "node-a": {
            "addresses": ["10.0.0.11"],
            "zone": "eu-1a",
            "region": "eu-1",
            "pod_cidrs": ["10.1.0.0/24", "fd00:1::/64"],
        },
        "node-b": {"addresses": ["10.0.0.12"], "zone": "eu-1b", "region": "eu-1", "pod_cidrs": ["10.2.0.0/24"]},
    },
    "services": {"10.96.0.10": {"namespace": "kube-system", "name": "dns"}},
    "cidrs": {"vpc-db": {"cidr": "10.200.0.0/16"}, "office": {"cidr": "198.51.100.0/24", "scope": "private"}},
}


def directory(**settings: str) -> StaticDirectory:
    """The directory of that cluster."""
    return StaticDirectory(CONTENT, "addresses.json", **settings)
