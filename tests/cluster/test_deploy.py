"""Sessions come into a cluster in order, take nothing over, and go without a trace: against a real API server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from services.launcher import deploy, lease, progress, status, teardown
from services.launcher.manifests import Chosen, objects
from services.launcher.progress import Progress
from services.launcher.teardown import Found
from services.runtime.errors import LeftoverError, PodloxxError, PrivilegeError, UsageError
from services.runtime.kubernetes_api import KubernetesApi
from tests.support import kube_objects
from tests.support.api_server import ApiServer
from tests.support.connect_proxy import ConnectProxy, proxying
from tests.support.kube_cleanup import remove_cluster_objects, remove_namespace
from tests.support.kube_client import KubeClient, Object
from tests.support.kube_controllers import Controllers, controlling, waiting
from tests.support.kube_policy import forbidding
from tests.support.wait import until

OURS = "app.kubernetes.io/managed-by=podloxx-launch"


@pytest.fixture
def chosen(api_server: ApiServer, admin: KubeClient) -> Iterator[Chosen]:
    """A session of the test's own."""
    one = Chosen(namespace=f"plx-{secrets.token_hex(4)}", holder="anna@laptop", ttl_s=300)
    yield one
    if not api_server.pids:
        # The test failed while it had it down; the next one is not to.
        api_server.start()
    remove_namespace(admin, one.namespace)
    remove_cluster_objects(admin)


@pytest.fixture
async def api(api_server: ApiServer) -> AsyncIterator[KubernetesApi]:
    """The launcher's own client, of one who may do everything."""
    one = await KubernetesApi.connect(str(api_server.kubeconfig()))
    yield one
    await one.close()


@pytest.fixture
def controllers(admin: KubeClient) -> Iterator[Controllers]:
    with controlling(admin) as one:
        yield one


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def shown(told: list[str], monkeypatch: pytest.MonkeyPatch) -> Progress:
    """What is told goes into `told`; nobody waits for long."""
    monkeypatch.setattr(progress, "_SURE_S", 0.3)
    return Progress(told.append, told.append, interval_s=0.05, longest_s=10.0, enough_s=1.0)


