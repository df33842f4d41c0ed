"""Of a cluster of the tests nothing stays on the machine, however its starter ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

from tests.support import cgroups, kube_cluster, kube_site
from tests.support.wait import wait_until

# Of everything that a cluster has on a machine one, and a process that has left its parent.
STARTER = """
from tests.support import cgroups, netns
from tests.support.kube_site import Site, host_link

site = Site.make(kept=False)
cgroups.make(site.name, "system", "n1")
netns.run("ip", "netns", "add", site.space("n1").name)
netns.run("ip", "link", "add", host_link(site.name), "type", "veth", "peer", "name", "eth0", "netns", site.space("n1").name)
(site.folder / "run").mkdir()
netns.run("mount", "-t", "tmpfs", "tmpfs", str(site.folder / "run"))
site.start("stays", "sh", "-c", "setsid sleep 1000 & exec sleep 1000")
print(site.name, flush=True)
input()
"""
KINDS = {"process", "control", "link", "mount", "/run/netns/", tempfile.gettempdir()}


@pytest.fixture(autouse=True)
def able() -> None:
    if why := kube_cluster.missing():
        pytest.skip(why)


def test_what_a_killed_starter_left_is_removed_by_the_next_one_and_not_before() -> None:
    argv = [sys.executable, "-c", STARTER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout is not None
            name = starter.stdout.readline().strip()
            wait_until(lambda: len(cgroups.processes(name)) == 2, "both processes run")
            before = kube_site.traces(name)
            assert {kind for kind in KINDS if any(one.startswith(kind) for one in before)} == KINDS
            assert name not in kube_site.sweep()
            assert kube_site.traces(name) == before
        finally:
            starter.kill()
    # What it had started itself ends with it, without anybody's doing.
    wait_until(lambda: len(cgroups.processes(name)) == 1, "one process is left")
    assert name in kube_site.sweep()
    assert kube_site.traces(name) == []
    assert name not in {site.name for site in kube_site.sites()}
