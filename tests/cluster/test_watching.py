"""What a directory knows of a cluster whose API server is a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.aggregator import cluster_watch
from services.aggregator.directory import reflector
from services.flows.address import parse
from services.flows.scope import Place
from services.runtime.errors import UsageError
from tests.support import kube_objects
from tests.support.api_server import ApiServer
from tests.support.certificates import Authority
from tests.support.cluster_directory import SOON_S, watched
from tests.support.kube_client import KubeClient, Object
from tests.support.wait import until

WEB = ("10.81.1.7", "fd81:0:0:1::7")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for half a minute."""
    monkeypatch.setattr(reflector, "_PAUSE_S", (0.05, 0.5))
    monkeypatch.setattr(reflector, "_REFUSED_S", 0.3)
    monkeypatch.setattr(cluster_watch, "_FIRST_LISTS_S", 3.0)


async def test_a_pod_is_known_from_its_address_to_its_end(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    async with watched(api_server.kubeconfig()) as cluster:
        made = admin.create(kube_objects.pod(namespace, "web", node="n1", phase="Pending"))
        assert cluster.name(WEB[0]) == ""
        admin.set_status(made, kube_objects.pod_status("Running", WEB))
        for one in WEB:
            await cluster.knows(one, "web")
        found = cluster.pod(WEB[1])
        assert found is not None
        assert (found.uid, found.namespace, found.place.node) == (made["metadata"]["uid"], namespace, "n1")
        admin.patch(made, {"metadata": {"labels": {"app": "shop"}}})
        await until(lambda: getattr(cluster.pod(WEB[0]), "labels", ()) == (("app", "shop"),), "the label is known")
        admin.delete(made)
        for one in WEB:
            await cluster.knows(one, "")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_finished_leaves_its_address_to_the_next(
    api_server: ApiServer, admin: KubeClient, namespace: str, phase: str
) -> None:
    async with watched(api_server.kubeconfig()) as cluster:
        first = admin.create(kube_objects.pod(namespace, "first", ips=WEB))
        await cluster.knows(WEB[0], "first")
        admin.set_status(first, kube_objects.pod_status(phase, WEB))
        await cluster.knows(WEB[0], "")
        admin.create(kube_objects.pod(namespace, "second", ips=WEB))
        for one in WEB:
            await cluster.knows(one, "second")
        admin.delete(first)
        admin.create(kube_objects.pod(namespace, "last", ips=["10.81.1.8"]))
        await cluster.knows("10.81.1.8", "last")
        assert cluster.name(WEB[0]) == "second"


async def test_an_address_was_its_former_pods_before_the_hand_over(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    now = int(time.time_ns() / 1e9)
    first = admin.create(kube_objects.pod(namespace, "first"))
    admin.set_status(first, kube_objects.lived(WEB, from_s=now - 300))
    async with watched(api_server.kubeconfig()) as cluster:
        await cluster.knows(WEB[0], "first")
        admin.set_status(first, kube_objects.lived(WEB, from_s=now - 300, to_s=now - 60))
        await cluster.knows(WEB[0], "")
        second = admin.create(kube_objects.pod(namespace, "second"))
        admin.set_status(second, kube_objects.lived(WEB, from_s=now - 30))
        for one in WEB:
            await cluster.knows(one, "second")
            names = [cluster.name(one, at_us=(now - ago) * 1_000_000) for ago in (280, 70, 45, 20, 1)]
            assert names == ["first", "first", "", "second", "second"]


async def test_nodes_and_their_ranges_come_and_go(api_server: ApiServer, admin: KubeClient, namespace: str) -> None:
    cidrs = ["10.81.1.0/24", "fd81:0:0:1::/64"]
    own = ["10.80.0.11", "fd80::11"]
    gateways = ["10.81.1.1", "fd81:0:0:1::1"]
    inside = ["10.81.1.77", "fd81:0:0:1::77"]
    outside = ["10.81.2.77", "fd81:0:0:2::77"]
    async with watched(api_server.kubeconfig()) as cluster:
        made = admin.create(
            kube_objects.node("plx-n1", addresses=own, pod_cidrs=cidrs, zone="z1", region="r1", external=["2.2.2.2"])
        )
        for one in [*own, *gateways, "2.2.2.2"]:
            await until(lambda one=one: cluster.node(one) == "plx-n1", f"{one} is the node's")
        assert all(map(cluster.in_range, inside))
        assert not any(map(cluster.in_range, outside))
        await until(lambda: cluster.directory.place("plx-n1") == Place("plx-n1", "z1", "r1"), "its place is known")
        admin.create(kube_objects.pod(namespace, "web", node="plx-n1", ips=WEB))
        await cluster.knows(WEB[0], "web")
        admin.patch(made, {"metadata": {"labels": {"topology.kubernetes.io/zone": "z2"}}})
        await until(lambda: getattr(cluster.pod(WEB[0]), "place", None) == Place("plx-n1", "z2", "r1"), "it moved")
        admin.delete(made)
        await until(lambda: not any(map(cluster.node, [*own, *gateways])), "no address is the node's")
        assert not any(map(cluster.in_range, inside))
        assert cluster.directory.place("plx-n1") == Place("plx-n1")


async def test_services_and_the_api_server_come_and_go(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    async with watched(api_server.kubeconfig()) as cluster:
        made = admin.create(
            kube_objects.service(namespace, "shop", external_ips=["198.51.100.9"], balancers=["198.51.100.8"])
        )
        chosen = made["spec"]["clusterIPs"]
        for one in [*chosen, "198.51.100.8", "198.51.100.9"]:
            await until(lambda one=one: cluster.service(one) == "shop", f"{one} is the Service's")
        admin.patch(made, {"spec": {"externalIPs": ["198.51.100.10"]}})
        await until(lambda: cluster.service("198.51.100.10") == "shop", "it has another address")
        assert cluster.service("198.51.100.9") == ""
        admin.delete(made)
        await until(lambda: not any(map(cluster.service, chosen)), "the Service is gone")
        # The range of Services is one of the API server's own objects.
        assert all(map(cluster.in_range, chosen))

        def is_api(one: str) -> bool:
            return cluster.directory.is_api_server(parse(one))

        part = admin.create(
            kube_objects.endpoint_slice("default", "plx-api", service="kubernetes", addresses=["10.80.0.5"])
        )
        try:
            await until(lambda: is_api("10.80.0.5"), "the API server has an address")
            other = kube_objects.endpoint_slice("default", "plx-api", service="kubernetes", addresses=["10.80.0.6"])
            admin.patch(part, {"endpoints": other["endpoints"]})
            await until(lambda: is_api("10.80.0.6"), "it has another one")
            assert not is_api("10.80.0.5")
        finally:
            admin.delete(part)
        await until(lambda: not is_api("10.80.0.6"), "it has none")


async def test_what_changed_while_the_server_was_away_is_known_afterwards(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    kept = admin.create(kube_objects.pod(namespace, "kept", ips=["10.81.1.7"]))
    gone = admin.create(kube_objects.pod(namespace, "gone", ips=["10.81.1.8"]))
    with capture_logs() as log:
        async with watched(api_server.kubeconfig()) as cluster:
            await cluster.knows("10.81.1.8", "gone")
            api_server.kill()
            await until(lambda: "cluster-unreachable" in events(log), "it is missed", SOON_S)
            assert cluster.name("10.81.1.7") == "kept", "what is known stays known"
            # Nothing of ours runs before the end of the changes.
            api_server.start()
            admin.delete(gone)
            admin.set_status(kept, kube_objects.pod_status("Running", ["10.81.1.70"]))
            admin.create(kube_objects.pod(namespace, "new", ips=["10.81.1.8"]))
            await cluster.knows("10.81.1.8", "new")
            await cluster.knows("10.81.1.70", "kept")
            assert cluster.name("10.81.1.7") == ""


async def test_events_that_the_server_no_longer_has_are_made_up_for_by_a_list(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    gone = admin.create(kube_objects.pod(namespace, "gone", ips=["10.81.1.8"]))
    with capture_logs() as log:
        async with watched(api_server.kubeconfig()) as cluster:
            await cluster.knows("10.81.1.8", "gone")
            api_server.kill()
            api_server.start()
            admin.delete(gone)
            admin.create(kube_objects.pod(namespace, "new", ips=["10.81.1.7"]))
            # One that has just started remembers nothing of what came before it.
            api_server.kill()
            api_server.start()
            await cluster.knows("10.81.1.7", "new")
            assert cluster.name("10.81.1.8") == ""
    assert {one["kind"] for one in log if one["event"] == "list-again"} >= {"pods"}


async def test_a_server_that_does_not_answer_delays_the_start_by_no_more_than_was_promised(
    api_server: ApiServer, admin: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_watch, "_FIRST_LISTS_S", 0.5)
    admin.create(kube_objects.pod(namespace, "web", ips=WEB))
    api_server.signal(signal.SIGSTOP)
    try:
        with capture_logs() as log:
            async with watched(api_server.kubeconfig()) as cluster:
                assert cluster.name(WEB[0]) == ""
                assert sorted(line(log, "cluster-not-listed")["kinds"]) == KINDS
                api_server.signal(signal.SIGCONT)
                await cluster.knows(WEB[0], "web")
    finally:
        api_server.signal(signal.SIGCONT)


def own_sockets() -> set[str]:
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        # The folder's own is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found.add(str(one.readlink()))
    return {one for one in found if one.startswith("socket:")}


async def test_no_connection_outlives_the_watch_though_the_server_says_no_goodbye(api_server: ApiServer) -> None:
    before = own_sockets()
    try:
        async with watched(api_server.kubeconfig()) as cluster:
            assert cluster.name(WEB[0]) == ""
            await until(lambda: len(own_sockets() - before) >= len(KINDS), "each kind is watched")
            api_server.signal(signal.SIGSTOP)
        await asyncio.sleep(0)
        assert own_sockets() <= before
    finally:
        api_server.signal(signal.SIGCONT)


KINDS = ["endpointslices", "nodes", "pods", "servicecidrs", "services"]
GROUPS = {"endpointslices": "discovery.k8s.io", "servicecidrs": "networking.k8s.io"}


def rules(*kinds: str, verbs: tuple[str, ...] = ("list", "watch")) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(GROUPS.get(kind, ""), kind, verbs) for kind in kinds]


@pytest.fixture
def account(api_server: ApiServer, admin: KubeClient, namespace: str) -> Path:
    """The kubeconfig of a service account that may do what the role `plx-watches` says."""
    admin.create(kube_objects.service_account(namespace, "aggregator"))
    admin.create(kube_objects.cluster_role_binding("plx-watches", f"{namespace}/aggregator"))
    return api_server.token_kubeconfig(namespace, "aggregator")


async def test_without_some_rights_all_else_goes_on_and_what_is_given_later_is_used(
    admin: KubeClient, namespace: str, account: Path
) -> None:
    role = admin.create(kube_objects.cluster_role("plx-watches", *rules("pods", "endpointslices")))
    service = admin.create(kube_objects.service(namespace, "shop"))
    chosen = service["spec"]["clusterIPs"][0]
    admin.create(kube_objects.pod(namespace, "web", ips=WEB))
    with capture_logs() as log:
        async with watched(account) as cluster:
            await cluster.knows(WEB[0], "web")
            await until(lambda: set(refusals(log)) == {"nodes", "services", "servicecidrs"}, "the rest is refused")
            for kind, one in refusals(log).items():
                assert f'cannot list resource "{kind}" in API group "{GROUPS.get(kind, "")}"' in one["error"]
                assert f"system:serviceaccount:{namespace}:aggregator" in one["error"]
                assert (
                    one["mend"] == f"allow the verbs list and watch on {kind}, else what they would tell stays unknown"
                )
            assert cluster.service(chosen) == ""
            assert not cluster.in_range(chosen)
            admin.patch(role, {"rules": kube_objects.cluster_role("", *rules(*KINDS))["rules"]})
            await until(lambda: cluster.service(chosen) == "shop", "Services are known", SOON_S)
            await until(lambda: cluster.in_range(chosen), "their range is known", SOON_S)
            admin.create(kube_objects.pod(namespace, "later", ips=["10.81.1.9"]))
            await cluster.knows("10.81.1.9", "later")
    assert sum(one["event"] == "refused" for one in log) == 3, "each is told once"


async def test_a_right_to_list_alone_names_the_verb_that_is_missing(
    admin: KubeClient, namespace: str, account: Path
) -> None:
    others = (kind for kind in KINDS if kind != "pods")
    admin.create(kube_objects.cluster_role("plx-watches", *rules(*others), *rules("pods", verbs=("list",))))
    admin.create(kube_objects.pod(namespace, "web", ips=WEB))
    with capture_logs() as log:
        async with watched(account) as cluster:
            await until(lambda: "refused" in events(log), "the watch is refused")
            assert 'cannot watch resource "pods" in API group ""' in line(log, "refused")["error"]
            # What lists alone tell is late, and better than nothing.
            admin.create(kube_objects.pod(namespace, "later", ips=["10.81.1.9"]))
            await cluster.knows("10.81.1.9", "later")
            assert cluster.name(WEB[0]) == "web"


def broken_kubeconfigs(api_server: ApiServer, folder: Path) -> Iterator[tuple[Path, str, str]]:
    """A path, a context and words of the sentence that it leads to."""
    good = json.loads(api_server.kubeconfig().read_text())
    yield folder / "missing", "", "missing"
    yield api_server.kubeconfig(), "elsewhere", "elsewhere"
    for name, text, words in (
        ("no-yaml", "{", "it is not YAML: "),
        ("list", "[]", "it does not have the form of a kubeconfig"),
        ("empty", "", "it does not have the form of a kubeconfig"),
        ("no-clusters", json.dumps({**good, "clusters": []}), "tests"),
        ("no-user", json.dumps({**good, "users": []}), "it does not have the form of a kubeconfig"),
    ):
        (folder / name).write_text(text)
        yield folder / name, "", words
    good["users"][0]["user"]["client-certificate"] = str(folder / "no-certificate")
    (folder / "half").write_text(json.dumps(good))
    yield folder / "half", "", "no-certificate"


async def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(api_server: ApiServer, folder: Path) -> None:
    for path, context, words in broken_kubeconfigs(api_server, folder):
        with pytest.raises(UsageError) as raised:
            async with watched(path, context):
                pytest.fail(f"{path} was taken")
        told = str(raised.value)
        assert told.startswith(f"cannot use the kubeconfig {path}"), told
        assert words in told, told
        assert "\n" not in told, told


def changed(api_server: ApiServer, folder: Path, part: str, content: Object) -> Path:
    """The administrator's kubeconfig with other entries in its `user` or `cluster`."""
    config = json.loads(api_server.kubeconfig().read_text())
    one = config[f"{part}s"][0]
    one[part] = {**(one[part] if part == "cluster" else {}), **content}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("part", "content", "words"),
    [
        ("user", {"token": "nobody's"}, "Unauthorized"),
        ("cluster", {"certificate-authority": ""}, "CERTIFICATE_VERIFY_FAILED"),
        ("cluster", {"server": "https://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
    ids=["token", "authority", "server"],
)
async def test_what_no_server_takes_is_told_and_stops_nothing(
    api_server: ApiServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    content: Object,
    words: str,
) -> None:
    monkeypatch.setattr(cluster_watch, "_FIRST_LISTS_S", 0.5)
    if "certificate-authority" in content:
        # Another authority's own certificate.
        content = {"certificate-authority": str(Authority(folder).certificate)}
    with capture_logs() as log:
        async with watched(changed(api_server, folder, part, content)) as cluster:
            await until(lambda: "cluster-unreachable" in events(log), "it is told")
            assert words in line(log, "cluster-unreachable")["error"]
            assert cluster.name(WEB[0]) == ""
            assert sorted(line(log, "cluster-not-listed")["kinds"]) == KINDS


def events(log: list[Any]) -> set[str]:
    return {one["event"] for one in log}


def line(log: list[Any], event: str) -> dict[str, Any]:
    """The first line of an event."""
    return next(one for one in log if one["event"] == event)


def refusals(log: list[Any]) -> dict[str, dict[str, Any]]:
    """The refusals by kind."""
    return {one["kind"]: one for one in log if one["event"] == "refused"}
