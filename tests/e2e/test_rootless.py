"""`podloxx-launch demo` as a user without any right, in a user namespace."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launched import PROGRAM, Launched, alive, children_of, leftovers, ours, port_of, sessions, unmeasured
from tests.support.truth import wait_for_total
from tests.support.wait import wait_until

NOBODY = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture
def demo() -> Iterator[Launched]:
    """The demo, run by nobody."""
    argv = [*NOBODY, str(PROGRAM), "demo", "--port=0", "--no-browser"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=unmeasured(), cwd="/"
    ) as process:
        one = Launched(process, None)
        ours(process.pid)
        try:
            one.port = port_of(one)
            ours(process.pid)
            yield one
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=40)


def test_it_shows_live_traffic_and_leaves_nothing_behind(demo: Launched) -> None:
    before = leftovers()
    assert demo.process.pid in sessions().values()
    wait_for_total(demo, lambda pods: len(pods) >= 8, "the pods are there")
    nodes = demo.get("/traffic/nodes")
    # The kernel lets nobody but its own root load programs.
    assert {node["source"] for node in nodes.values()} == {"ring"}
    packets = demo.get("/traffic/overview")["packetsSum"]
    wait_until(lambda: demo.get("/traffic/overview")["packetsSum"] > packets, "more packets")
    scopes = demo.get("/traffic/overview")["clusterScopes"]
    assert {"same-node", "cross-zone", "internet"} <= set(scopes)
    # A ring may lose some where the machine is busy, and says so.
    assert demo.get("/traffic/overview")["loss"].keys() <= {"kernel-drop"}
    children = children_of(demo.process.pid)
    assert children
    assert demo.end(signal.SIGINT) == 0
    assert not [pid for pid in children if alive(pid)]
    assert leftovers() <= before


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1",
            "unshare failed: Operation not permitted",
        ),
        ("exit 7", "unshare fails with exit code 7"),
    ],
)
def test_where_there_can_be_no_user_namespace_it_says_so(tmp_path: Path, script: str, said: str) -> None:
    program = tmp_path / "unshare"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    path = f"PATH={tmp_path}:/usr/bin:/bin"
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    argv = [*NOBODY, "env", path, str(PROGRAM), "demo", "--no-browser"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=unmeasured())
    assert done.returncode == 3
    assert said in done.stderr
    assert "sudo podloxx-launch demo" in done.stderr
    assert done.stderr.count("\n") == 1