def everything(admin: KubeClient) -> list[tuple[str, str, str]]:
    """Kind, name and uid of whatever a session could leave outside of its namespace, and of namespaces."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    found = []
    for path in ("/api/v1/namespaces", f"{rbac}/clusterroles", f"{rbac}/clusterrolebindings"):
        found += [(path, one["metadata"]["name"], one["metadata"]["uid"]) for one in admin.get(path)["items"]]
    return sorted(found)


async def started(api: KubernetesApi, chosen: Chosen, shown: Progress) -> Found:
    session = await deploy.claim(api, chosen, shown)
    await deploy.deploy(api, chosen, session, shown)
    return session


async def test_a_session_comes_in_order_and_goes_without_a_trace(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, controllers: Controllers, shown: Progress, told: list[str]
) -> None:
    before = everything(admin)
    session = await started(api, chosen, shown)
    assert controllers.made == ["aggregator", "redis", "agent", "agent"]
    assert told[0] == "[1/3] aggregator"
    assert told[-1].startswith("[3/3] ")
    workload = admin.get(f"/apis/apps/v1/namespaces/{chosen.namespace}/daemonsets/agent")
    assert workload["metadata"]["labels"]["podloxx/session"] == chosen.session
    assert {entry["manager"] for entry in workload["metadata"]["managedFields"]} >= {"podloxx-launch"}
    assert (
        admin.get(f"/api/v1/namespaces/{chosen.namespace}/pods", labelSelector="app.kubernetes.io/component=check")[
            "items"
        ]
        == []
    )
    role = admin.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{chosen.cluster_name}")
    [owner] = role["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Namespace", session.uid)
    assert len(await teardown.leftovers(api, session)) == 3
    await teardown.remove(api, session, shown.say)
    assert await teardown.leftovers(api, session) == []
    assert everything(admin) == before


@pytest.mark.usefixtures("controllers")
async def test_the_status_of_a_session_is_what_kubernetes_knows(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress
) -> None:
    for name in ("n1", "n2", "n3"):
        admin.create(kube_objects.node(name))
    session = await started(api, chosen, shown)
    await lease.renew(api, session.namespace, session.uid)
    found = await status._of_the_cluster(api, chosen.namespace)
    assert found["session"]["holder"] == "anna@laptop"
    assert found["session"]["renewedSecondsAgo"] < 10
    assert {name: one["ready"] for name, one in found["services"].items()} == {
        "aggregator-5d4f-x": True,
        "redis-5d4f-x": True,
    }
    assert {name: one and one["pod"] for name, one in found["nodes"].items()} == {
        "n1": "agent-n1",
        "n2": "agent-n2",
        "n3": None,
    }


class Asking(Progress):
    """Tells when the namespace is about to be created."""

    def check(self) -> None:
        self.say("now")


async def test_a_namespace_whose_making_was_not_heard_of_is_ours_all_the_same(
    api_server: ApiServer, admin: KubeClient, chosen: Chosen, tmp_path: Path
) -> None:
    config = yaml.safe_load(api_server.kubeconfig().read_text())
    async with proxying(ConnectProxy({f"127.0.0.1:{api_server.port}": api_server.port})) as between:
        config["clusters"][0]["cluster"]["proxy-url"] = f"http://127.0.0.1:{between.port}"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        api = await KubernetesApi.connect(str(tmp_path / "kubeconfig"))
        try:
            async with asyncio.TaskGroup() as tasks:
                shown = Asking(lambda _: setattr(between, "holds", True), lambda _: None)
                claiming = tasks.create_task(deploy.claim(api, chosen, shown))
                path = f"/api/v1/namespaces/{chosen.namespace}"
                await until(lambda: chosen.namespace in names_of(admin), "it is there")
                between.holds = False
                between.cut()
                session = await claiming
            assert session.uid == admin.get(path)["metadata"]["uid"]
        finally:
            await api.close()


def names_of(admin: KubeClient) -> set[str]:
    """The namespaces that are there."""
    return {one["metadata"]["name"] for one in admin.get("/api/v1/namespaces")["items"]}


async def test_two_sessions_stand_side_by_side(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, controllers: Controllers, shown: Progress
) -> None:
    before = everything(admin)
    other = replace(chosen, namespace=f"{chosen.namespace}-b", session="0ther", holder="bert@desk")
    sessions = [await started(api, one, shown) for one in (chosen, other)]
    await teardown.remove(api, sessions[0], shown.say)
    assert len(await teardown.leftovers(api, sessions[1])) == 3
    await teardown.remove(api, sessions[1], shown.say)
    assert everything(admin) == before
    assert controllers.seen


async def test_a_namespace_that_is_not_ours_is_refused(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress
) -> None:
    admin.create(kube_objects.namespace(chosen.namespace))
    before = everything(admin)
    with pytest.raises(UsageError, match=r"podloxx-launch did not make it: nothing was changed; choose another"):
        await deploy.claim(api, chosen, shown)
    assert everything(admin) == before


async def test_a_cluster_role_that_is_not_ours_is_refused(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress
) -> None:
    admin.create(kube_objects.cluster_role(chosen.cluster_name, ("", "pods", ["get"])))
    before = everything(admin)
    with pytest.raises(
        UsageError, match=f"there is a ClusterRole {chosen.cluster_name} that podloxx-launch did not make"
    ):
        await deploy.claim(api, chosen, shown)
    assert everything(admin) == before


async def test_a_session_that_lives_is_refused_and_one_that_is_dead_makes_room(
    api: KubernetesApi,
    chosen: Chosen,
    controllers: Controllers,
    shown: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = await started(api, chosen, shown)
    await lease.renew(api, session.namespace, session.uid)
    again = replace(chosen, session="aga1n")
    with pytest.raises(UsageError, match="the session of anna@laptop runs in the namespace"):
        await deploy.claim(api, again, shown)
    monkeypatch.setattr(lease, "STALE_S", -1.0)
    renewed = await deploy.claim(api, again, shown)
    assert renewed.uid != session.uid
    assert controllers.seen == [chosen.namespace]
    assert await teardown.leftovers(api, session) == []


async def test_what_was_installed_to_stay_is_refused(
    api: KubernetesApi, chosen: Chosen, controllers: Controllers, shown: Progress
) -> None:
    lasting = replace(chosen, ttl_s=None)
    await started(api, lasting, shown)
    assert await lease.silent_s(api, chosen.namespace) is None
    with pytest.raises(UsageError, match=r"installed in the namespace .* to stay: `podloxx-launch open` shows it"):
        await deploy.claim(api, replace(chosen, session="aga1n"), shown)
    assert controllers.seen == []


async def test_clean_removes_the_dead_and_keeps_the_living(
    api: KubernetesApi,
    admin: KubeClient,
    chosen: Chosen,
    controllers: Controllers,
    shown: Progress,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = everything(admin)
    session = await started(api, chosen, shown)
    await teardown.clean(api, "", everything=False, say=told.append)
    assert told[-2:] == [
        f"kept: namespace {chosen.namespace}, whose launcher lives (anna@laptop; --namespace {chosen.namespace} removes it)",
        "nothing to remove",
    ]
    monkeypatch.setattr(lease, "STALE_S", -1.0)
    await teardown.clean(api, "", everything=False, say=told.append)
    assert told[-1] == "1 session removed, 0 objects left"
    assert await teardown.leftovers(api, session) == []
    assert everything(admin) == before
    await teardown.clean(api, "", everything=False, say=told.append)
    assert told[-1] == "nothing to remove"
    assert controllers.seen == [chosen.namespace]


async def test_clean_removes_what_a_launcher_left_that_died_early(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress, told: list[str]
) -> None:
    before = everything(admin)
    session = await deploy.claim(api, chosen, shown)
    made = [one for one in objects(chosen) if one["kind"].startswith("ClusterRole")]
    await deploy.apply(api, made, session, shown)
    remove_namespace(admin, chosen.namespace)
    assert len(await teardown.leftovers(api, session)) == 2
    await teardown.clean(api, "", everything=False, say=told.append)
    assert everything(admin) == before


async def test_a_session_without_a_lease_yet_lives_for_a_while(
    api: KubernetesApi,
    chosen: Chosen,
    controllers: Controllers,
    shown: Progress,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await deploy.claim(api, chosen, shown)
    with pytest.raises(UsageError, match="the session of somebody who is just starting it runs in the namespace"):
        await deploy.claim(api, replace(chosen, session="0ther"), shown)
    await teardown.clean(api, "", everything=False, say=told.append)
    assert told[-1] == "nothing to remove"
    monkeypatch.setattr(lease, "STALE_S", -1.0)
    await teardown.clean(api, "", everything=False, say=told.append)
    assert told[-1] == "1 session removed, 0 objects left"
    assert controllers.seen == [chosen.namespace]


async def test_what_does_not_go_is_named_with_the_reason_and_the_way_by_hand(
    api: KubernetesApi,
    chosen: Chosen,
    controllers: Controllers,
    shown: Progress,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controllers.finalizing = False
    monkeypatch.setattr(teardown, "_GONE_S", 0.5)
    session = await deploy.claim(api, chosen, shown)
    with pytest.raises(LeftoverError) as raised:
        await teardown.remove(api, session, told.append)
    assert f"namespace/{chosen.namespace}" in str(raised.value)
    assert (
        f"By hand: kubectl delete namespace {chosen.namespace}; kubectl delete clusterrolebinding,clusterrole"
        in str(raised.value)
    )
    assert raised.value.exit_code == 4


async def test_a_removal_outlives_a_restart_of_the_api_server(
    api: KubernetesApi,
    api_server: ApiServer,
    admin: KubeClient,
    chosen: Chosen,
    controllers: Controllers,
    shown: Progress,
    told: list[str],
) -> None:
    before = everything(admin)
    session = await started(api, chosen, shown)
    api_server.stop()
    async with asyncio.TaskGroup() as tasks:
        removing = tasks.create_task(teardown.remove(api, session, told.append))
        await until(lambda: any("the API server cannot be asked" in line for line in told), "it tells")
        # Here, not in a thread of its own: its processes end with the thread that started them.
        api_server.start()
        await removing
    assert everything(admin) == before
    assert controllers.seen


@pytest.mark.parametrize("component", ["aggregator", "check"])
async def test_an_image_that_cannot_be_had_is_told_with_the_next_step(
    api: KubernetesApi, chosen: Chosen, controllers: Controllers, shown: Progress, component: str
) -> None:
    fine = controllers.fate
    refused = waiting("ErrImageNeverPull", 'Container image "podloxx/one:1" is not present with pull policy of Never')
    controllers.fate = lambda name, node: refused if name == component else fine(name, node)
    with pytest.raises(
        PodloxxError, match=r"does not get the image podloxx/one:1: .*not present.*`podloxx-launch images load`"
    ):
        await started(api, chosen, shown)
    # Nothing was brought to all nodes before.
    assert "agent" not in controllers.made


async def test_agents_that_do_not_come_on_one_node_are_told_and_left_out(
    api: KubernetesApi, chosen: Chosen, controllers: Controllers, shown: Progress, told: list[str]
) -> None:
    fine = controllers.fate
    broken = waiting("CrashLoopBackOff", "back-off 10s restarting failed container")
    controllers.fate = lambda name, node: broken if (name, node) == ("agent", "n2") else fine(name, node)
    await started(api, chosen, shown)
    [line] = [line for line in told if line.startswith("no agent")]
    assert line.startswith("no agent on node n2 (agent-n2 on node n2 does not start: back-off 10s")


async def test_agents_that_come_nowhere_are_an_error(
    api: KubernetesApi, chosen: Chosen, controllers: Controllers, shown: Progress
) -> None:
    fine = controllers.fate
    broken = waiting("CrashLoopBackOff", "back-off 10s restarting failed container")
    controllers.fate = lambda name, node: broken if name == "agent" else fine(name, node)
    with pytest.raises(PodloxxError, match=r"agent-n. on node n. does not start: back-off.*Next: .*--keep"):
        await started(api, chosen, shown)


async def test_a_selector_that_no_node_meets_is_told(
    api: KubernetesApi, chosen: Chosen, controllers: Controllers, shown: Progress
) -> None:
    controllers.nodes = []
    session = await deploy.claim(api, chosen, shown)
    await deploy.apply(api, objects(chosen)[-1:], session, shown)
    with pytest.raises(PodloxxError, match=r"no node may run an agent\. Next: check --node-selector"):
        await progress.settled(api, session, ["agent"], shown)


async def test_a_quota_is_quoted(api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress) -> None:
    session = await deploy.claim(api, chosen, shown)
    quota: Object = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": chosen.namespace},
    }
    admin.create({**quota, "spec": {"hard": {"pods": "0"}}, "status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}})
    made = objects(chosen)
    with pytest.raises(
        PrivilegeError, match=r"agents would not be let in: .*exceeded quota: small.*Next: a quota forbids it"
    ):
        await deploy._check(api, made[-1], session, shown)


async def test_pod_security_is_quoted(api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress) -> None:
    session = await deploy.claim(api, chosen, shown)
    # As a cluster does that does not let us choose the level.
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    admin.patch(kube_objects.namespace(chosen.namespace), {"metadata": {"labels": labels}})
    with pytest.raises(PrivilegeError, match=r"violates PodSecurity .*host.*Next: Pod Security forbids it"):
        await deploy._check(api, objects(chosen)[-1], session, shown)


OPENSHIFT = (
    "unable to validate against any security context constraint: [provider restricted-v2: .containers[0].runAsUser: "
    "Invalid value: 65532: must be in the ranges: [1000680000, 1000689999]]"
)
AUTOPILOT = (
    "GKE Warden rejected the request because it violates one or more constraints. Violations details: "
    '{"[denied by autogke-disallow-hostnamespaces]":["enabling hostNetwork is not allowed in Autopilot."]}'
)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (OPENSHIFT, "OpenShift needs a security context constraint for it: docs/kubernetes.md names which"),
        (AUTOPILOT, "GKE Autopilot lets no agents run"),
        ("images come from our registry only", "a policy of the cluster forbids it: ask whoever runs it"),
    ],
    ids=["OpenShift", "Autopilot", "a policy"],
)
async def test_who_forbids_pods_is_quoted_with_the_next_step(
    api: KubernetesApi,
    admin: KubeClient,
    chosen: Chosen,
    controllers: Controllers,
    shown: Progress,
    words: str,
    step: str,
) -> None:
    session = await deploy.claim(api, chosen, shown)
    with forbidding(admin, chosen.namespace, words):
        # Those of Deployments and DaemonSets, of which events tell; and the one that we create ourselves.
        with pytest.raises(PodloxxError) as raised:
            await deploy.deploy(api, chosen, session, shown)
        assert str(raised.value).startswith("pods of aggregator are not let in: Error creating: pods ")
        with pytest.raises(PrivilegeError, match="agents would not be let in: ") as refused:
            await deploy._check(api, objects(chosen)[-1], session, shown)
    for said in (str(raised.value), str(refused.value)):
        assert words in said
        assert f". Next: {step}" in said
    assert controllers.made == []


async def test_who_may_not_create_is_told_what_and_nothing_is_left(
    api_server: ApiServer, admin: KubeClient, chosen: Chosen, shown: Progress
) -> None:
    before = everything(admin)
    poor = await KubernetesApi.connect(str(api_server.kubeconfig("reader", "readers")))
    try:
        with pytest.raises(PrivilegeError, match=r'User "reader" cannot get resource "namespaces".*doctor --context'):
            await deploy.claim(poor, chosen, shown)
    finally:
        await poor.close()
    assert everything(admin) == before


async def test_a_lease_that_is_renewed_is_fresh_by_the_servers_clock(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress
) -> None:
    session = await deploy.claim(api, chosen, shown)
    made = [one for one in objects(chosen) if one["kind"] == "Lease"]
    await deploy.apply(api, made, session, shown)
    silent = await lease.silent_s(api, chosen.namespace)
    assert silent is not None
    assert 0 <= silent < 10
    await lease.renew(api, session.namespace, session.uid)
    assert "renewTime" in admin.get(lease.path(chosen.namespace))["spec"]
    assert await lease.held_by(api, chosen.namespace) == "anna@laptop"


async def test_a_session_that_is_gone_is_told_to_who_renews(
    api: KubernetesApi, admin: KubeClient, chosen: Chosen, shown: Progress
) -> None:
    session = await deploy.claim(api, chosen, shown)
    remove_namespace(admin, chosen.namespace)
    with pytest.raises(PodloxxError, match=r"the session in namespace .* is gone from the cluster.*Start it again"):
        await lease.keep(api, session.namespace, session.uid, lambda _: None)


async def test_renewing_goes_on_through_a_restart_of_the_api_server(
    api: KubernetesApi,
    api_server: ApiServer,
    chosen: Chosen,
    shown: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.5)
    session = await deploy.claim(api, chosen, shown)
    await deploy.apply(api, [one for one in objects(chosen) if one["kind"] == "Lease"], session, shown)
    problems: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        renewing = tasks.create_task(lease.keep(api, session.namespace, session.uid, problems.append))
        api_server.stop()
        await until(lambda: problems, "it tells")
        assert "the API server cannot be reached" in problems[0]
        # Here, not in a thread of its own: its processes end with the thread that started them.
        api_server.start()
        await until(lambda: problems[-1] == "", "it is renewed again", timeout_s=20)
        renewing.cancel()
