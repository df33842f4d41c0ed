"""`uv tool install` and `pipx install` of what `pip install .` builds: run where nothing of ours is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launched import ROOT

UV = Path(sys.executable).with_name("uv")
KUBECONFIG = """{"clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}], "users": [{"name": "a", "user": {}}],
"contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "current-context": "a"}"""
INSTALL = {
    "uv": ["tool", "install"],
    # As it does by itself where there is a uv: with pip it takes ten times as long.
    "pipx": ["tool", "run", "--with", "uv", "pipx", "install", "--backend=uv"],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=100)
    [found] = folder.glob("*.whl")
    return found


def around(folder: Path) -> dict[str, str]:
    """The environment of somebody who has the system's programs, an index of packages and what was fetched before."""
    ways = ("PIP_", "UV_", "SSL_", "HTTPS_PROXY", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if name.startswith(ways)}  # noqa: TID251
    cache = subprocess.run([str(UV), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    mine = {
        "HOME": str(folder),
        "PATH": f"{folder}/.local/bin:/usr/bin:/bin",
        "UV_CACHE_DIR": cache,
        "UV_PYTHON": str(Path(sys.base_prefix) / f"bin/python3.{sys.version_info.minor}"),
        "UV_SYSTEM_CERTS": "1",
    }
    return kept | mine


@pytest.mark.timeout(200)
@pytest.mark.parametrize("tool", INSTALL)
def test_it_runs_where_it_was_installed(wheel: Path, tool: str, folder: Path) -> None:
    environ = around(folder)
    constraints = folder / "constraints"
    # What was tested here, without the hashes, which would be asked of the wheel as well.
    locked = re.findall(r"^([a-z0-9.-]+==.*?) \\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    constraints.write_text("\n".join(locked))
    environ["UV_CONSTRAINT"] = str(constraints)
    argv = [str(UV), *INSTALL[tool], str(wheel)]
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "kubeconfig").write_text(KUBECONFIG)
    for name, words, expected in (
        ("podloxx-launch", ["version"], "podloxx 0."),
        ("podloxx", ["start", "--dry-run", "--kubeconfig=kubeconfig"], '"kind": "DaemonSet"'),
        ("kubectl-podloxx", ["start", "--help"], "--node-selector"),
    ):
        run = [str(folder / ".local/bin" / name), *words]
        said = subprocess.run(run, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert (said.returncode, expected in said.stdout) == (0, True), said.stdout + said.stderr
