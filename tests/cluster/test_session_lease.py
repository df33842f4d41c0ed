"""An aggregator removes its own session when nobody renews the Lease any more, and never another one."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher.manifests import Chosen, objects, path_of
from tests.support import kube_objects
from tests.support.api_server import ApiServer
from tests.support.kube_cleanup import remove_cluster_objects, remove_namespace
from tests.support.kube_client import KubeClient
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until


@pytest.fixture
def session(admin: KubeClient) -> Iterator[str]:
    """A namespace with what an aggregator gets: its account and rights, and a Lease of a second."""
    chosen = Chosen(namespace=f"plx-{secrets.token_hex(4)}", holder="anna@laptop", ttl_s=1)
    for one in objects(chosen):
        if one["kind"] in {
            "Namespace",
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
            "Lease",
        }:
            admin.request("POST", path_of(one).rpartition("/")[0], one)
    yield chosen.namespace
    remove_namespace(admin, chosen.namespace)
    remove_cluster_objects(admin)


@contextlib.contextmanager
def aggregator(api_server: ApiServer, namespace: str, folder: Path, redis_url: str) -> Iterator[Path]:
    """The service with its account's own rights; its log."""
    kubeconfig = api_server.token_kubeconfig(namespace, "aggregator")
    argv = [sys.executable, "-m", "services.aggregator", f"--redis-url={redis_url}", f"--kubeconfig={kubeconfig}"]
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen([*argv, f"--session-namespace={namespace}"], stderr=file) as process:
        try:
            yield log
            assert process.poll() is None, log.read_text()
        finally:
            # In order, so that what was covered is told.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            process.kill()


def leaving(admin: KubeClient, namespace: str) -> bool:
    """Whether somebody deleted the namespace; nobody finalizes it here."""
    return "deletionTimestamp" in admin.get(f"/api/v1/namespaces/{namespace}")["metadata"]


def renew(admin: KubeClient, namespace: str, number: int) -> None:
    """As a launcher does."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/podloxx"
    admin.request("PATCH", path, {"spec": {"renewTime": f"2020-01-01T00:00:{number % 60:02d}.000000Z"}})


def test_a_session_that_nobody_renews_is_removed_by_its_own_account(
    api_server: ApiServer, admin: KubeClient, session: str, folder: Path, redis_server: RedisServer
) -> None:
    admin.create(kube_objects.namespace(f"{session}-other"))
    try:
        with aggregator(api_server, session, folder, redis_server.url) as log:
            wait_until(lambda: leaving(admin, session), "it deletes its namespace", timeout_s=20)
            assert "session-abandoned" in log.read_text()
            assert not leaving(admin, f"{session}-other")
    finally:
        remove_namespace(admin, f"{session}-other")


def test_it_does_so_also_while_there_is_no_store(
    api_server: ApiServer, admin: KubeClient, session: str, folder: Path
) -> None:
    with aggregator(api_server, session, folder, f"unix://{folder}/none"):
        wait_until(lambda: leaving(admin, session), "it deletes its namespace", timeout_s=20)


def test_one_that_is_renewed_stays_whatever_the_launchers_clock_says(
    api_server: ApiServer, admin: KubeClient, session: str, folder: Path, redis_server: RedisServer
) -> None:
    with aggregator(api_server, session, folder, redis_server.url) as log:
        numbers = iter(range(1000))

        def renewed() -> bool:
            renew(admin, session, next(numbers))
            return "cluster-watched" in log.read_text()

        wait_until(renewed, "it works", timeout_s=20)
        # Several times as long as the Lease lives.
        end = time.monotonic() + 5.0
        wait_until(lambda: (renewed(), time.monotonic() > end)[1], "time has passed", timeout_s=20)
        assert not leaving(admin, session)


def test_one_that_was_installed_to_stay_stays(
    api_server: ApiServer, admin: KubeClient, session: str, folder: Path, redis_server: RedisServer
) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{session}/leases/podloxx"
    admin.request("PATCH", path, {"spec": {"leaseDurationSeconds": None}})
    with aggregator(api_server, session, folder, redis_server.url) as log:
        wait_until(lambda: "cluster-watched" in log.read_text(), "it works", timeout_s=20)
        assert "session-abandoned" not in log.read_text()
        # It is looked at once more as soon as it has a time to live again.
        assert not leaving(admin, session)
