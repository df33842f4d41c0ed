"""What `make dist` packs is all that it takes besides a Python: it runs where nothing of ours is."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio as aredis

from scripts import build_dist
from scripts.build_dist import PYTHONS, own
from tests.support.forwarding_api import FakePod, ForwardingApi, served
from tests.support.launched import ROOT, piped, port_told
from tests.support.shard import Shard, change, pod, talked
from tests.support.viewer_redis import viewer_redis


def pythons() -> dict[str, Path]:
    """Each Python of this machine that the file is for, by its version."""
    ours = Path(sys.base_prefix)
    found = {f"3.{sys.version_info.minor}": ours / f"bin/python3.{sys.version_info.minor}"}
    # pyenv's lie beside each other; a stub of it in the PATH may run none.
    beside = sorted(Path.home().glob(".pyenv/versions/*/bin/python3.*[0-9]"))
    for version in PYTHONS:
        paths = (Path(f"/usr/bin/python{version}"), *beside)
        there = [path for path in paths if path.name == f"python{version}" and path.is_file()]
        if there:
            found.setdefault(version, there[0])
    return found


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file for this machine."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "scripts/build_dist.py", "own", "--into", str(folder)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return folder / f"podloxx-{own()}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with nothing in it but, after the first test, what the file unpacked."""
    return tmp_path_factory.mktemp("home")


def nothing(home: Path, programs: Path, python: Path) -> dict[str, str]:
    """The environment of somebody who has that Python, and nothing of ours."""
    programs.mkdir()
    (programs / "python3").symlink_to(python)
    return {"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin"}


@pytest.mark.timeout(200)
def test_it_says_its_version_and_that_needs_no_more_than_a_python(packed: Path, home: Path, folder: Path) -> None:
    environ = nothing(home, folder / "bin", Path(sys.base_prefix) / f"bin/python3.{sys.version_info.minor}")
    argv = [str(packed), "version"]
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("podloxx 0."), done.stderr
    assert os.access(packed, os.X_OK)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("version", pythons())
async def test_it_shows_a_cluster(packed: Path, home: Path, folder: Path, version: str) -> None:
    environ = nothing(home, folder / "bin", pythons()[version])
    with viewer_redis(folder) as store:
        word = base64.b64encode(store.password.encode()).decode()
        async with aredis.Redis(port=store.port, username="aggregator", password=store.password) as redis:
            await Shard(redis).commit(change(1, talked(tx_bytes=1000)), who={1: pod("web")})
        fake = ForwardingApi({"redis-a": FakePod(store.port)}, secrets={"viewer.password": word})
        async with served(fake, folder):
            argv = [str(packed), "open", f"--kubeconfig={folder}/kubeconfig", "--port=0", "--no-browser"]
            async with piped(*argv, env=environ, cwd=folder) as process:
                port = await port_told(process, 60)
                url = f"http://127.0.0.1:{port}"
                async with aiohttp.ClientSession() as client:
                    async with client.get(f"{url}/traffic/total") as answer:
                        assert list(await answer.json()) == ["shop/web"]
                    async with client.get(f"{url}/") as answer:
                        assert answer.status == 200
                process.send_signal(signal.SIGINT)
                async with asyncio.timeout(30):
                    assert await process.wait() == 0


def test_a_wheel_with_another_hash_than_the_locks_is_refused(folder: Path) -> None:
    lock = re.sub(r"(--hash=sha256:)....", r"\g<1>0000", (ROOT / "requirements.lock").read_text())
    (folder / "requirements").write_text(build_dist.runtime_lock(lock, {"six"}))
    with pytest.raises(SystemExit, match="Hash mismatch for `six"):
        build_dist.fetched(folder, build_dist.TARGETS["macos-arm64"], folder / "requirements")
