"""The objects of a session: the files of k8s/ with its values, and nothing of another session's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.launcher import manifests
from services.launcher.manifests import Chosen, Object, objects, patched, path_of
from services.launcher.store import RULES

CHOSEN = Chosen(namespace="lab", session="5e551011", holder="anna@laptop", ttl_s=120)


def found(made: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or the one of that name."""
    [one] = [one for one in made if one["kind"] == kind and name in {"", one["metadata"]["name"]}]
    return one


def container(made: list[Object], name: str) -> Any:
    kind = "DaemonSet" if name == "agent" else "Deployment"
    return found(made, kind, name)["spec"]["template"]["spec"]["containers"][0]


def environ(made: list[Object], name: str) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container(made, name)["env"]}


def test_namespace_and_rights_come_first_then_the_aggregator_then_redis_and_agents() -> None:
    order = [f"{one['kind']}/{one['metadata']['name']}" for one in objects(CHOSEN)]
    assert order[0] == "Namespace/lab"
    milestones = ["Lease/podloxx", "Secret/redis", "Deployment/aggregator", "Deployment/redis", "DaemonSet/agent"]
    assert [order.index(one) for one in milestones] == sorted(order.index(one) for one in milestones)
    assert order[-1] == "DaemonSet/agent"
    assert order.index("ClusterRoleBinding/podloxx-lab-aggregator") < order.index("Lease/podloxx")


def test_everything_is_in_the_namespace_and_carries_the_session() -> None:
    made = objects(CHOSEN)
    assert "namespaces/podloxx" not in " ".join(path_of(one) for one in made)
    for one in made:
        assert one["metadata"].get("namespace", "lab") == "lab"
        assert one["metadata"]["labels"]["podloxx/session"] == "5e551011"
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "podloxx-launch"
        if "template" in one.get("spec", {}):
            assert one["spec"]["template"]["metadata"]["labels"]["podloxx/session"] == "5e551011"
            # What selects pods cannot change, and so has no session in it.
            assert "podloxx/session" not in one["spec"]["selector"]["matchLabels"]


