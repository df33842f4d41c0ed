"""`podloxx-launch` on a real cluster: shows it soon, mends its way into it by itself, and leaves nothing, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from tests.support import chromium, dashboard
from tests.support.kube_target import Target
from tests.support.launched import PROGRAM, ROOT, Launched, children_of, port_of
from tests.support.wait import wait_until

FIRST_TRAFFIC_S = 20.0
MENDED_S = 15.0
SLEPT_S = 40.0


@dataclass
class Session:
    """A launcher that shows the cluster, in a namespace of its own."""

    target: Target
    namespace: str
    launched: Launched
    err: Path
    before: set[str] = field(default_factory=set)

    def is_current(self) -> bool:
        """Whether the API serves what is so now."""
        with contextlib.suppress(OSError):
            return self.launched.ask("/readyz")[0] == 200
        return False

    def until_current(self, within_s: float = 30.0) -> float:
        """Wait for it; how long that took."""
        began = time.monotonic()
        wait_until(self.is_current, f"what is shown is current ({self.err.read_text()[-500:]})", timeout_s=within_s)
        return time.monotonic() - began

    def said(self, what: str) -> bool:
        return what in self.err.read_text()


@contextlib.contextmanager
def session(target: Target, folder: Path, *more: str) -> Iterator[Session]:
    """A launcher until its page is served; killed at the end if it still runs, and cleaned up after."""
    namespace = f"plx-{secrets.token_hex(4)}"
    err = folder / f"{namespace}.err"
    argv = [str(PROGRAM), "start", f"--kubeconfig={target.kubeconfig}", f"--namespace={namespace}", "--port=0"]
    with (
        err.open("wb") as log,
        subprocess.Popen(
            [*argv, "--no-browser", *more], stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
        ) as process,
    ):
        launched = Launched(process, None)
        try:
            launched.port = page(launched, err)
            yield Session(target, namespace, launched, err)
        finally:
            process.kill()
            process.wait()
            ran(target, "clean", f"--namespace={namespace}")


def page(launched: Launched, err: Path) -> int:
    """The port of the page once it is told."""
    try:
        return port_of(launched)
    except (AssertionError, AttributeError) as error:
        raise AssertionError(f"{launched.said}\n{err.read_text()}") from error


def ran(target: Target, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The launcher with a command, to its end."""
    argv = [str(PROGRAM), arguments[0], f"--kubeconfig={target.kubeconfig}", *arguments[1:]]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def shown(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One session for the tests that only look, or break something for a while."""
    with session(target, tmp_path_factory.mktemp("live")) as one:
        yield one


def rows(launched: Launched) -> set[str]:
    """The names of what is shown; none while another test has broken the way."""
    status, body, _ = launched.ask("/traffic/total")
    return set(json.loads(body)) if status == 200 else set()


def lasting(objects: set[str]) -> set[str]:
    """Those that other tests' work does not replace meanwhile."""
    return {one for one in objects if not one.startswith(("Pod ", "EndpointSlice "))}


def ours(objects: set[str], namespace: str) -> set[str]:
    """Those of a session."""
    return {one for one in objects if namespace in one.split()[1:3] or f"podloxx-{namespace}-" in one}


def test_first_traffic_is_there_soon(shown: Session) -> None:
    [line] = [line for line in shown.launched.said if line.startswith("first traffic after")]
    print(line)
    assert float(line.split()[3]) <= FIRST_TRAFFIC_S

    # Probes and questions of others; whose they are is known a moment later.
    wait_until(lambda: "kube-system/coredns" in " ".join(rows(shown.launched)), "others' pods are shown", 40)


def test_status_tells_of_every_node(shown: Session) -> None:
    shown.until_current()
    found: dict[str, Any] = {}

    def well() -> bool:
        done = ran(shown.target, "status", f"--namespace={shown.namespace}", "--json")
        found.update(json.loads(done.stdout))
        return done.returncode == 0

    wait_until(well, "all is well", timeout_s=30)
    nodes = {one["metadata"]["name"] for one in shown.target.get("nodes")["items"]}
    assert set(found["nodes"]) == nodes
    assert all(one["reported"]["live"] and one["agent"]["ready"] for one in found["nodes"].values())
    assert found["session"]["renewedSecondsAgo"] < 30
    assert {name.split("-")[0] for name in found["services"]} == {"aggregator", "redis"}
    # What `start` has said as well.
    assert all(shown.said(one["network"]["why"]) for one in found["nodes"].values())
    assert shown.said("network of ")


def test_top_ranks_the_pods(shown: Session) -> None:
    shown.until_current()
    done = ran(shown.target, "top", f"--namespace={shown.namespace}", "--once", f"--filter=ns:{shown.namespace}")
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.strip().splitlines()[2:]]
    assert {one.split("/")[1].split("-")[0] for one in listed} == {"aggregator", "redis"}


def test_logs_come_from_every_pod(shown: Session) -> None:
    done = ran(shown.target, "logs", f"--namespace={shown.namespace}", "--tail=3")
    assert done.returncode == 0, done.stderr
    assert {line.split("-")[0] for line in done.stdout.splitlines()} == {"agent", "aggregator", "redis"}


def test_open_shows_the_same_and_leaves_it(shown: Session, tmp_path: Path) -> None:
    err = tmp_path / "err"
    argv = [str(PROGRAM), "open", f"--kubeconfig={shown.target.kubeconfig}", f"--namespace={shown.namespace}"]
    with (
        err.open("wb") as log,
        subprocess.Popen(
            [*argv, "--port=0", "--no-browser"], stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
        ) as process,
    ):
        try:
            one = Launched(process, None)
            one.port = page(one, err)
            wait_until(lambda: one.ask("/readyz")[0] == 200, "it shows it", timeout_s=20)
            wait_until(lambda: rows(one) & rows(shown.launched), "both show the same", timeout_s=20)
            assert one.end() == 0, err.read_text()
        finally:
            process.kill()
    shown.until_current()


