"""What is left of podloxx on a real cluster after `kubectl delete -k`: nothing."""

from __future__ import annotations

import pytest

from tests.support.kube_podloxx import NAMESPACE, Podloxx
from tests.support.kube_target import Target

# They come and go by themselves.
PASSING = ("events", "events.events.k8s.io")


@pytest.mark.usefixtures("work")
def test_nothing_is_left_after_delete(podloxx: Podloxx, target: Target) -> None:
    podloxx.down()
    before = everything(target)
    podloxx.up()
    brought = everything(target) - before
    assert {"ClusterRole", "DaemonSet", "Deployment", "Namespace", "Pod", "Secret"} <= {
        one.split("/")[0] for one in brought
    }
    podloxx.down()
    assert everything(target) - before == set()
    assert NAMESPACE not in {one["metadata"]["name"] for one in target.get("namespaces")["items"]}


def everything(target: Target) -> set[str]:
    """The names of all objects on the cluster."""
    kinds = target.run("api-resources", "--verbs=list", "--output=name").split()
    named = target.run(
        *("get", ",".join(kind for kind in kinds if kind not in PASSING), "--all-namespaces"),
        *("--output=custom-columns=K:.kind,G:.apiVersion,S:.metadata.namespace,N:.metadata.name", "--no-headers"),
    )
    return {"/".join(line.split()) for line in named.splitlines()}
