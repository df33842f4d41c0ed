from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.launcher import child
from services.launcher.child import User, command, effective, open_to_all, session_users
from services.runtime.errors import PodloxxError
from tests.support.launched import alive
from tests.support.wait import wait_until

SHOW = (sys.executable, "-c", "import sys; sys.stdout.write(open('/proc/self/status').read())")
NAMES = ("redis", "agent", "aggregator", "viewer")


def status(argv: list[str]) -> dict[str, str]:
    """What /proc says about a process that was started so."""
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return {line.split(":")[0]: line.split(":")[1].strip() for line in said.splitlines()}


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A file that all may read, in place of all that services need besides."""
    file = folder / "file"
    file.write_text("")
    file.chmod(0o644)
    monkeypatch.setattr(child, "_IMPORTED", ())
    return file


def test_a_child_has_its_user_and_no_capability() -> None:
    found = status(command(SHOW, User(61300, 61301)))
    assert found["Uid"].split() == ["61300"] * 4
    assert found["Gid"].split() == ["61301"] * 4
    assert found["Groups"] == ""
    assert found["NoNewPrivs"] == "1"
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_capture_keeps_just_what_it_needs() -> None:
    found = status(command(SHOW, User(61300, 61300), capabilities=frozenset({"net_raw"})))
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {1 << 13}


def test_root_without_a_user_of_its_own_has_no_capability_either() -> None:
    found = status(command(SHOW, User(None, None)))
    assert found["Uid"].split()[0] == "0"
    assert {int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_a_launcher_that_is_not_root_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command(["true"], User(None, None), capabilities=frozenset({"net_raw"})) == [
        *("setpriv", "--no-new-privs", "--pdeathsig=KILL", "--", "true")
    ]


def test_the_namespace_is_entered_before_privileges_go() -> None:
    argv = command(["true"], User(61300, 61300), netns=Path("/run/netns/one"))
    assert argv[:4] == ["nsenter", "--net=/run/netns/one", "--", "setpriv"]


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(PodloxxError, match="setpriv and nsenter of util-linux cannot be found"):
        command(["true"], User(None, None))


PARENT = """
import subprocess, sys
process = subprocess.Popen(sys.argv[1:])
print(process.pid, flush=True)
process.wait()
"""


@pytest.mark.parametrize("user", [User(None, None), User(61300, 61300)])
def test_a_child_dies_with_a_parent_that_is_killed(user: User) -> None:
    argv = command(["sleep", "600"], user, capabilities=frozenset({"net_raw"}))
    with subprocess.Popen([sys.executable, "-c", PARENT, *argv], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Only what has become `sleep` has asked to die.
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the child runs")
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(pid), "the child is gone")


def test_every_child_gets_a_user_of_its_own_that_nobody_has(reached: Path) -> None:
    users, reason = session_users(NAMES, [reached])
    assert reason == ""
    assert len({user.uid for user in users.values()}) == len(NAMES)
    assert len({user.gid for user in users.values()}) == 1
    assert all(user.uid in range(61184, 65520) for user in users.values())


def test_users_that_exist_are_not_taken(monkeypatch: pytest.MonkeyPatch, reached: Path) -> None:
    only = set(range(61200, 61204))
    entry = pwd.getpwuid(0)

    def everybody() -> list[object]:
        return [type(entry)((*entry[:2], uid, *entry[3:])) for uid in range(61184, 65520) if uid not in only]

    monkeypatch.setattr(pwd, "getpwall", everybody)
    users, _ = session_users(NAMES, [reached])
    assert {user.uid for user in users.values()} == only


def test_what_is_in_a_private_home_is_run_by_its_owner(reached: Path) -> None:
    reached.parent.chmod(0o700)
    os.chown(reached.parent, 61990, -1)
    users, reason = session_users(NAMES, [reached])
    assert {user.uid for user in users.values()} == {61990}
    assert str(reached) in reason
    [group] = {user.gid for user in users.values()}
    assert group in range(61184, 65520)


def test_what_only_root_may_read_is_run_by_root(reached: Path) -> None:
    reached.chmod(0o600)
    users, reason = session_users(NAMES, [reached])
    assert set(users.values()) == {User(None, None)}
    assert f"other users may not read {reached}" in reason


def test_what_several_users_keep_for_themselves_is_run_by_root(reached: Path) -> None:
    reached.parent.chmod(0o700)
    os.chown(reached.parent, 61990, -1)
    reached.chmod(0o600)
    os.chown(reached, 61991, -1)
    assert set(session_users(NAMES, [reached])[0].values()) == {User(None, None)}


def test_without_root_children_are_the_launchers_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    users, reason = session_users(NAMES)
    assert set(users.values()) == {User(None, None)}
    assert reason == "the launcher is not root"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"uid_map": "0 0 1\n"}, "in this user namespace there are no other users"),
        ({"gid_map": "0 100000 61000\n"}, "in this user namespace there are no other users"),
        ({"setgroups": "deny\n"}, "in this user namespace groups cannot be given up"),
        ({"uid_map": "0 100000 65536\n", "gid_map": "0 100000 65536\n"}, ""),
        ({"status": "Name:\tx\nCapEff:\t0000000000002000\n"}, "the launcher lacks CAP_CHOWN"),
    ],
)
def test_a_namespace_may_leave_no_choice(
    monkeypatch: pytest.MonkeyPatch, reached: Path, files: dict[str, str], reason: str
) -> None:
    whole = "0 0 4294967295\n"
    there = {"uid_map": whole, "gid_map": whole, "setgroups": "allow\n", "status": "CapEff:\t000001ffffffffff\n"}
    for name, text in {**there, **files}.items():
        (reached.parent / name).write_text(text)
    monkeypatch.setattr(child, "_PROC", reached.parent)
    users, said = session_users(NAMES, [reached])
    assert said.startswith(reason)
    assert (User(None, None) in users.values()) == bool(reason)


def test_the_capabilities_are_those_of_this_process() -> None:
    argv = ["setpriv", "--bounding-set=-all,+kill,+net_raw", "--inh-caps=-all", sys.executable, "-c"]
    said = subprocess.run(
        [*argv, "from services.launcher.child import effective; print(*sorted(effective()))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(child.__file__).parents[2],
    )
    assert said.stdout == "kill net_raw\n"
    assert effective() > {"kill", "net_raw"}


def test_a_link_is_as_open_as_what_it_leads_to(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    (private / "file").write_text("")
    (folder / "link").symlink_to(private / "file")
    assert not open_to_all(folder / "link")
    private.chmod(0o711)
    assert open_to_all(folder / "link")