def test_rights_are_for_the_namespace_of_the_session() -> None:
    made = objects(CHOSEN)
    [own] = [rule for rule in found(made, "Role")["rules"] if rule["resources"] == ["namespaces"]]
    assert own["resourceNames"] == ["lab"]
    binding = found(made, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == found(made, "ClusterRole")["metadata"]["name"] == "podloxx-lab-aggregator"
    assert [one["namespace"] for one in binding["subjects"]] == ["lab"]


def test_the_lease_says_whose_it_is_and_how_long_it_lives() -> None:
    assert found(objects(CHOSEN), "Lease")["spec"] == {"holderIdentity": "anna@laptop", "leaseDurationSeconds": 120}
    assert "spec" not in found(objects(replace(CHOSEN, ttl_s=None)), "Lease")


def test_pods_of_a_session_end_sooner_than_those_that_stay() -> None:
    def graces(ttl_s: int | None) -> list[int]:
        made = objects(replace(CHOSEN, ttl_s=ttl_s))
        return [
            one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            for one in made
            if one["kind"] in {"Deployment", "DaemonSet"}
        ]

    assert graces(300) == [5, 5, 5]
    assert graces(None) == [15, 5, 15]


def test_passwords_are_new_in_each_session_and_redis_knows_their_hashes() -> None:
    secret = found(objects(CHOSEN), "Secret")["stringData"]
    assert {name.split(".")[0] for name in secret} == set(RULES)
    for user, rules in RULES.items():
        digest = hashlib.sha256(secret[f"{user}.password"].encode()).hexdigest()
        assert secret[f"{user}.acl"] == f"user {user} on #{digest} {rules}"
    assert Chosen().passwords != Chosen().passwords
    assert Chosen().session != Chosen().session
    shown = str(list(manifests.without_passwords(objects(CHOSEN))))
    assert not any(word in shown for word in CHOSEN.passwords.values())


def test_images_have_the_prefix_and_the_pull_policy() -> None:
    made = objects(replace(CHOSEN, image_prefix="registry.example/team", pull_policy="Never"))
    for name, image in (("agent", "capture"), ("aggregator", "aggregator"), ("redis", "redis")):
        assert container(made, name)["image"].startswith(f"registry.example/team/{image}:")
        assert container(made, name)["imagePullPolicy"] == "Never"


def test_settings_reach_the_service_they_are_for() -> None:
    made = objects(replace(CHOSEN, agent={"interface_prefix": "azv|veth"}, aggregator={"cidr": "db=10.9.0.0/16"}))
    assert environ(made, "agent")["PODLOXX_INTERFACE_PREFIX"] == "azv|veth"
    assert environ(made, "aggregator")["PODLOXX_CIDR"] == "db=10.9.0.0/16"
    assert "env" not in container(made, "redis")


def test_nodes_are_chosen_for_agents_alone() -> None:
    made = objects(replace(CHOSEN, node_selector={"pool": "blue"}))
    assert found(made, "DaemonSet")["spec"]["template"]["spec"]["nodeSelector"]["pool"] == "blue"
    assert "pool" not in found(made, "Deployment", "redis")["spec"]["template"]["spec"]["nodeSelector"]


@pytest.mark.parametrize(
    ("capture", "rights"), [("auto", "NET_RAW"), ("ring", "NET_RAW"), ("tcx", "NET_ADMIN"), ("cgroup", "NET_ADMIN")]
)
def test_a_source_gets_the_rights_that_it_needs(capture: str, rights: str) -> None:
    made = objects(replace(CHOSEN, agent={"capture": capture}))
    assert environ(made, "agent")["PODLOXX_CAPTURE"] == capture
    assert container(made, "agent")["securityContext"]["capabilities"]["add"] == [rights, "BPF", "PERFMON"]


def test_the_hosts_control_groups_are_shown_to_who_counts_by_them_and_may_only_be_read() -> None:
    made = objects(replace(CHOSEN, agent={"capture": "cgroup"}))
    [mount] = [one for one in container(made, "agent")["volumeMounts"] if one["mountPath"] == "/sys/fs/cgroup"]
    assert mount["readOnly"]
    volumes = found(made, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    assert [one["hostPath"]["path"] for one in volumes if one["name"] == mount["name"]] == ["/sys/fs/cgroup"]
    assert not any(
        "hostPath" in one for one in found(objects(CHOSEN), "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    )


def test_the_pod_that_tries_it_out_has_the_directory_of_the_nodes_that_agents_need() -> None:
    agent = found(objects(replace(CHOSEN, agent={"capture": "cgroup"})), "DaemonSet")
    [volume] = manifests.checking_pod(agent)["spec"]["volumes"]
    assert volume["hostPath"]["path"] == "/sys/fs/cgroup"


def test_patches_replace_add_and_remove() -> None:
    one: Object = {"spec": {"list": [{"a": 1}], "gone": 2}}
    operations: list[Mapping[str, Any]] = [
        {"op": "replace", "path": "/spec/list/0/a", "value": 3},
        {"op": "add", "path": "/spec/new", "value": [4]},
        {"op": "remove", "path": "/spec/gone"},
        {"op": "add", "path": "/spec/list/-", "value": {"b": 5}},
    ]
    patched(one, operations)
    assert one == {"spec": {"list": [{"a": 3}, {"b": 5}], "new": [4]}}


def test_the_pod_that_tries_it_out_has_the_agents_image_and_rights_and_nothing_else() -> None:
    agent = found(objects(CHOSEN), "DaemonSet")
    pod = manifests.checking_pod(agent)
    [one] = pod["spec"]["containers"]
    [like] = agent["spec"]["template"]["spec"]["containers"]
    assert (one["image"], one["securityContext"]) == (like["image"], like["securityContext"])
    assert pod["spec"]["hostNetwork"]
    assert pod["spec"]["restartPolicy"] == "Never"
    assert not {"volumes", "tolerations"} & set(pod["spec"])
    # It is no agent to the DaemonSet, nor to anybody who counts them.
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "check"
