"""`podloxx-launch start --shards` on a real cluster: an aggregator for each shard and one for all, shown as one."""

from __future__ import annotations

import json
from pathlib import Path

from services.flows.keys import shard_of
from tests.cluster.test_live import ours, rows, session
from tests.support.kube_target import Target
from tests.support.wait import wait_until

SHARDS = 3


def test_nodes_of_several_shards_are_shown_as_one(target: Target, tmp_path: Path) -> None:
    nodes = {one["metadata"]["name"] for one in target.get("nodes")["items"]}
    with session(target, tmp_path, f"--shards={SHARDS}") as one:
        one.until_current(60)
        found = target.get("pods", f"--namespace={one.namespace}")["items"]
        aggregators = [pod for pod in found if pod["metadata"]["name"].startswith("aggregator-")]
        assert len(aggregators) == SHARDS + 1
        wait_until(lambda: set(json.loads(one.launched.ask("/traffic/nodes")[1])) == nodes, "both nodes are seen", 30)
        wait_until(lambda: "kube-system/coredns" in " ".join(rows(one.launched)), "others' pods are shown", 40)
        told = one.launched.get("/traffic/nodes")
        assert all(node["live"] and node["interfaces"] for node in told.values())
        assert {shard_of(name, SHARDS) for name in nodes} != {0}
        assert one.launched.end() == 0
        assert ours(target.everything(), one.namespace) == set()
