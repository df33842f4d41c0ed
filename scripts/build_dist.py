"""Packs the launcher and all that it needs into one file per operating system and architecture, for every Python of PYTHONS.

`build_dist.py` makes dist/podloxx-NAME of all of them, `build_dist.py NAME…` of those; `own` is the name of this machine's.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import platform
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Those for which all that we need has wheels, for each target."""
OLDEST_GLIBC: Final = "2.28"
"""As numpy's wheels need it."""
OLDEST_MACOS: Final = "14.0"
"""From there on numpy calculates with what macOS brings, where else it would bring 30 MB of its own."""


class Target(NamedTuple):
    """Where a file runs."""

    platform: str
    """As uv calls it."""
    system: str
    """sys.platform."""
    machine: str
    """platform.machine()."""
    modules: str
    """How file names of compiled modules end after the Python's version."""
    processor: int
    """Its number in compiled files."""
    oldest: str
    """Version of macOS, or of Linux's C library."""
    needs: str
    """All that in words."""

    def ending(self, python: str) -> str:
        """How file names of a Python's compiled modules end."""
        return f".cpython-{python.replace('.', '')}-{self.modules}.so"


def _linux(machine: str, processor: int) -> Target:
    uv, needs = (
        f"{machine}-manylinux_{OLDEST_GLIBC.replace('.', '_')}",
        f"Linux on {machine}, glibc {OLDEST_GLIBC} or newer",
    )
    return Target(uv, "linux", machine, f"{machine}-linux-gnu", processor, OLDEST_GLIBC, needs)


def _macos(machine: str, uv: str, processor: int) -> Target:
    needs = f"macOS {OLDEST_MACOS} or newer on {machine}"
    return Target(f"{uv}-apple-darwin", "darwin", machine, "darwin", processor, OLDEST_MACOS, needs)


TARGETS: Final = {
    "linux-x86_64": _linux("x86_64", 62),
    "linux-aarch64": _linux("aarch64", 183),
    "macos-x86_64": _macos("x86_64", "x86_64", 7),
    "macos-arm64": _macos("arm64", "aarch64", 12),
}
UNUSED_FOLDERS: Final = {"tests", "bin", "sboms", "__pycache__"}
UNUSED: Final = re.compile(r"numpy/(distutils|f2py)/|numpy/_core/_(simd|\w+_tests)\.")
"""What builds modules, and what tests them."""
UNUSED_SUFFIXES: Final = {".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".a", ".pyc", ".typed"}
UNUSED_RECORDS: Final = {"RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json"}
"""In *.dist-info: true of one wheel, not of several that were merged."""
ANY_VERSION: Final = {"numpy/__config__.py"}
"""Files that differ between Pythons and say only how they were compiled."""
EXTRAS: Final = {"cyclonedx", "packageurl"}
"""What `images build --sbom` imports, which says how to install it where it is not there."""


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"own, {', '.join(TARGETS)} (default: all of these)")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", metavar="FOLDER", help="default: dist")
    given = parser.parse_args()
    if unknown := set(given.names) - {"own", *TARGETS}:
        sys.exit(f"build_dist: there is no {', '.join(sorted(unknown))}: choose of own, {', '.join(TARGETS)}")
    given.into.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="podloxx-dist-") as made:
        scratch = Path(made)
        requirements = scratch / "requirements"
        requirements.write_text(runtime_lock((ROOT / "requirements.lock").read_text(), runtime_names()))
        ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made)
        [wheel] = scratch.glob("*.whl")
        for name in [own() if one == "own" else one for one in given.names] or TARGETS:
            file = given.into / f"podloxx-{name}"
            make(file, name, wheel, requirements)
            print(f"dist: {file}, {file.stat().st_size / 1e6:.0f} MB", flush=True)


def make(file: Path, name: str, wheel: Path, requirements: Path) -> None:
    """Make one of them, of our wheel and what the requirements name."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(dir=wheel.parent) as made:
        scratch = Path(made)
        site = scratch / "site"
        merge(fetched(scratch, target, requirements), site, target)
        with zipfile.ZipFile(wheel) as ours:
            ours.extractall(site)
        check(site, target)
        preamble = scratch / "dist_preamble.py"
        preamble.write_text(preamble_for(name))
        ran(
            *(sys.executable, "-m", "shiv", "--site-packages", str(site), "--preamble", str(preamble)),
            *("--entry-point", "services.launcher.__main__:main", "--extend-pythonpath", "--compressed"),
            *("--reproducible", "--python", "/usr/bin/env python3", "--output-file", str(file)),
        )


def own() -> str:
    """The name of this machine among TARGETS."""
    for name, target in TARGETS.items():
        if (target.system, target.machine) == (sys.platform, platform.machine()):
            return name
    sys.exit(f"build_dist: there is no file for {sys.platform} on {platform.machine()}")


def ran(*argv: str, environ: Mapping[str, str] | None = None) -> str:
    """What a program printed; exits with what it said where it fails."""
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"build_dist: {' '.join(argv[:6])} … failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def runtime_names() -> set[str]:
    """What of the lock is there at run time, somewhere."""
    said = ran(
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0]),
        *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
        *("--constraints", "requirements.lock", "pyproject.toml"),
    )
    return set(re.findall(r"^([a-z0-9.-]+)==", said, re.MULTILINE))


def runtime_lock(lock: str, names: set[str]) -> str:
    """The lock's lines, hashes included, of these packages; of several versions that which the oldest Python needs, for all."""
    kept: dict[str, str] = {}
    for block in re.findall(r"^[a-z0-9].*\\\n(?:    --hash=.*\n?)+", lock, re.MULTILINE):
        pin, _, hashes = block.partition(" \\\n")
        one = Requirement(pin)
        if one.name in names:
            several = len(re.findall(rf"^{re.escape(one.name)}==", lock, re.MULTILINE)) > 1
            if several and one.marker and not one.marker.evaluate({"python_full_version": f"{PYTHONS[0]}.0"}):
                continue
            kept[one.name] = f"{f'{one.name}{one.specifier}' if several else pin} \\\n{hashes}"
    if kept.keys() != names:
        sys.exit(f"build_dist: not in the lock: {', '.join(sorted(names - kept.keys()))}")
    return "".join(kept.values())


