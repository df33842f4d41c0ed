"""A real Kubernetes of two dual-stack nodes on this machine: started, waited for, and removed without a trace."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.support import kube_images, kube_internet, kube_network, kube_node, kube_site
from tests.support.kube_client import KubeClient, Refused
from tests.support.kube_control import PORT, ControlPlane
from tests.support.kube_dns import objects as dns_objects
from tests.support.kube_node import Node
from tests.support.kube_site import Site
from tests.support.programs import WITHOUT, built, built_images
from tests.support.wait import wait_until

_READY_S: Final = 90.0
"""Fifteen on a machine that does nothing else."""
_NEEDED: Final = ("containerd", "ctr", "runc", "iptables", "ip", "nsenter", "gcc", "openssl")


class Cluster:
    """The cluster of one site; `images` are archives that its nodes get besides the tests' own."""

    def __init__(self, site: Site, images: list[Path]) -> None:
        self.site = site
        apiserver, cluster = built("apiserver"), built("cluster")
        assert apiserver is not None, missing()
        assert cluster is not None, missing()
        self._coredns = cluster / "coredns"
        self._images = [kube_images.make(site.folder, self._coredns), *images]
        self.kubectl = apiserver / "kubectl"
        self._control = ControlPlane(site, apiserver, cluster)
        self.kubeconfig = self._control.kubeconfig
        self.admin = KubeClient(PORT, self._control.tls(), host=self._control.host)
        self.nodes = [Node(site, number, cluster, self._control.authority) for number in kube_network.NODES]
        self.internet = site.space("internet")

    def start(self) -> None:
        """Start all of it; returns when both nodes are ready."""
        kube_node.make_groups(self.site)
        kube_network.make(self.site)
        kube_internet.start(self.site, self._coredns)
        self._control.start_api()
        for node in self.nodes:
            node.start_containers()
        with ThreadPoolExecutor() as threads:
            loading = [threads.submit(node.load, self._images) for node in self.nodes]
            self._wait(self._api_is_ready, "the API server is ready")
            for node in self.nodes:
                self.admin.create(node.object())
            self._control.start_controllers()
            for one in dns_objects():
                self.admin.create(one)
            for done in loading:
                done.result()
        proxy = self._control.user("system:kube-proxy")
        for node in self.nodes:
            node.start_kubelet(self._control.user(f"system:node:{node.name}", "system:nodes"), proxy)
        self._wait(self._nodes_are_ready, "both nodes are ready")

    @contextlib.contextmanager
    def api_killed(self) -> Iterator[None]:
        """No API server while inside; a new one is ready after."""
        with self._control.api_killed():
            yield
        self._wait(self._api_is_ready, "the API server is ready again")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            self.site.check()
            return condition()

        try:
            wait_until(holds, what, _READY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.site.log()}") from error

    def _api_is_ready(self) -> bool:
        with contextlib.suppress(OSError, Refused, http.client.HTTPException):
            return self.admin.plain("/readyz") == "ok"
        return False

    def _nodes_are_ready(self) -> bool:
        nodes = self.admin.get("/api/v1/nodes")["items"]
        conditions = [one for node in nodes for one in node["status"].get("conditions", [])]
        return [one["status"] for one in conditions if one["type"] == "Ready"] == ["True"] * len(self.nodes)


def missing() -> str:
    """Why no cluster can run here; empty where one can."""
    for group in ("apiserver", "cluster"):
        if built(group) is None:
            return WITHOUT[group]
    programs = [name for name in _NEEDED if shutil.which(name) is None]
    if programs or not Path("/usr/lib/cni/bridge").exists():
        return f"without {', '.join(programs) or 'CNI plugins'}: `make setup` as root installs them"
    return ""


@contextlib.contextmanager
def running(*images: Path, kept: bool = False) -> Iterator[Cluster]:
    """A cluster; removed at the end, and where it does not come up, unless it is kept and came up."""
    kube_site.sweep()
    site = Site.make(kept=kept)
    came_up = False
    try:
        cluster = Cluster(site, list(images))
        cluster.start()
        came_up = True
        yield cluster
    finally:
        if not (kept and came_up):
            site.remove()


def main() -> None:
    """`up` starts a cluster that stays, `down` removes all clusters of tests that nobody is testing with."""
    parser = argparse.ArgumentParser(prog="kube_cluster")
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("--image", type=Path, action="append", default=[], help="an archive that both nodes get")
    arguments = parser.parse_args()
    if arguments.verb == "down":
        for site in kube_site.sites():
            if site.kept or not site.owned():
                site.remove()
                print(f"cluster: {site.name} is removed")
        return
    if why := missing():
        sys.exit(f"cluster: {why}")
    images = [*built_images(), *arguments.image]
    print(
        f"cluster: the nodes get {', '.join(map(str, images)) or 'no images (`make images` builds them)'}", flush=True
    )
    began = time.monotonic()
    with running(*images, kept=True) as cluster:
        print(
            f"cluster: {cluster.site.name} is ready after {time.monotonic() - began:.0f} s; `make cluster-down` removes it"
        )
        print(f"export KUBECONFIG={cluster.kubeconfig}")


if __name__ == "__main__":
    main()
