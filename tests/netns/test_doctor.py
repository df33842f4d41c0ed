"""`doctor` and the agent's `--check`, on real interfaces and with real privileges withheld."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.capture import check
from services.launcher import doctor as module
from services.runtime.findings import Finding, State, from_json
from tests.support.netns import Namespace, namespaces
from tests.support.privileges import ROOT, run_as
from tests.support.redis_server import RedisServer

CHECK = [sys.executable, "-m", "services.capture", "--check", "--json"]
DOCTOR = [sys.executable, "-m", "services.launcher", "doctor", "--port", "0", "--json"]
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
AS_MODULE = (
    "import runpy, sys; sys.argv = ['capture', *{words!r}]; runpy.run_module('services.capture', run_name='__main__')"
)


def looked(argv: list[str], code: int, **environment: str) -> Mapping[str, Finding]:
    """The findings of a command, by what they are about."""
    words = [f"{name}={value}" for name, value in environment.items()]
    done = subprocess.run(["env", *words, *argv], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert json.loads(done.stdout)["fine"] is (code == 0)
    return {one.about: one for one in from_json(done.stdout)}


def test_all_is_fine_where_a_pod_is(pair: tuple[Namespace, Namespace]) -> None:
    node, _ = pair
    found = looked(node.command(*DOCTOR), 0)
    assert found["interfaces"] == Finding("interfaces", State.OK, "1 of pods: veth0; others: lo")
    assert {one.state for one in found.values()} == {State.OK}
    assert {"kernel", "capabilities", "source ebpf", "source ring", "redis-server", "port", "util-linux"} <= set(found)
    assert found["source ebpf"].text == "works, and is used"
    # It looks with the rights of the agent, not with its own.
    assert "CAP_SYS_ADMIN" not in found["capabilities"].text


def test_interfaces_of_nobodys_pod_are_named() -> None:
    with namespaces("node") as (node,):
        node.ip("link add odd0 type veth peer name odd1")
        found = looked(node.command(*CHECK), 0)["interfaces"]
        assert (found.state, found.text) == (State.WARNING, "none of a pod's; there are lo, odd0, odd1")
        assert "--interface-prefix" in found.mend
        chosen = looked(node.command(*CHECK, "--interface-prefix", "odd"), 0)["interfaces"]
        assert (chosen.state, chosen.text) == (State.OK, "2 of pods: odd0, odd1; others: lo")
        unmet = looked(node.command(*CHECK, "--interface-prefix", "azv|cali"), 0)["interfaces"]
        assert (unmet.state, unmet.text) == (State.WARNING, "none begins with azv or cali; there are lo, odd0, odd1")
        missing = looked(node.command(*CHECK, "--interface", "nothing"), 1)["interfaces"]
        assert missing.state is State.PROBLEM
        assert "nothing" in missing.text
        for at in range(10):
            node.ip(f"link add many{at} type bridge")
        assert "and 5 more" in looked(node.command(*CHECK), 0)["interfaces"].text


def checked(*capabilities: str, words: tuple[str, ...] = ()) -> tuple[int, dict[str, Finding]]:
    """The agent's check as somebody with just these capabilities."""
    done = run_as(AS_MODULE.format(words=["--check", "--json", *words]), *capabilities)
    return done.returncode, {one.about: one for one in from_json(done.stdout)}


def test_without_any_right_it_says_which_ones_to_give() -> None:
    code, found = checked()
    assert code == 1
    assert found["capabilities"].state is State.PROBLEM
    assert "without CAP_NET_RAW packets cannot be seen at all" in found["capabilities"].text
    assert "NET_RAW, BPF, PERFMON" in found["capabilities"].mend
    assert found["source socket"].state is State.PROBLEM
    assert "CAP_NET_RAW" in found["source socket"].mend


def test_with_raw_sockets_alone_it_works_less_well() -> None:
    code, found = checked("net_raw")
    assert code == 0
    assert found["capabilities"].state is State.WARNING
    assert found["source ebpf"].state is State.WARNING
    assert found["source ring"].text == "works, and is used"
    code, found = checked("net_raw", words=("--capture", "ebpf"))
    assert (code, found["source ebpf"].state) == (1, State.PROBLEM)


def test_with_the_agents_rights_all_is_fine() -> None:
    code, found = checked("net_raw", "bpf", "perfmon")
    assert code == 0
    assert found["capabilities"].state is State.OK
    assert found["source ebpf"].text == "works, and is used"


