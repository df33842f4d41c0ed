from __future__ import annotations

import os
import pwd
import subprocess
import webbrowser
from pathlib import Path

import pytest

from services.launcher import browser
from tests.support.wait import wait_until

URL = "http://127.0.0.1:1337"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Python's own browser support was asked to open."""
    urls: list[str] = []

    def note(url: str) -> bool:
        urls.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", note)
    return urls


def test_without_a_display_nobody_is_there_to_see_it(opened: list[str]) -> None:
    assert not browser.open_page(URL, {"DISPLAY": "", "SUDO_UID": "0"})
    assert opened == []


@pytest.mark.parametrize("name", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_with_a_display_it_is_opened(opened: list[str], name: str) -> None:
    assert browser.open_page(URL, {name: ":0"})
    assert opened == [URL]


def test_under_sudo_it_is_the_callers_browser(opened: list[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    user = pwd.getpwnam("nobody")
    folder.chmod(0o777)
    opener = folder / "xdg-open"
    opener.write_text(
        f'#!/bin/sh\necho "$(id -u) $HOME $XDG_RUNTIME_DIR $1" > {folder}/part\nmv {folder}/part {folder}/said\n'
    )
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")  # noqa: TID251
    assert browser.open_page(URL, {"DISPLAY": ":0", "SUDO_UID": str(user.pw_uid)})
    wait_until((folder / "said").exists, "the browser is opened")
    assert (folder / "said").read_text().split() == [*(str(user.pw_uid), user.pw_dir, f"/run/user/{user.pw_uid}", URL)]
    assert opened == []


@pytest.mark.parametrize("uid", ["", "somebody", "4000000000"])
def test_a_caller_who_does_not_exist_is_none(uid: str) -> None:
    assert browser.as_caller(URL, {"SUDO_UID": uid}) is None


def test_a_machine_without_util_linux_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert not browser.open_page(URL, {"DISPLAY": ":0", "SUDO_UID": "0"})
