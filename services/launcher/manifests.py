"""What is applied to a cluster: the files of k8s/ with the values of one session, in the order of creation."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from services.launcher.store import RULES

Object = dict[str, Any]
"""A Kubernetes object, as YAML or JSON has it."""

NAME_LABEL: Final = "app.kubernetes.io/name"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "podloxx-launch"
"""Who applies, in that label and as field manager."""
SESSION_LABEL: Final = "podloxx/session"
LEASE: Final = "podloxx"
OURS: Final = f"{MANAGED_LABEL}={MANAGER}"
"""Selects what launchers made."""
_IN_FILES: Final = "podloxx"
"""The namespace that the files name."""
_CLUSTER_SCOPED: Final = ("Namespace", "ClusterRole", "ClusterRoleBinding")
_GRACE_S: Final = 5
"""What pods of a session may take to end: when it is removed nobody looks any more, and what is killed loses nothing."""
_SOURCES: Final = {name: f"overlays/{name}/agent.yaml" for name in ("tcx", "cgroup")}
"""What a source needs other than the base gives."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the user chose for a session in a cluster; `ttl_s` is None where it is to stay."""

    namespace: str = "podloxx"
    session: str = field(default_factory=lambda: secrets.token_hex(4))
    holder: str = ""
    ttl_s: int | None = None
    image_prefix: str = "podloxx"
    pull_policy: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    agent: Mapping[str, str] = field(default_factory=dict)
    """Settings of the agents, such as `capture`."""
    shards: int = 1
    aggregator: Mapping[str, str] = field(default_factory=dict)
    passwords: Mapping[str, str] = field(default_factory=lambda: {name: secrets.token_hex(32) for name in RULES})

    @property
    def cluster_name(self) -> str:
        """The name of what is not in the namespace, so that two sessions do not collide."""
        return f"podloxx-{self.namespace}-aggregator"


def folder() -> Path:
    """Where the files are: in an installed package beside this module, in a checkout at its top."""
    installed = Path(__file__).parent / "k8s"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "k8s"


def objects(chosen: Chosen) -> list[Object]:
    """Every object of a session, in the order in which they are created."""
    base = folder() / "base"
    listed: list[str] = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    tags = {
        one["name"]: one["newTag"]
        for one in yaml.safe_load((folder() / "images/kustomization.yaml").read_text())["images"]
    }
    made = []
    for name in listed:
        made += [_with_values(one, chosen, tags) for one in yaml.safe_load_all((base / name).read_text())]
        if name == "lease.yaml":
            made.append(_labelled(_secret(chosen), chosen))
    return made


def _with_values(one: Object, chosen: Chosen, tags: Mapping[str, str]) -> Object:
    """The one place where a session's values go into what the files say."""
    metadata, kind = one["metadata"], one["kind"]
    if kind == "Namespace":
        metadata["name"] = chosen.namespace
    elif kind in _CLUSTER_SCOPED:
        metadata["name"] = chosen.cluster_name
    else:
        metadata["namespace"] = chosen.namespace
    if kind == "ClusterRoleBinding":
        one["roleRef"]["name"] = chosen.cluster_name
    for subject in one.get("subjects", []):
        subject["namespace"] = chosen.namespace
    for rule in one.get("rules", []):
        if "namespaces" in rule["resources"]:
            rule["resourceNames"] = [chosen.namespace]
    if kind == "Lease" and chosen.ttl_s is not None:
        one["spec"] = {"holderIdentity": chosen.holder, "leaseDurationSeconds": chosen.ttl_s}
    if kind in {"Deployment", "DaemonSet"}:
        _workload(one, chosen, tags)
    return _labelled(one, chosen)


