"""However it ends, nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launched import Launched, alive, children_of, launched, leftovers, ran, sessions
from tests.support.netns import Namespace, namespaces
from tests.support.wait import wait_until


@pytest.fixture
def node() -> Iterator[Namespace]:
    """A place of its own to capture in."""
    with namespaces("node") as (node,):
        yield node


def uids_and_capabilities(pid: int) -> tuple[int, int]:
    """The effective user of a process and its effective capabilities."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["Uid"].split()[1]), int(fields["CapEff"], 16)


def by_name(podloxx: Launched) -> dict[str, int]:
    """The process ids of the services."""
    found = {}
    for pid in children_of(podloxx.process.pid):
        line = Path(f"/proc/{pid}/cmdline").read_text()
        for name, word in (
            ("capture", "services.capture"),
            ("aggregator", "services.aggregator"),
            ("api", "services.api"),
        ):
            if word in line.split("\0"):
                found[name] = pid
        if "redis-server" in line.split("\0")[0]:
            found["redis"] = pid
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_leaves_nothing(node: Namespace, number: signal.Signals) -> None:
    before = leftovers()
    with launched("local", inside=node) as podloxx:
        children = children_of(podloxx.process.pid)
        assert len(children) == 4
        assert podloxx.end(number) == 0
    assert not [pid for pid in children if alive(pid)]
    assert leftovers() <= before


def test_after_the_launcher_was_killed_its_children_end_and_the_next_start_cleans(node: Namespace) -> None:
    before = leftovers()
    with launched("demo", inside=node) as podloxx:
        children = children_of(podloxx.process.pid)
        podloxx.process.kill()
        podloxx.process.wait()
        wait_until(lambda: not [pid for pid in children if alive(pid)], "all children have ended")
    assert leftovers() - before, "a killed launcher cannot clean up"
    with launched("demo", "--for=1s", inside=node) as again:
        again.process.wait(timeout=40)
    assert leftovers() <= before


def _interrupted_again(podloxx: Launched) -> bool:
    podloxx.process.send_signal(signal.SIGINT)
    return podloxx.process.poll() is not None


def test_a_second_interrupt_ends_it_at_once(node: Namespace) -> None:
    before = leftovers()
    with launched("local", inside=node) as podloxx:
        names = by_name(podloxx)
        os.kill(names["capture"], signal.SIGSTOP)
        podloxx.process.send_signal(signal.SIGINT)
        # Two signals at once may arrive as one.
        wait_until(lambda: not alive(names["api"]) or _interrupted_again(podloxx), "it ends", timeout_s=8)
        podloxx.process.wait(timeout=8)
    assert leftovers() <= before


@pytest.mark.parametrize("name", ["capture", "aggregator", "api", "redis"])
def test_a_child_that_dies_ends_the_session_with_a_sentence(node: Namespace, name: str) -> None:
    before = leftovers()
    with launched("local", inside=node) as podloxx:
        os.kill(by_name(podloxx)[name], signal.SIGKILL)
        _, said = podloxx.process.communicate(timeout=40)
    assert podloxx.process.returncode == 1
    assert f"podloxx: {name} ended by signal 9" in said
    assert leftovers() <= before


def test_each_child_has_a_user_and_the_privileges_of_its_own(node: Namespace) -> None:
    with launched("local", inside=node) as podloxx:
        found = {name: uids_and_capabilities(pid) for name, pid in by_name(podloxx).items()}
    assert {name: capabilities for name, (_, capabilities) in found.items()} == {
        "capture": 1 << 13 | 1 << 38 | 1 << 39,
        "aggregator": 0,
        "api": 0,
        "redis": 0,
    }
    uids = [uid for uid, _ in found.values()]
    assert len(set(uids)) == 4
    assert 0 not in uids


def test_only_the_api_listens_and_only_on_loopback(node: Namespace) -> None:
    with launched("local", inside=node) as podloxx:
        # Of the whole network namespace, which is this session's alone.
        one = Path(f"/proc/{by_name(podloxx)['api']}/net")
        tables = {name: (one / name).read_text().splitlines()[1:] for name in ("tcp", "tcp6", "udp", "udp6")}
        listening = {
            (name, line.split()[1])
            for name, lines in tables.items()
            for line in lines
            # 0A: listens; datagrams have no such state.
            if line.split()[3] == "0A" or name.startswith("udp")
        }
        assert listening == {("tcp", f"0100007F:{podloxx.port:04X}")}


def test_no_password_is_on_a_command_line_or_open_to_others(node: Namespace) -> None:
    with launched("local", inside=node) as podloxx:
        folder = next(Path(path) for path, pid in sessions().items() if pid == podloxx.process.pid)
        secrets = [folder / f"{name}.password" for name in ("agent", "aggregator", "viewer")]
        words = [path.read_text() for path in secrets]
        assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
        lines = "".join(
            Path(f"/proc/{pid}/{name}").read_text()
            for pid in children_of(podloxx.process.pid)
            for name in ("cmdline", "environ")
        )
        assert not [word for word in words if word in lines]
        outsider = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", str(folder)]
        assert subprocess.run(outsider, capture_output=True, check=False).returncode != 0


def test_the_version_is_told() -> None:
    done = ran("version")
    assert done.returncode == 0
    assert done.stdout == "podloxx 0.1.0\n"
