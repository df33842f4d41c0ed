"""The API server of the tests: what it keeps, tells and refuses, and that it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from services.aggregator.directory import objects
from services.flows import address
from services.runtime.kubernetes_api import KubernetesApi
from tests.support import kube_objects
from tests.support.api_server import SERVICE_RANGES, ApiServer
from tests.support.kube_cleanup import remove_namespace
from tests.support.kube_client import KubeClient, Object, Refused
from tests.support.launched import alive
from tests.support.wait import wait_until

ROOT = Path(__file__).parents[2]
KIND = "client.authentication.k8s.io/v1"
READY_S = 20.0
"""Three where nothing else runs."""


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def test_it_is_ready_soon_again_and_has_kept_what_it_had(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    made = admin.create(kube_objects.pod(namespace, "kept", ips=["10.1.0.7"]))
    started = time.monotonic()
    api_server.restart()
    assert time.monotonic() - started < READY_S
    assert admin.get(f"{pods(namespace)}/kept") == made


def test_what_was_stored_outlives_a_kill(api_server: ApiServer, admin: KubeClient, namespace: str) -> None:
    made = admin.create(kube_objects.pod(namespace, "kept"))
    api_server.kill()
    with pytest.raises(ConnectionRefusedError):
        admin.get(pods(namespace))
    api_server.start()
    assert admin.get(f"{pods(namespace)}/kept") == made


def test_a_pod_has_the_status_that_it_was_given(admin: KubeClient, namespace: str) -> None:
    made = admin.create(
        kube_objects.pod(
            namespace,
            "web-5d4f-x",
            node="n1",
            ips=["10.1.0.7", "fd81::7"],
            labels={"pod-template-hash": "5d4f"},
            owner=("ReplicaSet", "web-5d4f"),
        )
    )
    read = objects.pod(made)
    assert (read.namespace, read.name, read.node) == (namespace, "web-5d4f-x", "n1")
    assert read.addresses == (address.parse("10.1.0.7"), address.parse("fd81::7"))
    assert (read.owner_kind, read.owner_name) == ("Deployment", "web")
    assert not read.ended
    ended = admin.set_status(made, kube_objects.pod_status("Succeeded"))
    assert objects.pod(ended).ended


def test_a_node_has_addresses_ranges_and_a_place(admin: KubeClient, namespace: str) -> None:
    cidrs = ["10.81.1.0/24", "fd81:0:0:1::/64"]
    made = kube_objects.node(
        f"node-{namespace}",
        addresses=["10.80.0.11", "fd80::11"],
        pod_cidrs=cidrs,
        zone="z1",
        region="r1",
        external=["198.51.100.7"],
    )
    read = objects.node(admin.create(made))
    assert read.addresses == tuple(map(address.parse, ("10.80.0.11", "fd80::11", "198.51.100.7")))
    assert [str(one) for one in read.pod_cidrs] == cidrs
    assert (read.zone, read.region) == ("z1", "r1")


def test_a_service_gets_addresses_of_both_ranges_and_of_its_balancer(admin: KubeClient, namespace: str) -> None:
    made = admin.create(kube_objects.service(namespace, "web", balancers=["198.51.100.8"]))
    read = objects.service(made)
    ranges = objects.service_range({"spec": {"cidrs": SERVICE_RANGES}}).networks
    chosen = made["spec"]["clusterIPs"]
    assert len(chosen) == len(ranges) == 2
    assert read.addresses == tuple(map(address.parse, (*chosen, "198.51.100.8")))
    assert read.ports == (objects.ServicePort("TCP", 80, "8080"),)


def test_a_slice_has_the_endpoints_of_its_service(admin: KubeClient, namespace: str) -> None:
    made = kube_objects.endpoint_slice(namespace, "web-1", service="web", addresses=["10.1.0.7", "10.1.0.8"])
    read = objects.endpoints(admin.create(made))
    assert (read.service, read.addresses) == ("web", (address.parse("10.1.0.7"), address.parse("10.1.0.8")))


def test_what_happens_to_a_pod_is_told_to_whoever_watches(admin: KubeClient, namespace: str) -> None:
    version = admin.get(pods(namespace))["metadata"]["resourceVersion"]
    told: list[tuple[str, str]] = []
    with admin.watch(pods(namespace), version) as following:
        made = admin.create(kube_objects.pod(namespace, "web", ips=["10.1.0.7"]))
        admin.delete(made)
        while not told or told[-1][0] != "DELETED":
            kind, one = following()
            told.append((kind, "leaving" if "deletionTimestamp" in one["metadata"] else phase(one)))
    assert told == [("ADDED", "Pending"), ("MODIFIED", "Running"), ("MODIFIED", "leaving"), ("DELETED", "leaving")]


def phase(one: Object) -> str:
    return str(one["status"]["phase"])


def test_a_user_may_do_just_what_a_role_says(api_server: ApiServer, admin: KubeClient, namespace: str) -> None:
    user = api_server.client("reader", "readers")
    assert refusal(user, "/api/v1/pods") == "Forbidden"
    admin.create(kube_objects.cluster_role("reads-pods", ("", "pods", ["get", "list"])))
    admin.create(kube_objects.cluster_role_binding("reads-pods", "reader"))
    wait_until(lambda: refusal(user, "/api/v1/pods") == "", "the role is in force")
    assert refusal(user, "/api/v1/nodes") == "Forbidden"
    with pytest.raises(Refused, match="403 Forbidden"):
        user.create(kube_objects.pod(namespace, "web"))


def test_a_service_account_may_do_just_what_a_role_says(
    api_server: ApiServer, admin: KubeClient, namespace: str
) -> None:
    admin.create(kube_objects.service_account(namespace, "aggregator"))
    account = api_server.client_of(api_server.token(namespace, "aggregator"))
    assert refusal(account, "/api/v1/nodes") == "Forbidden"
    admin.create(kube_objects.cluster_role("reads-nodes", ("", "nodes", ["list"])))
    admin.create(kube_objects.cluster_role_binding("reads-nodes", f"{namespace}/aggregator"))
    wait_until(lambda: refusal(account, "/api/v1/nodes") == "", "the role is in force")
    assert refusal(account, "/api/v1/pods") == "Forbidden"
    assert refusal(api_server.client_of("no token of anybody's"), "/api/v1/nodes") == "Unauthorized"


def refusal(client: KubeClient, path: str) -> str:
    """Why `path` was refused, empty where it was not."""
    try:
        client.get(path)
    except Refused as refused:
        return refused.reason
    return ""


async def test_kubeconfigs_say_who_asks(
    api_server: ApiServer, admin: KubeClient, namespace: str, programs: Path
) -> None:
    admin.create(kube_objects.service_account(namespace, "one"))
    for path, name in (
        (api_server.kubeconfig(), "admin"),
        (api_server.kubeconfig("reader", "readers"), "reader"),
        (api_server.token_kubeconfig(namespace, "one"), f"system:serviceaccount:{namespace}:one"),
    ):
        api = await KubernetesApi.connect(str(path))
        try:
            assert (await api.get("/version"))["gitVersion"].startswith("v1.")
        finally:
            await api.close()
        assert whoami(programs, path) == name


async def test_a_program_of_the_kubeconfig_gives_certificates(api_server: ApiServer, tmp_path: Path) -> None:
    answer, path = tmp_path / "answer", tmp_path / "kubeconfig"

    def give(user: str) -> None:
        """From now on the program gives this user's."""
        given = yaml.safe_load(api_server.kubeconfig(user, "readers").read_text())["users"][0]["user"]
        status = {
            f"client{part.capitalize()}Data": Path(given[f"client-{part}"]).read_text()
            for part in ("certificate", "key")
        }
        answer.write_text(json.dumps({"apiVersion": KIND, "kind": "ExecCredential", "status": status}))

    give("reader")
    content = yaml.safe_load(api_server.kubeconfig().read_text())
    content["users"][0]["user"] = {"exec": {"apiVersion": KIND, "command": "cat", "args": [str(answer)]}}
    path.write_text(yaml.safe_dump(content))
    api = await KubernetesApi.connect(str(path))
    try:
        assert await asked_by(api) == "reader"
        give("writer")
        assert await asked_by(api) == "reader"
        # As after a refusal, which an API server of a test cannot wait for: certificates last for days.
        api._credentials.refused()
        assert await asked_by(api) == "writer"
    finally:
        await api.close()


