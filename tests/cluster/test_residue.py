"""What is left of podloxx on a real cluster after `kubectl delete -k`: nothing."""

from __future__ import annotations

import pytest

from tests.support.kube_podloxx import NAMESPACE, Podloxx
from tests.support.kube_target import Target


@pytest.mark.usefixtures("work")
def test_nothing_is_left_after_delete(podloxx: Podloxx, target: Target) -> None:
    podloxx.down()
    before = target.everything()
    podloxx.up()
    brought = target.everything() - before
    assert {"ClusterRole", "DaemonSet", "Deployment", "Namespace", "Pod", "Secret"} <= {
        one.split()[0] for one in brought
    }
    podloxx.down()
    assert target.everything() == before
    assert NAMESPACE not in {one["metadata"]["name"] for one in target.get("namespaces")["items"]}