def test_control_groups_are_looked_at_with_the_rights_that_it_gets() -> None:
    found = looked([*DOCTOR, "--capture", "cgroup"], 0)
    assert found["source cgroup"].text == "works, and is used"
    assert re.fullmatch(r"\d+ of containers, [1-9]\d* others", found["control groups"].text)
    assert "interfaces" not in found
    code, checked_as = checked("net_raw", "bpf", "perfmon", words=("--capture", "cgroup"))
    assert code == 1
    assert checked_as["source cgroup"].state == "problem"


def test_tcx_is_looked_at_with_the_rights_that_it_gets() -> None:
    found = looked([*DOCTOR, "--capture", "tcx"], 0)
    assert found["source tcx"].text == "works, and is used"
    assert found["capabilities"].state is State.OK
    assert "CAP_NET_RAW" not in found["capabilities"].text
    code, checked_as = checked("net_raw", "bpf", "perfmon", words=("--capture", "tcx"))
    assert (code, checked_as["capabilities"].state) == (1, State.PROBLEM)
    assert "without CAP_NET_ADMIN packets cannot be seen" in checked_as["capabilities"].text
    assert "[NET_ADMIN, BPF, PERFMON]" in checked_as["capabilities"].mend


@pytest.mark.parametrize(
    ("release", "most", "state"),
    [
        ("5.10.0-30-amd64", 64 << 10, State.WARNING),
        ("5.10.0-30-amd64", 1 << 30, State.OK),
        ("5.10.0-30-amd64", resource.RLIM_INFINITY, State.OK),
        ("5.11.0", 64 << 10, State.OK),
        ("unheard-of", 64 << 10, State.WARNING),
    ],
)
def test_old_kernels_bound_what_may_be_locked(release: str, most: int, state: State) -> None:
    found = check._memlock(release, most)
    assert found.state is state
    assert bool(found.mend) is (state is not State.OK)
    assert ("64 KiB" in found.text) is (state is not State.OK)


def test_a_kernel_that_is_too_old_is_no_obstacle() -> None:
    assert check._kernel("5.4.0-150-generic").state is State.WARNING
    assert check._kernel("5.5.0").state is State.OK


def test_the_store_is_looked_at_where_one_is_named(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        found = looked([*CHECK, "--redis-url", redis.url], 0)
        assert found["store"].state is State.OK
    finally:
        redis.stop()
    found = looked([*CHECK, "--redis-url", redis.url], 1)
    assert found["store"].state is State.PROBLEM
    assert redis.url in found["store"].text
    assert "store" not in looked(CHECK, 0)


def test_settings_that_are_wrong_are_told_as_everywhere() -> None:
    done = subprocess.run([*CHECK, "--flow-capacity", "none"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "--flow-capacity must be a whole number" in done.stderr
    plain = subprocess.run(CHECK[:-1], capture_output=True, text=True, cwd=ROOT, check=True)
    assert plain.stdout.splitlines()[0].startswith("ok")


def test_who_has_the_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = looked([*DOCTOR, "--port", str(port)], 0)["port"]
        assert found.state is State.WARNING
        assert f"{port} is taken by " in found.text
        assert f"(process {os.getpid()})" in found.text
        assert "--port" in found.mend


def test_programs_that_are_missing_or_too_old(tmp_path: Path) -> None:
    found = looked(DOCTOR, 1, PATH=str(tmp_path))
    assert found["util-linux"].text == "there is no setpriv and nsenter"
    redis = tmp_path / "redis-server"
    redis.write_text("#!/bin/sh\necho Redis server v=5.0.7 sha=0\n")
    redis.chmod(0o755)
    found = looked(DOCTOR, 1, PATH=f"{tmp_path}:{SYSTEM}")
    assert found["redis-server"].state is State.PROBLEM
    assert "5.0.7" in found["redis-server"].text
    redis.write_text("#!/bin/sh\n")
    assert "version" in looked(DOCTOR, 1, PATH=f"{tmp_path}:{SYSTEM}")["redis-server"].text


async def test_a_check_that_fails_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert not await module.doctor({}, 0, json=False)
    assert "its check failed: exit code 1" in capsys.readouterr().out
    monkeypatch.setattr(module, "_CHECK_S", 0.0)
    assert not await module.doctor({}, 0, json=False)
    assert "took longer" in capsys.readouterr().out
