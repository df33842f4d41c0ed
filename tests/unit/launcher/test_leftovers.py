from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher import child, leftovers
from services.launcher import session as sessions
from services.launcher.demo import namespaces
from services.launcher.demo import session as worlds
from services.runtime.errors import PodloxxError


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for sessions."""
    monkeypatch.setattr(sessions, "base", lambda: folder)
    return folder


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace of a session; its name is the session's. Others' are out of sight."""
    session = secrets.token_hex(4)
    name = worlds.internet_namespace(session)
    namespaces.create(name)
    monkeypatch.setattr(namespaces, "names", lambda: [name] if namespaces.exists(name) else [])
    yield session
    namespaces.remove(name)


def session_of(name: str, base: Path, state: object) -> Path:
    """The folder of a session of that name."""
    folder = base / f"podloxx-{name}"
    folder.mkdir()
    (folder / "launcher.json").write_text(json.dumps(state))
    return folder


def test_folder_and_namespaces_of_a_dead_session_go(base: Path, world: str) -> None:
    folder = session_of(world, base, {"pid": 0, "start_ticks": 1})
    assert leftovers.clean() == [worlds.internet_namespace(world), folder.name]
    assert not namespaces.exists(worlds.internet_namespace(world))
    assert leftovers.clean() == []


def test_those_of_a_living_session_stay_whoever_asks(base: Path, world: str) -> None:
    session = sessions.begin(None)
    session.folder.rename(base / f"podloxx-{world}")
    assert leftovers.clean() == []
    assert leftovers.clean(base) == []
    assert namespaces.exists(worlds.internet_namespace(world))


def test_namespaces_of_which_no_folder_tells_go_only_with_the_next_demo(base: Path, world: str) -> None:
    assert leftovers.clean() == []
    assert leftovers.clean(base) == [worlds.internet_namespace(world)]


def test_what_cannot_be_removed_stays_for_the_next_start(
    base: Path, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = session_of(world, base, {"pid": 0, "start_ticks": 1})

    def refuse(_: object) -> list[str]:
        raise PodloxxError("busy")

    monkeypatch.setattr(worlds, "clean_leftovers", refuse)
    assert leftovers.clean() == [folder.name]


def test_without_privileges_only_folders_are_looked_at(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "effective", frozenset)
    monkeypatch.setattr(worlds, "clean_leftovers", lambda _: pytest.fail("it entered namespaces"))
    folder = session_of("12345678", base, {})
    assert leftovers.clean() == [folder.name]
