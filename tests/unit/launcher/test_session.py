from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from services.launcher import session as sessions
from services.launcher.child import User
from services.runtime.errors import LeftoverError, PodloxxError


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for sessions."""
    monkeypatch.setattr(sessions, "base", lambda: folder)
    return folder


def dead_launcher(folder: Path) -> None:
    """Make the session look like that of a process that is gone."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    (folder / "launcher.json").write_text(json.dumps({"pid": process.pid, "start_ticks": 1}))


def test_a_session_is_there_while_it_runs_and_gone_afterwards(base: Path) -> None:
    session = sessions.begin(None)
    assert [path.name for path in base.iterdir()] == [f"podloxx-{session.name}"]
    assert session.folder.stat().st_mode & 0o777 == 0o700
    assert sessions.alive(session.name) is True
    assert sessions.clean() == []
    sessions.end(session)
    sessions.end(session)
    assert list(base.iterdir()) == []
    assert sessions.alive(session.name) is None


@pytest.mark.usefixtures("base")
def test_its_folder_is_for_its_group_to_pass_and_for_nobody_to_list() -> None:
    session = sessions.begin(61300)
    assert session.folder.stat().st_gid == 61300
    assert session.folder.stat().st_mode & 0o777 == 0o710


@pytest.mark.usefixtures("base")
def test_a_dead_sessions_folder_is_removed() -> None:
    session = sessions.begin(None)
    dead_launcher(session.folder)
    assert sessions.alive(session.name) is False
    assert sessions.clean() == [session.folder.name]
    assert not session.folder.exists()


@pytest.mark.usefixtures("base")
def test_a_number_that_another_process_has_by_now_is_no_sign_of_life() -> None:
    session = sessions.begin(None)
    (session.folder / "launcher.json").write_text(json.dumps({"pid": os.getpid(), "start_ticks": 1}))
    assert sessions.clean() == [session.folder.name]


def test_a_launcher_that_was_killed_while_it_made_its_folder_leaves_nothing(base: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    (base / f".podloxx-{process.pid}-abc").mkdir()
    (base / f".podloxx-{os.getpid()}-abc").mkdir()
    assert sessions.clean() == [f".podloxx-{process.pid}-abc"]


@pytest.mark.parametrize("name", ["podloxx", "podloxx-notes", "podloxx-12345678x", "other-12345678"])
def test_what_others_made_is_left_alone(base: Path, name: str) -> None:
    (base / name).mkdir()
    assert sessions.clean() == []
    assert (base / name).is_dir()


@pytest.mark.usefixtures("base")
def test_another_users_session_is_left_alone() -> None:
    session = sessions.begin(None)
    dead_launcher(session.folder)
    os.chown(session.folder, 61300, -1)
    assert sessions.clean() == []
    assert sessions.alive(session.name) is True


def test_a_link_is_not_followed(base: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    (base / "podloxx-12345678").symlink_to(tmp_path)
    assert sessions.clean() == []
    assert (tmp_path / "precious").exists()


@pytest.mark.usefixtures("base")
def test_what_cannot_be_removed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    session = sessions.begin(None)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(LeftoverError, match=f"{session.folder} could not be removed: Permission denied") as caught:
        sessions.end(session)
    assert caught.value.exit_code == 4


@pytest.mark.usefixtures("base")
def test_a_secret_is_for_one_user_alone() -> None:
    session = sessions.begin(61300)
    path = session.secret("word", b"secret", User(61301, 61300))
    assert path.read_bytes() == b"secret"
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (61301, 0o600)
    with pytest.raises(FileExistsError):
        session.secret("word", b"other", User(61301, 61300))


def test_a_file_that_others_may_not_read_is_lent(base: Path) -> None:
    session = sessions.begin(61300)
    file = base / "file.json"
    file.write_text("{}")
    file.chmod(0o644)
    assert session.lend(file, User(61301, 61300)) == file
    file.chmod(0o600)
    assert session.lend(file, User(None, None)) == file
    copy = session.lend(file, User(61301, 61300))
    assert copy.parent == session.folder
    assert (copy.read_text(), copy.stat().st_uid, copy.stat().st_mode & 0o777) == ("{}", 61301, 0o600)


def test_sessions_lie_where_a_reboot_removes_them(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert sessions.base() == Path("/run")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert sessions.base() == folder
    long = folder / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert sessions.base() == Path("/tmp")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PodloxxError, match="no folder for the session's sockets"):
        sessions.base()


def test_a_secret_is_not_written_through_a_link(base: Path, tmp_path: Path) -> None:
    session = sessions.begin(None)
    (session.folder / "word").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        session.secret("word", b"secret", User(None, None))
    assert not (tmp_path / "elsewhere").exists()
    assert base == session.folder.parent
