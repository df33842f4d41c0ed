"""What is said of a real cluster's network is true, and what its user may not see is no failure."""

from __future__ import annotations

import dataclasses
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kube_objects
from tests.support.kube_target import Target
from tests.support.launched import PROGRAM, ROOT


@pytest.fixture
def bearer(target: Target, tmp_path: Path) -> Iterator[Target]:
    """The cluster as somebody sees it who may list nodes, and nothing else."""
    name = f"plx-{secrets.token_hex(4)}"
    target.apply(
        kube_objects.namespace(name),
        kube_objects.service_account(name, "looks"),
        kube_objects.cluster_role(name, ("", "nodes", ["list"])),
        kube_objects.cluster_role_binding(name, f"{name}/looks"),
    )
    try:
        config = json.loads(target.run("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
        token = target.run("create", "token", "looks", f"--namespace={name}").strip()
        config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        yield dataclasses.replace(target, kubeconfig=path)
    finally:
        target.run("delete", f"clusterrole/{name}", f"clusterrolebinding/{name}", f"namespace/{name}", "--wait=false")


def networks(target: Target) -> list[str]:
    """What `doctor` says of the nodes' networks."""
    argv = [str(PROGRAM), "doctor", f"--kubeconfig={target.kubeconfig}", f"--namespace=plx-{secrets.token_hex(4)}"]
    done = subprocess.run([*argv, "--json"], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)["findings"]
    return [one["text"] for one in found if one["about"] == "network"]


def test_the_tests_own_network_is_nobodys(target: Target) -> None:
    if target.api_killed is None:
        pytest.skip("without a cluster that is the tests' own, whose network is known")
    [said] = networks(target)
    # Kubelet does not tell which plugins its container runtime has.
    assert said.startswith("node1, node2: not recognised (no DaemonSet of a known network, nothing on the node)")
    assert "; agents count by ebpf (auto" in said


def test_who_may_see_nothing_of_it_is_told_so(bearer: Target) -> None:
    said = networks(bearer)
    assert said
    if bearer.api_killed is not None:
        assert said[0].startswith("node1, node2: not recognised (DaemonSets and pods may not be listed, nothing on the")
