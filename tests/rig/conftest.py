"""Fixtures of the tests that need a container engine and podloxx's images: `make rig`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.programs import WITHOUT, WITHOUT_IMAGES, built, built_images
from tests.support.rig import Rig, docker

PROJECT: Final = "label=com.docker.compose.project=podloxx-rig"


@pytest.fixture(scope="session")
def images() -> Path:
    """The folder of the archives, all loaded into the engine."""
    archives = built_images()
    if not archives:
        pytest.skip(WITHOUT_IMAGES)
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("without an engine that answers: `make rig` starts one, and runs these tests")
    for archive in archives:
        docker("load", "--quiet", "--input", str(archive))
    return archives[0].parent


@pytest.fixture(scope="session")
def rig(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The rig while it is up, the same for all tests; says how long each part took."""
    programs = built("apiserver")
    if programs is None:
        pytest.skip(WITHOUT["apiserver"])
    assert images.is_dir()
    folder = tmp_path_factory.mktemp("rig")
    # Users without a name in the containers read what is mounted.
    for path in (folder, *list(folder.parents)[:2]):
        path.chmod(0o755)
    one = Rig(folder, programs)
    try:
        one.up()
        yield one
    finally:
        one.down()
        print("\nrig: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in one.took.items()))
        for kind in (("ps", "--all"), ("network", "ls"), ("volume", "ls")):
            assert not docker(*kind, "--quiet", "--filter", PROJECT).split(), kind
