"""An admission policy that lets no pod into a namespace, in the words of whoever forbids it elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support import kube_objects
from tests.support.kube_client import KubeClient, Object, Refused
from tests.support.wait import wait_until

_GROUP = "admissionregistration.k8s.io/v1"


@contextmanager
def forbidding(client: KubeClient, namespace: str, words: str) -> Iterator[None]:
    """Inside, pods are refused there with `words`; the API server adds which policy it was."""
    name = f"{namespace}-pods"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    policy: Object = {
        "apiVersion": _GROUP,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
            "validations": [{"expression": "false", "messageExpression": json.dumps(words), "reason": "Forbidden"}],
        },
    }
    binding: Object = {
        "apiVersion": _GROUP,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    client.create(policy)
    try:
        client.create(binding)
        wait_until(lambda: _forbids(client, namespace), "the policy is known", timeout_s=30)
        yield
    finally:
        for one in (binding, policy):
            client.delete(one)


def _forbids(client: KubeClient, namespace: str) -> bool:
    try:
        client.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", kube_objects.pod(namespace, "one"))
    except Refused as refused:
        return refused.status == 403
    return False
