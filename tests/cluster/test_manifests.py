"""What `kubectl apply -k` deploys is taken by a real API server, with no more rights than it needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import kube_objects
from tests.support.api_server import ApiServer
from tests.support.kube_cleanup import finalize_namespace, remove_cluster_objects, remove_namespace
from tests.support.kube_client import KubeClient, Object, Refused

ROOT = Path(__file__).parents[2]
OVERLAYS = ["base", *sorted(f"overlays/{path.name}" for path in (ROOT / "k8s/overlays").iterdir())]
Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of k8s/ with passwords of its own."""
    copy = tmp_path_factory.mktemp("files") / "k8s"
    shutil.copytree(ROOT / "k8s", copy, ignore=shutil.ignore_patterns("*.env*"))
    subprocess.run(["sh", str(copy / "make-secrets")], check=True)
    return copy


@pytest.fixture(scope="session")
def render(programs: Path, files: Path) -> Callable[[str], list[Object]]:
    """The objects of an overlay."""
    known: dict[str, list[Object]] = {}

    def rendered(overlay: str) -> list[Object]:
        if overlay not in known:
            argv = [str(programs / "kubectl"), "kustomize", str(files / overlay)]
            text = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
            known[overlay] = list(yaml.safe_load_all(text))
        return known[overlay]

    return rendered