def _workload(one: Object, chosen: Chosen, tags: Mapping[str, str]) -> None:
    name = one["metadata"]["name"]
    if name == "agent" and (overlay := _SOURCES.get(chosen.agent.get("capture", ""))):
        patched(one, yaml.safe_load((folder() / overlay).read_text()))
    pod = one["spec"]["template"]["spec"]
    pod["nodeSelector"] |= chosen.node_selector if name == "agent" else {}
    [container] = pod["containers"]
    image = container["image"]
    container["image"] = f"{chosen.image_prefix}/{image.removeprefix('podloxx/')}:{tags[image]}"
    if chosen.ttl_s is not None:
        pod["terminationGracePeriodSeconds"] = min(_GRACE_S, pod["terminationGracePeriodSeconds"])
    if chosen.pull_policy:
        container["imagePullPolicy"] = chosen.pull_policy
    settings = {"agent": chosen.agent, "aggregator": chosen.aggregator}.get(name, {})
    if chosen.shards > 1 and name in {"agent", "aggregator"}:
        settings = {**settings, "shards": str(chosen.shards)}
    if chosen.shards > 1 and name == "aggregator":
        # One for each shard, and one for the cluster's totals.
        one["spec"]["replicas"] = chosen.shards + 1
    given = {f"PODLOXX_{key.upper()}": value for key, value in settings.items()}
    kept = [one for one in container.get("env", []) if one["name"] not in given]
    if kept or given:
        container["env"] = [*kept, *({"name": key, "value": value} for key, value in given.items())]


def _labelled(one: Object, chosen: Chosen) -> Object:
    labels = {MANAGED_LABEL: MANAGER, SESSION_LABEL: chosen.session}
    one["metadata"]["labels"] |= labels
    if "template" in one.get("spec", {}):
        one["spec"]["template"]["metadata"]["labels"] |= labels
    return one


def _secret(chosen: Chosen) -> Object:
    """The passwords, and the lines that tell Redis of them; as k8s/make-secrets writes them."""
    content = {}
    for user, rules in RULES.items():
        password = chosen.passwords[user]
        content[f"{user}.password"] = password
        content[f"{user}.acl"] = f"user {user} on #{hashlib.sha256(password.encode()).hexdigest()} {rules}"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "redis",
            "namespace": chosen.namespace,
            "labels": {NAME_LABEL: "podloxx", COMPONENT_LABEL: "redis"},
        },
        "stringData": content,
    }


def patched(one: Object, operations: list[Mapping[str, Any]]) -> None:
    """Apply what a file of an overlay changes: JSON patches that replace, add to objects or at the end of lists, or remove."""
    for operation in operations:
        *way, last = operation["path"].lstrip("/").split("/")
        where: Any = one
        for step in way:
            where = where[_key(where, step)]
        if operation["op"] == "remove":
            del where[_key(where, last)]
        elif last == "-":
            where.append(operation["value"])
        else:
            where[_key(where, last)] = operation["value"]


def _key(where: Any, step: str) -> Any:
    return int(step) if isinstance(where, list) else step


def checking_pod(agent: Object) -> Object:
    """A pod that has an agent's image, rights and place, and ends at once: whether the cluster lets agents run."""
    template = agent["spec"]["template"]
    pod = {name: value for name, value in template["spec"].items() if name not in {"tolerations", "volumes"}}
    # What is in the namespace is not there yet; directories of the node's may be forbidden like rights.
    if of_node := [one for one in template["spec"]["volumes"] if "hostPath" in one]:
        pod["volumes"] = of_node
    [container] = template["spec"]["containers"]
    kept = ("image", "imagePullPolicy", "securityContext", "resources")
    pod["containers"] = [
        {
            "name": "check",
            **{name: container[name] for name in kept if name in container},
            "command": ["python3", "-c", ""],
        }
    ]
    labels = template["metadata"]["labels"] | {COMPONENT_LABEL: "check"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "check", "namespace": agent["metadata"]["namespace"], "labels": labels},
        "spec": {**pod, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0},
    }


def path_of(one: Object) -> str:
    """Where an object of that kind, namespace and name is."""
    version, kind, metadata = one["apiVersion"], one["kind"], one["metadata"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    inside = "" if kind in _CLUSTER_SCOPED else f"/namespaces/{metadata['namespace']}"
    plural = "networkpolicies" if kind == "NetworkPolicy" else f"{kind.lower()}s"
    return f"{base}{inside}/{plural}/{metadata['name']}"


def without_passwords(made: list[Object]) -> Iterator[Object]:
    """The objects as they may be shown."""
    for one in made:
        yield {**one, "stringData": dict.fromkeys(one["stringData"], "***")} if one["kind"] == "Secret" else one
