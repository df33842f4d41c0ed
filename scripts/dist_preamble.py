"""Runs before podloxx in the file that `make dist` packs: whether this Python is one that the file is for.

Written for old Pythons too, which are those that it turns away.
"""

import importlib.machinery
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

# scripts/build_dist.py fills these in.
NAME = "@NAME@"
SYSTEM = "@SYSTEM@"
MACHINE = "@MACHINE@"
PYTHONS = "@PYTHONS@".split()  # noqa: SIM905
OLDEST = "@OLDEST@"
NEEDS = "@NEEDS@"
PROBE = "import importlib.machinery as m; print(m.EXTENSION_SUFFIXES[0])"


def main(archive: str, site: Path) -> None:
    """Return where podloxx can run; else go on with a Python that is here and can, or exit saying what is needed."""
    if (sys.platform, platform.machine()) != (SYSTEM, MACHINE):
        refuse("take the file for this system, or a Python for this file's")
    here = platform.mac_ver()[0] if SYSTEM == "darwin" else platform.libc_ver()[1]
    if here and numbers(here) < numbers(OLDEST):
        refuse(f"this one is {here}: install podloxx's wheel with pipx or uv instead")
    if fits(site, importlib.machinery.EXTENSION_SUFFIXES[0]):
        return
    for version in reversed(PYTHONS):
        found = shutil.which("python" + version)
        if found and fits(site, suffix(found)):
            go_on(found, archive, site)
    refuse(f"install one, or name it: python{PYTHONS[-1]} {archive}")


def numbers(version: str) -> list:
    """A version's parts."""
    return [int(part) for part in version.split(".") if part.isdigit()]


def fits(site: Path, suffix: str) -> bool:
    """Whether there are modules of that ending, which names version and kind of the Python, and its C library."""
    return (site / ("orjson/orjson" + suffix)).is_file()


def suffix(python: str) -> str:
    """The ending of a Python's modules; none where it does not say."""
    done = subprocess.run([python, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode().strip() if done.returncode == 0 else "none"


def go_on(python: str, archive: str, site: Path) -> None:
    """Become that Python, without what shiv added for this one."""
    path = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one not in {"", str(site)}]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    os.execve(python, [python, archive, *sys.argv[1:]], environ)


def refuse(way: str) -> None:
    """Exit with what this file is for, what is here, and a way."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    here = f"{python} on {platform.system()} {platform.machine()} ({sys.executable})"
    sys.exit(
        f"podloxx: {NAME} needs {NEEDS} and CPython {PYTHONS[0]} to {PYTHONS[-1]}; this is {here}. What to do: {way}"
    )


if __name__ == "__main__":
    # shiv gives both.
    main(archive, site_packages)  # noqa: F821