@pytest.fixture
def kubectl(api_server: ApiServer, admin: KubeClient, programs: Path, tmp_path: Path) -> Iterator[Kubectl]:
    """kubectl as one who may do everything; what was applied is gone afterwards."""
    base = [str(programs / "kubectl"), f"--kubeconfig={api_server.kubeconfig()}", f"--cache-dir={tmp_path}"]

    def run(*arguments: str) -> str:
        done = subprocess.run([*base, *arguments], check=False, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        # Warnings are there to be heeded.
        assert done.stderr == ""
        return done.stdout

    yield run
    remove_namespace(admin, "podloxx")
    remove_cluster_objects(admin)


def test_every_overlay_is_taken_and_goes_again(admin: KubeClient, kubectl: Kubectl, files: Path) -> None:
    for overlay in OVERLAYS:
        applied = kubectl("apply", "--server-side", "-k", str(files / overlay), "-o", "name").split()
        assert {"daemonset.apps/agent", "deployment.apps/aggregator", "secret/redis"} <= set(applied)
        assert ("deployment.apps/api" in applied) is (overlay in {"overlays/metrics", "overlays/persistent"})
    kubectl("delete", "--wait=false", "-k", str(files / "overlays/metrics"))
    # No controller runs here that would.
    finalize_namespace(admin, "podloxx")
    assert left(admin) == []


def left(admin: KubeClient) -> list[str]:
    """What carries our name."""
    paths = (
        "/api/v1/namespaces",
        *(f"/apis/rbac.authorization.k8s.io/v1/{one}" for one in ("clusterroles", "clusterrolebindings")),
    )
    found = [one for path in paths for one in admin.get(path, labelSelector="app.kubernetes.io/name=podloxx")["items"]]
    return [one["metadata"]["name"] for one in found]


def agent(objects: list[Object]) -> Any:
    [found] = [one["spec"]["template"]["spec"]["containers"][0] for one in objects if one["kind"] == "DaemonSet"]
    return found


def test_overlays_change_what_they_say(render: Callable[[str], list[Object]]) -> None:
    source = {"name": "PODLOXX_CAPTURE", "value": "auto"}
    plain = agent(render("base"))
    assert source in plain["env"]
    assert plain["image"].startswith("podloxx/capture:0.")
    tcx = agent(render("overlays/tcx"))
    assert {**source, "value": "tcx"} in tcx["env"]
    assert tcx["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "BPF", "PERFMON"]
    by_group = agent(render("overlays/cgroup"))
    assert {**source, "value": "cgroup"} in by_group["env"]
    assert {"name": "control-groups", "mountPath": "/sys/fs/cgroup", "readOnly": True} in by_group["volumeMounts"]
    assert by_group["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "BPF", "PERFMON"]
    old = agent(render("overlays/old-kernels"))["securityContext"]
    assert old["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW", "SYS_ADMIN", "SYS_RESOURCE"]}
    pulled = {c["imagePullPolicy"] for one in render("overlays/kind") for c in containers(one)}
    assert pulled == {"Never"}
    policies = {
        one["metadata"]["name"]: one["spec"] for one in render("overlays/node-cidrs") if one["kind"] == "NetworkPolicy"
    }
    assert policies["redis"]["ingress"][0]["from"][1] == {"ipBlock": {"cidr": "10.0.0.0/8"}}
    [counted] = [
        c for one in render("overlays/metrics") if one["metadata"]["name"] == "aggregator" for c in containers(one)
    ]
    assert {"name": "PODLOXX_METRICS_LISTEN", "value": ":9337"} in counted["env"]
    assert counted["ports"] == [{"name": "metrics", "containerPort": 9337}]
    images = {c["image"].split(":")[0] for one in render("overlays/persistent") for c in containers(one)}
    assert images == {f"podloxx/{name}" for name in ("capture", "aggregator", "api", "redis")}


def containers(one: Object) -> list[Any]:
    """A workload's containers; none where it is none."""
    template = one.get("spec", {}).get("template", {})
    return list(template.get("spec", {}).get("containers", []))


def test_all_but_the_agent_meet_the_restricted_level(
    admin: KubeClient, namespace: str, render: Callable[[str], list[Object]]
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.patch(kube_objects.namespace(namespace), {"metadata": {"labels": labels}})
    refused = {}
    for one in render("overlays/persistent"):
        if one["kind"] in {"Deployment", "DaemonSet"}:
            pod = {**one["spec"]["template"], "apiVersion": "v1", "kind": "Pod"}
            pod["metadata"] = {"name": one["metadata"]["name"], "namespace": namespace}
            try:
                admin.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
            except Refused as refusal:
                refused[one["metadata"]["name"]] = str(refusal)
    assert list(refused) == ["agent"]
    assert "PodSecurity" in refused["agent"]


ALLOWED = {
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "nodes", "list"),
    ("", "nodes", "watch"),
    ("", "services", "list"),
    ("", "services", "watch"),
    ("discovery.k8s.io", "endpointslices", "list"),
    ("discovery.k8s.io", "endpointslices", "watch"),
    ("networking.k8s.io", "servicecidrs", "list"),
    ("networking.k8s.io", "servicecidrs", "watch"),
}
"""What the aggregator may do in every namespace."""
ALLOWED_HERE = {
    ("coordination.k8s.io", "leases", "podloxx", "get"),
    ("", "namespaces", "podloxx", "get"),
    ("", "namespaces", "podloxx", "delete"),
}


def test_the_aggregator_may_do_what_it_needs_and_nothing_else(
    api_server: ApiServer, kubectl: Kubectl, files: Path
) -> None:
    kubectl("apply", "--server-side", "-k", str(files / "base"))
    kubectl("create", "serviceaccount", "other", "--namespace=podloxx")
    account, other = (api_server.client_of(api_server.token("podloxx", name)) for name in ("aggregator", "other"))
    for namespace, here in (("default", set()), ("podloxx", ALLOWED_HERE)):
        assert may(account, namespace) - may(other, namespace) == ALLOWED | here
    for group, resource, _ in ALLOWED:
        account.get(f"/apis/{group}/v1/{resource}" if group else f"/api/v1/{resource}")
    account.get("/api/v1/namespaces/podloxx")
    for path in ("/api/v1/secrets", "/api/v1/namespaces", "/api/v1/namespaces/default", "/api/v1/configmaps"):
        assert forbidden(account, "GET", path), path
    inside = "/api/v1/namespaces/podloxx"
    for method, path in (
        ("GET", f"{inside}/secrets/redis"),
        ("GET", f"{inside}/pods/x/log"),
        ("DELETE", f"{inside}/pods/x"),
        ("DELETE", "/api/v1/namespaces/default"),
        ("PATCH", inside),
        ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/podloxx/leases/podloxx"),
        ("POST", f"{inside}/pods/x/exec"),
    ):
        assert forbidden(account, method, path), (method, path)


def forbidden(account: KubeClient, method: str, path: str) -> bool:
    """Whether just this is refused."""
    try:
        account.request(method, path, {} if method in {"POST", "PATCH"} else None)
    except Refused as refusal:
        return refusal.reason == "Forbidden"
    return False


def may(account: KubeClient, namespace: str) -> set[tuple[str, ...]]:
    """What an account may do in a namespace: API group, resource, name where it is for one alone, verb."""
    group = "authorization.k8s.io"
    review = {"apiVersion": f"{group}/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    rules = account.request("POST", f"/apis/{group}/v1/selfsubjectrulesreviews", review)["status"]["resourceRules"]
    found = set()
    for rule in rules:
        for api in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames") or [""]:
                    found |= {(api, resource, *([name] if name else []), verb) for verb in rule["verbs"]}
    return found
