"""The images: small as pulled, and what is said to be in them is."""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any, Final

import pytest

import services
from services.launcher.images.names import SERVICES
from tests.support.rig import docker

ROOT: Final = Path(__file__).parents[2]
MOST: Final = 90_000_000
LOCKED: Final = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "images.lock").read_text(), re.MULTILINE))
LIST: Final = "dpkg-query --show --showformat '${Package} ${Version}\\n'"


def name(service: str) -> str:
    """The image of a service."""
    return f"podloxx/{service}:{services.__version__}"


def compressed(archive: tarfile.TarFile, layer: str) -> int:
    """The bytes of a layer as registries keep it."""
    packer = zlib.compressobj(wbits=31)
    content = archive.extractfile(layer)
    assert content is not None
    size = 0
    while part := content.read(1 << 20):
        size += len(packer.compress(part))
    return size + len(packer.flush())


def test_the_agents_image_is_quickly_pulled(images: Path) -> None:
    with tarfile.open(images / "images.tar") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        [layers] = [one["Layers"] for one in json.load(manifest) if one["RepoTags"] == [name("capture")]]
        size = sum(compressed(archive, layer) for layer in layers)
    print(f"\nrig: the capture image is {size / 1e6:.1f} MB as pulled")
    assert 20_000_000 < size <= MOST


@pytest.fixture(scope="module", params=SERVICES)
def document(request: pytest.FixtureRequest, images: Path) -> tuple[str, dict[str, Any]]:
    """A service and what is said to be in its image."""
    return request.param, json.loads((images / f"sbom/{request.param}.cdx.json").read_text())


def test_every_debian_package_is_named(document: tuple[str, dict[str, Any]]) -> None:
    service, said = document
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert said["metadata"]["component"]["version"] == services.__version__
    named = {(one["name"], one["version"]) for one in said["components"] if one["purl"].startswith("pkg:deb/debian/")}
    there = docker("run", "--rm", "--network", "none", "--entrypoint", "sh", name(service), "-c", LIST)
    assert named == {tuple(line.split()) for line in there.splitlines()}
    assert ("redis-server" if service == "redis" else "python3-minimal") in {package for package, _ in named}


def test_every_python_package_is_named_and_locked(document: tuple[str, dict[str, Any]]) -> None:
    service, said = document
    named = {one["name"].lower(): one["version"] for one in said["components"] if one["purl"].startswith("pkg:pypi/")}
    if service == "redis":
        assert named == {}
        return
    assert named.pop("podloxx") == services.__version__
    assert {"redis", "msgpack"} <= named.keys()
    assert {package: LOCKED.get(package.replace("_", "-")) for package in named} == named
