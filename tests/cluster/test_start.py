"""`podloxx-launch start` as a process, ended in every phase: the cluster is as it was before, to the last uid."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kube_objects
from tests.support.api_server import ApiServer
from tests.support.kube_cleanup import remove_cluster_objects, remove_namespace
from tests.support.kube_client import KubeClient, Object
from tests.support.kube_controllers import Controllers, controlling, ready, waiting
from tests.support.launched import PROGRAM, ROOT
from tests.support.wait import wait_until

PENDING: Object = {"phase": "Pending", "conditions": []}


@pytest.fixture
def name(api_server: ApiServer, admin: KubeClient) -> Iterator[str]:
    """A namespace's name of the test's own."""
    one = f"plx-{secrets.token_hex(4)}"
    yield one
    if not api_server.pids:
        # The test failed while it had it down; the next one is not to.
        api_server.start()
    remove_namespace(admin, one)
    remove_cluster_objects(admin)


@pytest.fixture
def controllers(admin: KubeClient) -> Iterator[Controllers]:
    with controlling(admin) as one:
        yield one


def everything(admin: KubeClient) -> list[tuple[str, str, str]]:
    """Kind, name and uid of everything in the cluster but events."""
    found = []
    for base in [
        "/api/v1",
        *(f"/apis/{one['preferredVersion']['groupVersion']}" for one in admin.get("/apis")["groups"]),
    ]:
        for kind in admin.get(base)["resources"]:
            if "list" in kind["verbs"] and kind["name"] != "events":
                items = admin.get(f"{base}/{kind['name']}")["items"]
                found += [(kind["kind"], one["metadata"]["name"], one["metadata"].get("uid", "")) for one in items]
    return sorted(found)


@contextlib.contextmanager
def starting(api_server: ApiServer, name: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The launcher, on its way."""
    argv = [str(PROGRAM), "start", f"--kubeconfig={api_server.kubeconfig()}", f"--namespace={name}"]
    options = ["--port=0", "--no-browser", *more]
    pipe = subprocess.PIPE
    with subprocess.Popen([*argv, *options], stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and what was said."""
    out, err = process.communicate(timeout=50)
    return process.returncode, out, err


def there(admin: KubeClient, path: str) -> bool:
    """Whether something lies at a path."""
    with contextlib.suppress(Exception):
        return bool(admin.get(path))
    return False


PHASES = {
    "the namespace": "/api/v1/namespaces/{name}",
    "the aggregator": "/api/v1/namespaces/{name}/pods/aggregator-5d4f-x",
    "one image": "/api/v1/namespaces/{name}/pods/check",
    "the agents": "/api/v1/namespaces/{name}/pods/agent-n2",
}


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_in_every_phase_leaves_the_cluster_as_it_was(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str, phase: str
) -> None:
    before = everything(admin)
    held = {"the namespace": "aggregator", "the aggregator": "aggregator", "one image": "check", "the agents": "agent"}[
        phase
    ]
    fine = controllers.fate
    controllers.fate = lambda component, node: PENDING if component == held else fine(component, node)
    with starting(api_server, name) as process:
        wait_until(lambda: there(admin, PHASES[phase].format(name=name)), phase, timeout_s=30)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert code == 0, err
    assert f"context admin ({api_server.url}), namespace {name}" in out.splitlines()[0]
    assert "removed from the cluster: 0 objects left" in out
    assert everything(admin) == before


def test_ctrl_c_while_the_way_is_opened_leaves_the_cluster_as_it_was(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    with starting(api_server, name) as process:
        # No kubelet is there that would forward a port.
        wait_until(lambda: "agent" in controllers.made, "all pods are there", timeout_s=30)
        assert process.stderr is not None
        wait_until(lambda: "interrupted" in process.stderr.readline(), "it tells", timeout_s=20)  # type: ignore[union-attr]
        process.send_signal(signal.SIGTERM)
        code, out, err = ended(process)
    assert code == 0, err
    assert "0 objects left" in out
    assert everything(admin) == before


def test_an_image_that_cannot_be_had_is_the_error_and_nothing_is_left(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    refused = waiting("ErrImageNeverPull", "is not present", "podloxx/capture:9")
    fine = controllers.fate
    controllers.fate = lambda component, node: refused if component == "check" else fine(component, node)
    with starting(api_server, name) as process:
        code, out, err = ended(process)
    assert code == 1
    assert "does not get the image podloxx/capture:9" in err
    assert "podloxx-launch images load" in err
    assert "Traceback" not in err
    assert "0 objects left" in out
    assert everything(admin) == before


def test_what_is_to_be_kept_is_kept_and_clean_removes_it(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    controllers.fate = lambda _component, _node: waiting("ErrImageNeverPull", "is not present")
    with starting(api_server, name, "--keep") as process:
        code, out, err = ended(process)
    assert code == 1, err
    assert f"kept: the namespace {name}" in out
    assert there(admin, f"/api/v1/namespaces/{name}/pods/aggregator-5d4f-x")
    done = clean(api_server, f"--namespace={name}")
    assert done.returncode == 0, done.stderr
    assert "1 session removed, 0 objects left" in done.stdout
    assert everything(admin) == before


def elsewhere(name: str, labels: dict[str, str] | None = None, taint: str = "") -> Object:
    """A node that is not this cluster's own machine."""
    one = kube_objects.node(name)
    one["metadata"]["labels"] |= labels or {}
    one["spec"] = {"taints": [{"key": taint, "value": "x", "effect": "NoSchedule"}]} if taint else {}
    return one


FARGATE = elsewhere("fargate-10-0-1-2", {"eks.amazonaws.com/compute-type": "fargate"}, "eks.amazonaws.com/compute-type")
AZURE = elsewhere("virtual-node-aci-linux", {"type": "virtual-kubelet"}, "virtual-kubelet.io/provider")
TAINTED = elsewhere("burst", taint="virtual-kubelet.io/provider")
WINDOWS = elsewhere("win-1", {"kubernetes.io/os": "windows"})


def test_nodes_that_run_no_agent_are_named_before_anything_is_created(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    for one in (FARGATE, AZURE, TAINTED, WINDOWS, elsewhere("gk3-pool-1-x7"), elsewhere("n1")):
        admin.create(one)
    before = everything(admin)
    controllers.fate = lambda _component, _node: PENDING
    with starting(api_server, name) as process:
        wait_until(lambda: there(admin, PHASES["the aggregator"].format(name=name)), "it has begun", timeout_s=30)
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
    assert code == 0, err
    named = (
        "burst (a virtual node), fargate-10-0-1-2 (Fargate), virtual-node-aci-linux (a virtual node), win-1 (Windows)"
    )
    first, second, *_ = err.splitlines()
    assert first == f"no agent can run on {named}: of their pods only what others see is known"
    assert second.startswith("gk3-pool-1-x7: nodes of GKE Autopilot, which may forbid agents")
    assert everything(admin) == before


@pytest.mark.usefixtures("controllers")
def test_a_cluster_where_no_node_can_have_an_agent_is_refused(
    api_server: ApiServer, admin: KubeClient, name: str
) -> None:
    admin.create(FARGATE)
    before = everything(admin)
    with starting(api_server, name) as process:
        code, _, err = ended(process)
    assert code == 1
    assert "no node of the cluster can have an agent: fargate-10-0-1-2 (Fargate). They run no DaemonSets" in err
    assert everything(admin) == before


@pytest.mark.parametrize("phase", ["the aggregator", "the agents"])
def test_an_api_server_that_goes_away_meanwhile_is_told_and_nothing_is_left(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str, phase: str
) -> None:
    before = settled(admin)
    component = {"the namespace": "aggregator", "the aggregator": "aggregator", "one image": "check"}.get(
        phase, "agent"
    )
    fine = controllers.fate
    controllers.fate = lambda one, node: PENDING if one == component else fine(one, node)
    with starting(api_server, name) as process:
        wait_until(lambda: there(admin, PHASES[phase].format(name=name)), phase, timeout_s=30)
        api_server.stop()
        assert process.stdout is not None
        wait_until(lambda: "cannot be asked" in process.stdout.readline(), "it tells", timeout_s=20)  # type: ignore[union-attr]
        api_server.start()
        code, out, err = ended(process)
    assert code == 1
    assert f"the API server at {api_server.url} cannot be reached" in err
    assert "Traceback" not in err
    assert "0 objects left" in out
    assert settled(admin) == before


def settled(admin: KubeClient) -> list[tuple[str, str, str]]:
    """Everything but what an API server makes anew for itself whenever it starts."""
    return [one for one in everything(admin) if not one[1].startswith("apiserver-")]


def test_of_two_who_start_at_once_in_one_namespace_one_is_refused_and_takes_nothing_away(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    controllers.fate = lambda _component, _node: PENDING
    with starting(api_server, name) as one, starting(api_server, name) as other:
        wait_until(lambda: (one.poll(), other.poll()) != (None, None), "one is refused", timeout_s=30)
        winner, loser = (other, one) if one.poll() is not None else (one, other)
        code, out, err = ended(loser)
        assert code == 2, err
        assert "choose another one with --namespace" in err
        assert "removed from the cluster" not in out
        wait_until(lambda: there(admin, PHASES["the aggregator"].format(name=name)), "the other goes on", timeout_s=30)
        winner.send_signal(signal.SIGINT)
        code, out, err = ended(winner)
    assert code == 0, err
    assert "0 objects left" in out
    assert everything(admin) == before


def test_two_users_come_and_go_side_by_side(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    controllers.fate = lambda component, node: PENDING if component == "agent" else ready(component, node)
    with starting(api_server, name) as one, starting(api_server, f"{name}-b") as other:
        for namespace in (name, f"{name}-b"):
            wait_until(lambda of=namespace: there(admin, PHASES["the agents"].format(name=of)), namespace, timeout_s=40)
        one.send_signal(signal.SIGINT)
        code, out, err = ended(one)
        assert (code, "0 objects left" in out) == (0, True), err
        assert there(admin, PHASES["the agents"].format(name=f"{name}-b"))
        assert other.poll() is None
        other.send_signal(signal.SIGINT)
        code, out, err = ended(other)
        assert (code, "0 objects left" in out) == (0, True), err
    assert everything(admin) == before


def clean(api_server: ApiServer, *more: str) -> subprocess.CompletedProcess[str]:
    """`podloxx-launch clean`, as from another machine."""
    argv = [str(PROGRAM), "clean", f"--kubeconfig={api_server.kubeconfig()}", *more]
    return subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)


def test_a_launcher_that_was_killed_is_cleaned_up_after(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    controllers.fate = lambda _component, _node: PENDING
    with starting(api_server, name) as process:
        wait_until(lambda: there(admin, PHASES["the aggregator"].format(name=name)), "it has begun", timeout_s=30)
        process.kill()
        process.wait()
    # It was renewed a moment ago, so nobody but who names it removes it.
    assert f"kept: namespace {name}, whose launcher lives" in clean(api_server).stdout
    assert "1 session removed, 0 objects left" in clean(api_server, f"--namespace={name}").stdout
    assert everything(admin) == before


def ran(api_server: ApiServer, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    """A command of the launcher, to its end."""
    argv = [str(PROGRAM), command, f"--kubeconfig={api_server.kubeconfig()}", *more]
    return subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)


@pytest.mark.usefixtures("controllers")
def test_what_is_installed_stays_until_it_is_removed_by_name(
    api_server: ApiServer, admin: KubeClient, name: str
) -> None:
    before = everything(admin)
    named = f"--namespace={name}"
    done = ran(api_server, "install", named)
    assert done.returncode == 0, done.stderr
    assert f"remove it:   podloxx-launch clean --namespace {name} --context admin" in done.stdout
    assert "leaseDurationSeconds" not in str(
        admin.get(f"/apis/coordination.k8s.io/v1/namespaces/{name}/leases/podloxx")
    )
    again = ran(api_server, "install", named)
    assert again.returncode == 2
    assert "is installed in the namespace" in again.stderr
    assert f"kept: namespace {name}, which was installed to stay" in clean(api_server).stdout
    # No kubelet is there that could read a log, which is told in its place.
    assert ran(api_server, "logs", named, "--component=redis").stdout.startswith("redis-5d4f-x (n1): ")
    assert "1 session removed, 0 objects left" in clean(api_server, "--all").stdout
    assert everything(admin) == before


def test_an_installation_that_does_not_come_up_is_removed(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    controllers.fate = lambda _component, _node: waiting("ErrImageNeverPull", "is not present")
    done = ran(api_server, "install", f"--namespace={name}")
    assert done.returncode == 1
    assert "does not get the image" in done.stderr
    assert everything(admin) == before


@pytest.mark.parametrize("command", ["open", "status", "logs", "top"])
def test_where_podloxx_does_not_run_that_is_told(api_server: ApiServer, name: str, command: str) -> None:
    done = ran(api_server, command, f"--namespace={name}")
    assert done.returncode == 2
    assert f"the namespace {name}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_session_whose_namespace_somebody_removes_says_so_and_ends(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    before = everything(admin)
    controllers.fate = lambda _component, _node: PENDING
    with starting(api_server, name) as process:
        wait_until(lambda: there(admin, PHASES["the aggregator"].format(name=name)), "it has begun", timeout_s=30)
        admin.request("DELETE", f"/api/v1/namespaces/{name}")
        code, _, err = ended(process)
    assert code == 1
    assert "is gone" in err or "not found" in err
    assert "Traceback" not in err
    assert everything(admin) == before


def test_a_second_ctrl_c_says_what_is_left_to_do_by_hand(
    api_server: ApiServer, admin: KubeClient, controllers: Controllers, name: str
) -> None:
    controllers.finalizing = False
    controllers.fate = lambda _component, _node: PENDING
    with starting(api_server, name) as process:
        wait_until(lambda: there(admin, PHASES["the aggregator"].format(name=name)), "it has begun", timeout_s=30)
        process.send_signal(signal.SIGINT)
        where = f"/api/v1/namespaces/{name}"
        wait_until(lambda: "deletionTimestamp" in admin.get(where)["metadata"], "it is being removed", timeout_s=20)
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
    assert code == 4
    assert f"By hand: kubectl delete namespace {name}" in err
    controllers.finalizing = True
    wait_until(lambda: not there(admin, where), "it is gone")


def test_who_lacks_rights_is_told_which_and_nothing_is_created(
    api_server: ApiServer, admin: KubeClient, name: str
) -> None:
    before = everything(admin)
    argv = [str(PROGRAM), "start", f"--kubeconfig={api_server.kubeconfig('reader', 'readers')}", f"--namespace={name}"]
    done = subprocess.run([*argv, "--port=0"], capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
    assert done.returncode == 3
    assert "nothing was created, since these rights are missing: list namespaces, create namespaces" in done.stderr
    assert "create pods/portforward in the namespace" in done.stderr
    assert everything(admin) == before


def test_a_dry_run_prints_what_kubectl_takes_and_creates_nothing(
    api_server: ApiServer, admin: KubeClient, name: str, programs: Path, tmp_path: Path
) -> None:
    before = everything(admin)
    argv = [str(PROGRAM), "start", f"--kubeconfig={api_server.kubeconfig()}", f"--namespace={name}", "--dry-run"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (tmp_path / "objects.json").write_text(done.stdout)
    kubectl = [str(programs / "kubectl"), f"--kubeconfig={api_server.kubeconfig()}", f"--cache-dir={tmp_path}"]
    said = subprocess.run(
        [*kubectl, "apply", "--dry-run=client", "-o", "name", "-f", str(tmp_path / "objects.json")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert f"namespace/{name}" in said.stdout
    assert everything(admin) == before


def test_kubectl_has_it_as_a_plugin(api_server: ApiServer, name: str, programs: Path, tmp_path: Path) -> None:
    way = {"PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    environ = way | {"KUBECONFIG": str(api_server.kubeconfig())}
    argv = [str(programs / "kubectl"), "podloxx", "status", f"--namespace={name}"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 2
    assert f"podloxx does not run in the namespace {name}" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--context=nobody"], "has no context 'nobody': choose with --context among admin"),
        (["--namespace=Not_One"], "is no name of a namespace"),
        (["--ttl=5s"], "'5s' is less than 30s"),
        (["--node-selector=blue"], "'blue' is no label such as pool=blue"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(api_server: ApiServer, options: list[str], sentence: str) -> None:
    argv = [sys.executable, "-m", "services.launcher", "start", f"--kubeconfig={api_server.kubeconfig()}", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