def fetched(folder: Path, target: Target, requirements: Path) -> dict[str, Path]:
    """A folder of installed wheels for each Python, their hashes checked."""
    sites = {}
    for python in PYTHONS:
        sites[python] = folder / python
        ran(
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--link-mode", "hardlink", "--target", str(sites[python])),
            *("--python-platform", target.platform, "--python-version", python, "--requirements", str(requirements)),
            environ={"MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS},
        )
    return sites


def merge(sites: Mapping[str, Path], site: Path, target: Target) -> None:
    """Lay all Pythons' files into one folder; exits where two of one name differ, or a Python lacks a compiled module."""
    modules: dict[str, set[str]] = {}
    seen: dict[str, tuple[str, bytes]] = {}
    for python, root in sites.items():
        modules[python] = set()
        for path in useful(root):
            name = path.relative_to(root).as_posix()
            if name.endswith(target.ending(python)):
                modules[python].add(name.removesuffix(target.ending(python)))
            content = path.read_bytes()
            first, known = seen.setdefault(name, (python, hashlib.sha256(content).digest()))
            if first == python:
                (site / name).parent.mkdir(parents=True, exist_ok=True)
                (site / name).write_bytes(content)
            elif known != hashlib.sha256(content).digest() and name not in ANY_VERSION:
                sys.exit(f"build_dist: {name} differs between Python {first} and {python}: one file cannot be for both")
    everywhere = set[str]().union(*modules.values())
    for python, its in modules.items():
        if lacking := everywhere - its:
            sys.exit(f"build_dist: for Python {python} there is no compiled {', '.join(sorted(lacking))}")


def useful(root: Path) -> Iterator[Path]:
    """Installed files that run or are a licence, always in the same order."""
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if not path.is_file() or UNUSED_FOLDERS & set(inside.parts) or path.suffix in UNUSED_SUFFIXES:
            continue
        alone = len(inside.parts) == 1 and path.suffix != ".py"
        record = inside.parts[0].endswith(".dist-info") and path.name in UNUSED_RECORDS
        if not (alone or record or UNUSED.match(inside.as_posix())):
            yield path


def check(site: Path, target: Target) -> None:
    """Exit where a compiled file is for another system or Python, or a module of ours imports what is not there."""
    endings = tuple(target.ending(python) for python in PYTHONS)
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site)
        if not re.search(r"\.(so|pyd|dll|dylib)(\.|$)", path.name):
            continue
        if (target.system, target.processor) not in compiled_for(path.read_bytes()):
            sys.exit(f"build_dist: {name} is not for {target.needs}")
        if ".cpython-" in path.name and not path.name.endswith(endings):
            sys.exit(f"build_dist: {name} is for no Python of {', '.join(PYTHONS)} on {target.needs}")
    there = {path.name.partition(".")[0] for path in site.iterdir()} | sys.stdlib_module_names | EXTRAS
    for path in sorted((site / "services").rglob("*.py")):
        if lacking := imports(path.read_text()) - there:
            sys.exit(f"build_dist: {path.relative_to(site)} imports {', '.join(sorted(lacking))}, which is not packed")


def compiled_for(content: bytes) -> set[tuple[str, int]]:
    """Systems and processors of a compiled file (elf.h; mach-o/loader.h, mach-o/fat.h); empty where it is none of these."""
    if content.startswith(b"\x7fELF"):
        return {("linux", struct.unpack_from("<H", content, 18)[0])}
    # The processor's lower bytes; the upper say that it has 64 bits.
    if content.startswith(b"\xcf\xfa\xed\xfe"):
        return {("darwin", struct.unpack_from("<H", content, 4)[0])}
    if content.startswith(b"\xca\xfe\xba\xbe"):
        [several] = struct.unpack_from(">I", content, 4)
        return {("darwin", struct.unpack_from(">H", content, 10 + 20 * at)[0]) for at in range(several)}
    return set()


def imports(text: str) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(text)))
    plain = (one.name for node in nodes if isinstance(node, ast.Import) for one in node.names)
    named = (node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module)
    return {name.partition(".")[0] for name in (*plain, *named)}


def preamble_for(name: str) -> str:
    """What the file runs at first."""
    target = TARGETS[name]
    text = (ROOT / "scripts/dist_preamble.py").read_text()
    values = {
        "NAME": f"podloxx-{name}",
        "SYSTEM": target.system,
        "MACHINE": target.machine,
        "PYTHONS": " ".join(PYTHONS),
        "OLDEST": target.oldest,
        "NEEDS": target.needs,
    }
    return re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], text)


if __name__ == "__main__":
    main()
