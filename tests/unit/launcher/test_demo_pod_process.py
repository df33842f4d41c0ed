"""As whom the demo's pods run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from services.launcher.demo import pod_process


def test_pods_are_nobody_where_nobody_can_read_the_interpreter() -> None:
    readable = all(
        pod_process._open_to_all(Path(path))
        for path in (sys.executable, os.path.realpath(sys.executable), os.__file__, pod_process.__file__)
    )
    assert pod_process.unprivileged_uid() == (pod_process.NOBODY if readable else None)


def test_pods_stay_who_we_are_where_the_interpreter_is_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home").mkdir(mode=0o700)
    interpreter = folder / "home/python"
    interpreter.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    assert pod_process.unprivileged_uid() is None


def test_a_file_only_for_its_owner_is_not_open_to_all(folder: Path) -> None:
    file = folder / "file"
    file.touch(mode=0o644)
    assert pod_process._open_to_all(file)
    file.chmod(0o640)
    assert not pod_process._open_to_all(file)
