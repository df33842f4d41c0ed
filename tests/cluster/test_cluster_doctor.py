"""What would hinder podloxx in a cluster, as a real API server tells it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from services.launcher import cluster_doctor
from services.launcher.context import Context
from services.runtime.findings import Finding, State
from tests.support import kube_objects
from tests.support.api_server import ApiServer
from tests.support.kube_client import KubeClient, Object
from tests.support.launched import PROGRAM, ROOT


def node(
    name: str, kernel: str, *, ready: bool = True, system: str = "linux", labels: dict[str, str] | None = None
) -> Object:
    one = kube_objects.node(name)
    one["metadata"]["labels"] |= labels or {}
    one["status"]["conditions"] = [{"type": "Ready", "status": str(ready)}]
    info = dict.fromkeys(
        ("machineID", "systemUUID", "bootID", "osImage", "containerRuntimeVersion", "kubeletVersion"), ""
    )
    one["status"]["nodeInfo"] = {**info, "kubeProxyVersion": "", "architecture": "amd64", "kernelVersion": kernel}
    one["status"]["nodeInfo"]["operatingSystem"] = system
    return one


async def found(kubeconfig: Path, namespace: str) -> dict[str, Finding]:
    """What is found, by what it is about."""
    return {one.about: one for one in await cluster_doctor.look(Context(str(kubeconfig), "", namespace))}


async def test_a_cluster_where_nothing_hinders(api_server: ApiServer, admin: KubeClient, namespace: str) -> None:
    admin.create(node("n1", "6.1.0-18-amd64"))
    findings = await found(api_server.kubeconfig(), f"{namespace}-new")
    assert {one.state for one in findings.values()} == {State.OK}
    assert list(findings) == ["cluster", "rights", "port-forward", "namespace", "nodes", "kernels", "network"]
    assert findings["cluster"].text.startswith("Kubernetes v1.")
    assert findings["nodes"].text == "1 may have an agent"
    assert findings["network"].text.startswith("n1: not recognised (no DaemonSet of a known network")
    # Nothing was created by looking.
    assert [one for one in admin.get("/api/v1/namespaces")["items"] if one["metadata"]["name"].endswith("-new")] == []


async def test_rights_that_are_missing_are_listed(api_server: ApiServer, admin: KubeClient, namespace: str) -> None:
    findings = await found(api_server.kubeconfig("reader", "readers"), namespace)
    assert findings["rights"].state is State.PROBLEM
    assert "create namespaces" in findings["rights"].text
    assert findings["rights"].mend.startswith("ask whoever runs the cluster for them; `kubectl auth can-i")
    expected = "missing: get pods/portforward in the namespace, create pods/portforward in the namespace"
    assert findings["port-forward"].text == expected
    assert findings["namespace"].state is State.PROBLEM
    assert findings["nodes"].state is State.PROBLEM
    admin.create(kube_objects.cluster_role("forwards", ("", "pods/portforward", ["get", "create"])))
    admin.create(kube_objects.cluster_role_binding("forwards", "reader"))
    again = await found(api_server.kubeconfig("reader", "readers"), namespace)
    assert again["port-forward"].state is State.OK


async def test_a_namespace_that_is_there_is_told(api_server: ApiServer, namespace: str) -> None:
    findings = await found(api_server.kubeconfig(), namespace)
    assert (findings["namespace"].state, findings["namespace"].text) == (State.WARNING, f"{namespace} is there already")


@pytest.mark.parametrize(
    ("more", "about", "state", "text"),
    [
        (node("old", "5.4.0-150"), "kernels", State.WARNING, "older than 5.5: old (5.4.0-150)"),
        (node("older", "5.6.1"), "kernels", State.WARNING, "older than 5.8: older (5.6.1)"),
        (node("away", "6.1.0", ready=False), "nodes", State.WARNING, "2 may have an agent; not Ready: away"),
        (
            node("win", "10.0.20348", system="windows"),
            "nodes",
            State.WARNING,
            "1 may have an agent; none has win (Windows)",
        ),
        (
            node("fargate-1", "5.10.0", labels={"eks.amazonaws.com/compute-type": "fargate"}),
            "nodes",
            State.WARNING,
            "1 may have an agent; none has fargate-1 (Fargate)",
        ),
    ],
    ids=["5.4", "5.6", "away", "windows", "fargate"],
)
async def test_what_nodes_lack_is_told(
    api_server: ApiServer, admin: KubeClient, namespace: str, more: Object, about: str, state: State, text: str
) -> None:
    admin.create(node("n1", "6.1.0"))
    admin.create(more)
    one = (await found(api_server.kubeconfig(), namespace))[about]
    assert (one.state, one.text) == (state, text)
    assert one.mend


def cilium(namespace: str) -> Object:
    """The DaemonSet as Cilium's chart makes it, as far as it matters."""
    labels = {"k8s-app": "cilium"}
    agent = {"name": "cilium-agent", "image": "quay.io/cilium/cilium:v1.15.6", "command": ["cilium-agent"]}
    spec = {"hostNetwork": True, "nodeSelector": {"kubernetes.io/os": "linux"}, "containers": [agent]}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "cilium", "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def cilium_config(namespace: str) -> Object:
    data = {"kube-proxy-replacement": "true", "enable-bpf-masquerade": "true", "datapath-mode": "veth"}
    metadata = {"name": "cilium-config", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def test_a_network_that_hides_half_is_a_warning_and_says_what_helps(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    for one in (node("n1", "6.1.0"), node("n2", "5.4.0"), cilium(namespace), cilium_config(namespace)):
        admin.create(one)
    listed = await cluster_doctor.look(Context(str(api_server.kubeconfig()), "", f"{namespace}-new"))
    hidden, old = (one for one in listed if one.about == "network")
    assert (hidden.state, old.state) == (State.WARNING, State.OK)
    assert hidden.text.startswith(f"n1: Cilium, BPF host routing (DaemonSet {namespace}/cilium; ")
    assert "--capture cgroup counts it at sockets" in hidden.mend
    assert old.text.startswith("n2: Cilium, host routing (legacy) ")
    assert "agents count by ring" in old.text


async def test_who_may_list_no_daemon_sets_is_told_by_pods_and_who_may_no_pods_by_nodes(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    admin.create(node("n1", "6.1.0"))
    admin.create(cilium(namespace))
    admin.create(kube_objects.cluster_role("nodes-only", ("", "nodes", ["list"])))
    admin.create(kube_objects.cluster_role_binding("nodes-only", "reader"))
    findings = await found(api_server.kubeconfig("reader", "readers"), namespace)
    expected = "n1: not recognised (DaemonSets and pods may not be listed, nothing on the node)"
    assert findings["network"].text.startswith(expected)
    assert findings["network"].state is State.OK
    flannel = kube_objects.pod("kube-system", "kube-flannel-ds-x", node="n1", owner=("DaemonSet", "kube-flannel-ds"))
    admin.create(flannel)
    try:
        admin.create(kube_objects.cluster_role("pods-too", ("", "pods", ["list"])))
        admin.create(kube_objects.cluster_role_binding("pods-too", "reader"))
        findings = await found(api_server.kubeconfig("reader", "readers"), namespace)
        assert findings["network"].text.startswith("n1: flannel (DaemonSet kube-system/kube-flannel-ds); ")
    finally:
        admin.delete(flannel)


async def test_a_cluster_without_nodes_for_agents_is_a_problem(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    admin.create(node("win", "10.0.20348", system="windows"))
    assert (await found(api_server.kubeconfig(), namespace))["nodes"].state is State.PROBLEM


def test_it_is_a_command(api_server: ApiServer, namespace: str) -> None:
    argv = [str(PROGRAM), "doctor", f"--kubeconfig={api_server.kubeconfig()}", f"--namespace={namespace}-new", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
    said = json.loads(done.stdout)
    # There is no node here, which is a problem.
    assert done.returncode == 1
    assert [one["about"] for one in said["findings"] if one["state"] == "problem"] == ["nodes"]


def test_a_cluster_that_is_away_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "a", "user": {"token": "none"}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "current-context": "a",
            }
        )
    )
    argv = [str(PROGRAM), "doctor", f"--kubeconfig={path}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "the API server at https://127.0.0.1:1 cannot be reached" in done.stdout
    assert "HTTPS_PROXY" in done.stdout
