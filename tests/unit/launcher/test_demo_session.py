"""Whose a demo session is, and whether its owner lives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from services.launcher.demo import namespaces
from services.launcher.demo.session import (
    alive_by,
    claim,
    clean_leftovers,
    directory_file,
    forget,
    internet_namespace,
    node_namespace,
    plan_file,
    pod_namespace,
    session_of,
    state_file,
    this_process,
)
from services.launcher.session import write_whole


@pytest.fixture(autouse=True)
def _no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "names", list[str])


@pytest.mark.parametrize(
    ("name", "session"),
    [
        (node_namespace("s1", "node-a"), "s1"),
        (internet_namespace("s1"), "s1"),
        (pod_namespace("s1", "web-1"), "s1"),
        ("plx-s1", None),
        ("plx-s1-mine", None),
        ("plx-s1-node-ab", None),
        ("plxs1-node-a", None),
        ("xplx-s1-node-a", None),
        ("cni-12345", None),
    ],
)
def test_a_namespace_tells_its_session(name: str, session: str | None) -> None:
    assert session_of(name) == session


def test_the_session_of_this_process_is_alive(folder: Path) -> None:
    claim(folder, "s1")
    assert alive_by(folder)("s1")


def test_a_number_that_another_process_got_later_is_not_the_owner(folder: Path) -> None:
    owner = this_process()
    state = {"version": 1, "pid": owner.pid, "start_ticks": owner.start_ticks - 1}
    write_whole(state_file(folder, "s1"), json.dumps(state).encode())
    assert not alive_by(folder)("s1")


def test_an_owner_that_ended_is_not_alive(folder: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    write_whole(state_file(folder, "s1"), json.dumps({"pid": gone.pid, "start_ticks": 1}).encode())
    assert not alive_by(folder)("s1")


@pytest.mark.parametrize("state", [b"", b"[]", b"{}", b'{"pid": "x", "start_ticks": 1}'])
def test_without_a_readable_owner_and_without_processes_a_session_is_dead(state: bytes, folder: Path) -> None:
    write_whole(state_file(folder, "s1"), state)
    assert not alive_by(folder)("s1")


def test_files_of_dead_sessions_go_and_those_of_the_living_stay(folder: Path) -> None:
    for session in ("dead", "live"):
        claim(folder, session)
        write_whole(plan_file(folder, session), b"")
        write_whole(directory_file(folder, session), b"")
    (folder / "other").touch()
    assert clean_leftovers(lambda session: session == "live", folder) == []
    assert {path.name for path in folder.iterdir()} == {
        "other",
        "demo-live.json",
        "demo-live-plan.json",
        "demo-live-directory.json",
    }


def test_without_a_directory_no_file_is_touched(folder: Path) -> None:
    claim(folder, "dead")
    assert clean_leftovers(lambda _: False) == []
    assert state_file(folder, "dead").is_file()


def test_forgetting_twice_is_no_error(folder: Path) -> None:
    claim(folder, "s1")
    forget(folder, "s1")
    forget(folder, "s1")
    assert list(folder.iterdir()) == []