async def asked_by(api: KubernetesApi) -> str:
    """For whom the API server takes us."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found = await api.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", None, review)
    return str(found["status"]["userInfo"]["username"])


def whoami(programs: Path, kubeconfig: Path) -> str:
    """Whom kubectl takes us for."""
    question = ("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    argv = [
        str(programs / "kubectl"),
        f"--kubeconfig={kubeconfig}",
        f"--cache-dir={kubeconfig.parent}/kubectl",
        *question,
    ]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout


def test_a_namespace_goes_with_all_that_is_in_it(admin: KubeClient, namespace: str) -> None:
    inside = f"{namespace}-more"
    admin.create(kube_objects.namespace(inside))
    admin.create(kube_objects.service(inside, "web"))
    made = admin.create(kube_objects.pod(inside, "web", node="n1"))
    admin.patch(made, {"metadata": {"finalizers": ["tests.podloxx/never"]}})
    # Somebody has deleted it already, and it does not go by itself.
    admin.delete(kube_objects.namespace(inside))
    assert phase(admin.get(f"/api/v1/namespaces/{inside}")) == "Terminating"
    remove_namespace(admin, inside)
    assert refusal(admin, f"/api/v1/namespaces/{inside}") == "NotFound"
    assert [one for one in admin.get("/api/v1/pods")["items"] if one["metadata"]["namespace"] == inside] == []
    remove_namespace(admin, inside)


def test_a_server_that_is_stopped_accepts_and_never_answers(api_server: ApiServer, admin: KubeClient) -> None:
    api_server.signal(signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", api_server.port), timeout=5) as one:
            one.settimeout(0.2)
            with pytest.raises(TimeoutError):
                one.recv(1)
    finally:
        api_server.signal(signal.SIGCONT)
    assert admin.plain("/readyz") == "ok"


def test_its_port_is_nobody_elses_also_while_it_is_down(programs: Path, folder: Path) -> None:
    server = ApiServer(programs, folder)
    with closing(server), socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", server.port))


def test_one_that_cannot_start_says_why_and_leaves_nothing(programs: Path, folder: Path) -> None:
    server = ApiServer(programs, folder)
    (folder / "etcd").write_text("a file, where etcd wants its folder")
    with closing(server), pytest.raises(AssertionError, match=r"(?s)ended at once: .*etcd.*not a directory"):
        server.start()
    assert server.pids == {}


WAITS = """
import sys
from pathlib import Path
from tests.support.api_server import ApiServer
server = ApiServer(Path(sys.argv[1]), Path(sys.argv[2]))
server.start()
print(*server.pids.values(), flush=True)
sys.stdin.read()
"""


def test_nothing_runs_after_the_tests_were_killed(programs: Path, folder: Path) -> None:
    argv = [sys.executable, "-c", WAITS, str(programs), str(folder)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pids = [int(one) for one in process.stdout.readline().split()]
            assert len(pids) == 2
            assert all(map(alive, pids))
        finally:
            process.kill()
    for pid in pids:
        wait_until(lambda pid=pid: not alive(pid), f"process {pid} has ended")