def test_an_image_that_no_node_has_is_the_error_and_nothing_is_left(target: Target, shown: Session) -> None:
    shown.until_current()
    namespace = f"plx-{secrets.token_hex(4)}"
    done = ran(
        target, "start", f"--namespace={namespace}", "--port=0", "--image-prefix=nobody/has", "--pull-policy=Never"
    )
    assert done.returncode == 1
    assert "does not get the image nobody/has/aggregator:" in done.stderr
    assert "podloxx-launch images load" in done.stderr
    assert "removed from the cluster: 0 objects left" in done.stdout
    assert ours(target.everything(), namespace) == set()


async def test_a_browser_shows_rows_soon_and_ctrl_c_leaves_nothing(target: Target, tmp_path: Path) -> None:
    before = target.everything()
    async with async_playwright() as playwright, chromium.launched(playwright) as browser:
        page = await browser.new_page()
        began = time.monotonic()
        with session(target, tmp_path) as one:
            await dashboard.opened(page, f"http://127.0.0.1:{one.launched.port}/")
            seen_s = time.monotonic() - began
            print(f"the first live row stands in Chromium {seen_s:.1f} s after `start`")
            await browser.close()
            leaves_nothing(target, one, before)
    assert seen_s <= FIRST_TRAFFIC_S


def leaves_nothing(target: Target, one: Session, before: set[str]) -> None:
    """CTRL+C removes all of a session, says so, and the cluster is as it was."""
    assert ours(target.everything(), one.namespace)
    code = one.launched.end()
    assert code == 0, one.err.read_text()
    assert one.launched.process.stdout is not None
    removed = one.launched.process.stdout.read()
    assert "removed from the cluster: 0 objects left" in removed
    print(removed.strip().splitlines()[-1])
    after = target.everything()
    assert ours(after, one.namespace) == set()
    assert lasting(after ^ before) == set()


def test_a_redis_pod_that_goes_is_followed_by_the_next(shown: Session) -> None:
    shown.until_current()
    target = shown.target
    target.run(
        "delete",
        "pod",
        f"--namespace={shown.namespace}",
        "--selector=app.kubernetes.io/component=redis",
        "--wait=false",
    )
    wait_until(lambda: not shown.is_current(), "it is noticed", timeout_s=10)
    assert shown.until_current() <= MENDED_S


def frozen(*pids: int) -> contextlib.ExitStack:
    """Processes that stand still while inside."""
    stack = contextlib.ExitStack()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
    return stack


def programs(target: Target, name: str) -> list[int]:
    """The process ids of a program of this machine's cluster; empty where it is somebody else's cluster."""
    site = str(target.kubeconfig.parent.parent)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().decode().split("\0")
            if Path(argv[0]).name == name and any(site in one for one in argv):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("name", ["kubelet", "kube-apiserver"])
def test_a_program_of_the_cluster_that_stands_still_is_told_and_outlived(shown: Session, name: str) -> None:
    pids = programs(shown.target, name)
    if not pids:
        pytest.skip("without this machine's own cluster its programs are not ours to stop")
    shown.until_current()
    with frozen(*pids):
        wait_until(lambda: shown.launched.ask("/readyz")[0] == 503, "the page says so", timeout_s=20)
        detail = json.loads(shown.launched.ask("/readyz")[1])["detail"]
        assert "the way into the cluster is interrupted" in detail or "Redis" in detail
    assert shown.until_current() <= MENDED_S


def test_an_api_server_that_starts_anew_is_outlived(shown: Session) -> None:
    if shown.target.api_killed is None:
        pytest.skip("without this machine's own cluster its API server is not ours to kill")
    shown.until_current()
    with shown.target.api_killed():
        wait_until(lambda: not shown.is_current(), "it is noticed", timeout_s=10)
    assert shown.until_current() <= MENDED_S


def test_a_launcher_that_stands_still_goes_on(shown: Session) -> None:
    shown.until_current()
    with frozen(shown.launched.process.pid):
        wait_until(lambda: not shown.is_current(), "its API, which has no way any more, notices", timeout_s=30)
    assert shown.until_current() <= MENDED_S


def test_a_laptop_that_slept_goes_on(shown: Session) -> None:
    shown.until_current()
    pid = shown.launched.process.pid
    tree = [pid, *children_of(pid)]
    assert len(tree) > 1
    with frozen(*tree):
        # Longer than any of its heartbeats and timeouts, shorter than its --ttl.
        time.sleep(SLEPT_S)
    assert shown.until_current() <= MENDED_S


@pytest.mark.timeout(200)
def test_one_that_was_killed_removes_itself_while_another_comes_and_goes(
    target: Target, shown: Session, tmp_path: Path
) -> None:
    shown.until_current()
    before = target.everything()
    with session(target, tmp_path, "--ttl=30s") as dead, session(target, tmp_path) as other:
        dead.launched.process.kill()
        dead.launched.process.wait()
        # Two at once, of which one goes on.
        other.until_current()
        assert ours(target.everything(), other.namespace)
        code = other.launched.end()
        assert other.launched.process.stdout is not None
        assert code == 0, other.err.read_text()
        removed = other.launched.process.stdout.read()
        assert "removed from the cluster: 0 objects left" in removed
        print(removed.strip().splitlines()[-1])
        assert ours(target.everything(), other.namespace) == set()
        wait_until(lambda: not ours(target.everything(), dead.namespace), "the other one removes itself", timeout_s=120)
    assert shown.is_current()
    assert lasting(target.everything() ^ before) == set()
