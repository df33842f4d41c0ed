"""Fixtures of the tests that need a real API server, or a real cluster."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import kube_cluster, kube_network, kube_objects, kube_work
from tests.support.api_server import ApiServer
from tests.support.kube_cleanup import remove_cluster_objects, remove_namespace
from tests.support.kube_client import KubeClient
from tests.support.kube_podloxx import Podloxx
from tests.support.kube_target import Target
from tests.support.programs import TOOLS, WITHOUT, WITHOUT_IMAGES, built, built_images

_SETUP_S: Final = 240
"""For a test that may be the first, which starts the cluster, on a machine that is busy."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--cluster` runs what needs the real cluster, and just that; `make cluster` gives it, `make test` runs the rest."""
    parser.addoption("--cluster", action="store_true", help="the tests on a real cluster, and no others")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests on the real cluster or the others; those with podloxx deployed go together."""

    def place(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return ("target" in names) + ("podloxx" in names)

    # The option is known where these tests were asked for by their folder.
    real = config.getoption("--cluster", default=False)
    config.hook.pytest_deselected(items=[item for item in items if bool(place(item)) != real])
    items[:] = [item for item in items if bool(place(item)) == real]
    items.sort(key=place)
    for item in items:
        if place(item) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SETUP_S))


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of what `make apiserver` builds."""
    folder = built("apiserver")
    if folder is None:
        pytest.skip(WITHOUT["apiserver"])
    return folder


@pytest.fixture(scope="session")
def api_server(programs: Path) -> Iterator[ApiServer]:
    """A running API server, the same for all tests: what is no namespace's is removed by `namespace`."""
    with tempfile.TemporaryDirectory(prefix="plx") as name:
        server = ApiServer(programs, Path(name))
        try:
            server.start()
            yield server
        finally:
            server.close()


@pytest.fixture
def admin(api_server: ApiServer) -> KubeClient:
    """Requests of somebody who may do everything."""
    return api_server.admin


@pytest.fixture
def namespace(api_server: ApiServer, admin: KubeClient) -> Iterator[str]:
    """A namespace of the test's own; removed at the end with all that is in it, all nodes, and the roles that tests made."""
    name = f"plx-{secrets.token_hex(4)}"
    admin.create(kube_objects.namespace(name))
    yield name
    if not api_server.pids:
        # The test failed while it had it down; the next one is not to.
        api_server.start()
    remove_namespace(admin, name)
    remove_cluster_objects(admin)


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """A cluster with nodes, the same for all tests: this machine's own, or that of PODLOXX_TEST_KUBECONFIG."""
    if named := os.environ.get("PODLOXX_TEST_KUBECONFIG"):  # noqa: TID251
        yield Target(Path(named).expanduser().resolve())
        return
    if why := kube_cluster.missing():
        pytest.skip(why)
    images = built_images()
    if not images:
        pytest.skip(WITHOUT_IMAGES)
    with kube_cluster.running(*images) as cluster:
        yield Target(cluster.kubeconfig, str(cluster.kubectl), kube_network.INTERNET, cluster.api_killed)


@pytest.fixture(scope="session")
def podloxx(target: Target) -> Iterator[Podloxx]:
    """podloxx, as `kubectl apply -k` brings it to the cluster; a test says when."""
    with tempfile.TemporaryDirectory(prefix="plx") as name:
        one = Podloxx(target, Path(name))
        try:
            yield one
        finally:
            one.down()


@pytest.fixture
def deployed(podloxx: Podloxx) -> Podloxx:
    """The same, running."""
    podloxx.up()
    return podloxx


@pytest.fixture(scope="session")
def work(target: Target) -> Iterator[str]:
    """The namespace of pods that talk with each other."""
    name = f"plx-{secrets.token_hex(4)}"
    nodes = [one["metadata"]["name"] for one in target.get("nodes")["items"]]
    try:
        kube_work.start(target, name, TOOLS, (nodes[0], nodes[-1]))
        yield name
    finally:
        target.run("delete", "namespace", name, "--timeout=60s", timeout_s=70)
