"""The demo without root: everything in a user namespace, in which we may make networks of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from services.runtime.errors import PrivilegeError

_ENTER: Final = ("unshare", "--user", "--map-root-user", "--mount", "--")
_TRY_S: Final = 10.0
_SWITCHES: Final = {
    "kernel/unprivileged_userns_clone": (
        "0",
        "kernel.unprivileged_userns_clone is 0: `sudo sysctl kernel.unprivileged_userns_clone=1`",
    ),
    "user/max_user_namespaces": ("0", "user.max_user_namespaces is 0: `sudo sysctl user.max_user_namespaces=10000`"),
    "kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "AppArmor restricts them: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
}
"""What systems forbid user namespaces with, the value that does so, and what to do about it."""


def enter(argv: Sequence[str]) -> NoReturn:
    """Become root of a user namespace that carries out the command line `argv` of the launcher.

    Raises PrivilegeError saying what is missing where the system does not allow it.
    """
    if missing := _missing():
        raise PrivilegeError(
            "`podloxx-launch demo` needs root, or a user namespace, which this system does not give to this user: "
            f"{missing}. Or run it as `sudo podloxx-launch demo`."
        )
    # The same process, so that signals and who started us stay as they are.
    os.execvp(_ENTER[0], [*_ENTER, sys.executable, "-m", "services.launcher", *argv])  # noqa: S606


def _missing() -> str:
    """Why there can be no user namespace; empty where there can."""
    if shutil.which(_ENTER[0]) is None:
        return "there is no program unshare: install the package util-linux"
    try:
        done = subprocess.run([*_ENTER, "true"], capture_output=True, text=True, timeout=_TRY_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unshare fails: {error}"
    if done.returncode == 0:
        return ""
    for name, (forbids, mend) in _SWITCHES.items():
        try:
            if Path("/proc/sys", name).read_text().strip() == forbids:
                return mend
        except OSError:
            # Not every system has every switch.
            continue
    return done.stderr.strip() or f"unshare fails with exit code {done.returncode}"
