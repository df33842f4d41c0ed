"""Opens the page for who sits at this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from collections.abc import Mapping
from typing import Final

_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
_OPEN_S: Final = 5.0
"""Forking takes no time; only a machine that is about to stand still needs as long."""


def open_page(url: str, environ: Mapping[str, str]) -> bool:
    """Open `url`; False where nobody sees it. May block for seconds.

    Under sudo the browser is the caller's, as whom it runs: root's would be an empty one with
    all privileges, and most refuse that.
    """
    linux = sys.platform == "linux"
    if linux and not any(environ.get(name) for name in _DISPLAYS):
        return False
    argv = as_caller(url, environ) if linux and os.geteuid() == 0 else None
    if argv is None:
        return webbrowser.open(url)
    # What the browser says is not for our terminal.
    quiet = subprocess.DEVNULL
    try:
        done = subprocess.run(argv, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_OPEN_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def as_caller(url: str, environ: Mapping[str, str]) -> list[str] | None:
    """The command line that opens `url` as the user who called sudo; None where nobody did."""
    # Only here: no other system than a Unix has it.
    import pwd

    try:
        user = pwd.getpwuid(int(environ["SUDO_UID"]))
    except (KeyError, ValueError):
        return None
    own = [f"HOME={user.pw_dir}", f"USER={user.pw_name}", f"LOGNAME={user.pw_name}"]
    runtime = f"XDG_RUNTIME_DIR=/run/user/{user.pw_uid}"
    bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{user.pw_uid}/bus"
    drop = ["--init-groups", "--inh-caps=-all", "--ambient-caps=-all"]
    return [
        # Some openers become the browser: it is nobody's child, and outlives us.
        *("setsid", "--fork", "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", *drop, "--"),
        *("env", *own, runtime, bus, "xdg-open", url),
    ]
