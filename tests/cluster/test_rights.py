"""What podloxx may do on a real cluster, with its own tokens, and which Pod Security level its pods meet."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

import pytest

from tests.support.kube_podloxx import NAMESPACE, Podloxx
from tests.support.kube_target import KubectlError, Target

Rights = set[tuple[str, str, str, str]]
"""Group, resource, name (empty: any) and verb."""

EVERYBODY: Final[Rights] = {
    (group, resource, "", "create")
    for group, resource in (
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
    )
} | {("certificates.k8s.io", "clustertrustbundles", "", verb) for verb in ("get", "list", "watch")}
"""What Kubernetes lets every account do: ask who it is and what it may, and which certificates are trusted."""
EVERYWHERE: Final[Rights] = {
    (group, resource, "", verb)
    for group, resource in (
        ("", "pods"),
        ("", "nodes"),
        ("", "services"),
        ("discovery.k8s.io", "endpointslices"),
        ("networking.k8s.io", "servicecidrs"),
    )
    for verb in ("list", "watch")
}
AT_HOME: Final[Rights] = {
    ("coordination.k8s.io", "leases", NAMESPACE, "get"),
    ("", "namespaces", NAMESPACE, "get"),
    ("", "namespaces", NAMESPACE, "delete"),
}
UNSEEN: Final = [
    ("secrets", NAMESPACE),
    ("secrets", "kube-system"),
    ("configmaps", NAMESPACE),
    ("serviceaccounts", NAMESPACE),
    ("deployments.apps", NAMESPACE),
    ("replicasets.apps", NAMESPACE),
    ("daemonsets.apps", NAMESPACE),
    ("jobs.batch", NAMESPACE),
    ("events", NAMESPACE),
    ("leases.coordination.k8s.io", NAMESPACE),
    ("leases.coordination.k8s.io", "kube-node-lease"),
    ("networkpolicies.networking.k8s.io", NAMESPACE),
    ("namespaces", ""),
    ("persistentvolumes", ""),
    ("clusterroles.rbac.authorization.k8s.io", ""),
    ("customresourcedefinitions.apiextensions.k8s.io", ""),
]
"""What a token is refused to list, by real requests."""


@pytest.fixture(scope="module", params=["aggregator", "default"])
def account(request: pytest.FixtureRequest) -> str:
    """Each service account of the namespace."""
    return str(request.param)


@pytest.fixture(scope="module")
def bearer(podloxx: Podloxx, account: str, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """The cluster as whoever has a token of the account sees it."""
    podloxx.up()
    target = podloxx.target
    config = json.loads(target.run("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    token = target.run("create", "token", account, f"--namespace={NAMESPACE}").strip()
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    path = tmp_path_factory.mktemp(account) / "kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return dataclasses.replace(target, kubeconfig=path)


@pytest.mark.usefixtures("deployed")
def test_accounts_are_all_known(target: Target) -> None:
    found = target.get(f"--namespace={NAMESPACE}", "serviceaccounts")["items"]
    assert {one["metadata"]["name"] for one in found} == {"aggregator", "default"}


@pytest.mark.parametrize("namespace", [NAMESPACE, "kube-system", "default"])
def test_a_token_has_just_these_rights(bearer: Target, account: str, namespace: str) -> None:
    expected = set(EVERYBODY)
    if account == "aggregator":
        expected |= EVERYWHERE | (AT_HOME if namespace == NAMESPACE else set())
    assert rights(bearer, namespace) == expected


def rights(bearer: Target, namespace: str) -> Rights:
    """All that the API server lets it do in a namespace and in none, as it says itself."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    answer = json.loads(bearer.run("create", f"--raw={path}", "--filename=-", stdin=json.dumps(review)))
    assert answer["status"]["incomplete"] is False
    return {
        (group, resource, name, verb)
        for rule in answer["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


def test_a_token_is_refused_all_else(bearer: Target) -> None:
    for resource, namespace in UNSEEN:
        with pytest.raises(KubectlError, match="Forbidden"):
            bearer.run("get", resource, *([f"--namespace={namespace}"] if namespace else []))


def test_a_token_changes_nothing_and_enters_nothing(bearer: Target, account: str, deployed: Podloxx) -> None:
    pod = deployed.target.get(f"--namespace={NAMESPACE}", "pods")["items"][0]["metadata"]["name"]
    node = deployed.target.get("nodes")["items"][0]["metadata"]["name"]
    home = f"--namespace={NAMESPACE}"
    for refused in (
        ["exec", home, pod, "--", "true"],
        ["logs", home, pod],
        ["port-forward", home, pod, ":6379"],
        ["delete", home, "pod", pod],
        ["label", home, "pod", pod, "a=b"],
        ["annotate", "node", node, "a=b"],
        ["cordon", node],
        ["run", home, "new", "--image=none"],
        ["create", home, "token", account],
        ["create", home, "secret", "generic", "new"],
        ["create", "namespace", "new"],
        ["create", "clusterrolebinding", "new", "--clusterrole=cluster-admin", "--user=new"],
        ["delete", "namespace", "default"],
        ["get", f"--raw=/api/v1/nodes/{node}/proxy/pods"],
        ["get", f"--raw=/api/v1/namespaces/{NAMESPACE}/services/redis:6379/proxy/"],
    ):
        with pytest.raises(KubectlError, match=r"(?i)forbidden"):
            bearer.run(*refused)


@pytest.mark.usefixtures("deployed")
def test_only_the_aggregator_has_a_token(target: Target) -> None:
    for pod in target.get(f"--namespace={NAMESPACE}", "pods")["items"]:
        volumes = [one["name"] for one in pod["spec"].get("volumes", []) if "projected" in one]
        expected = 1 if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "aggregator" else 0
        assert len(volumes) == expected, pod["metadata"]["name"]


def test_all_but_the_agent_meet_the_level_restricted(deployed: Podloxx, target: Target, work: str) -> None:
    namespace = f"{work}-restricted"
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    target.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": enforced}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "aggregator", "namespace": namespace}},
    )
    try:
        verdicts = {pod["metadata"]["name"]: verdict(target, pod) for pod in pods_of(deployed, namespace)}
    finally:
        target.run("delete", "namespace", namespace, "--wait=false")
    refused = {name: why for name, why in verdicts.items() if why}
    assert set(verdicts) == {"agent", "aggregator", "api", "redis"}
    assert set(refused) == {"agent"}
    assert "violates PodSecurity" in refused["agent"]
    assert "hostNetwork" in refused["agent"] or "host namespaces" in refused["agent"]


def pods_of(deployed: Podloxx, namespace: str) -> list[dict[str, Any]]:
    """A pod as each of the workloads would make it, in another namespace."""
    found = []
    for one in deployed.objects():
        if one["kind"] in {"Deployment", "DaemonSet", "StatefulSet"}:
            template = one["spec"]["template"]
            metadata = {**template["metadata"], "name": one["metadata"]["name"], "namespace": namespace}
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return found


def verdict(target: Target, pod: dict[str, Any]) -> str:
    """Why the API server would not take the pod; empty where it would."""
    try:
        target.run("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
    except KubectlError as error:
        return str(error)
    return ""
