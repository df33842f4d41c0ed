"""Says what is in an image: a CycloneDX document of its Debian and Python packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import services
from services.launcher.images.engine import Engine
from services.runtime.errors import UsageError

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom

SUFFIX: Final = ".cdx.json"
_LIST: Final = r"""set -e
. /etc/os-release
dpkg-query --show --showformat "deb\t\${Package}\t\${Version}\t\${Architecture}\t$ID-$VERSION_ID\n"
if command -v python3 >/dev/null; then
    python3 -c 'from importlib.metadata import distributions as found
for one in found():
    licence = one.metadata.get("License-Expression") or ""
    print("pypi", one.metadata["Name"], one.version, licence, "", sep="\t")'
fi
"""
"""Run in the image: one package a line, in five columns."""


def available() -> None:
    """Raise UsageError unless documents can be written."""
    if find_spec("cyclonedx") is None:
        raise UsageError("--sbom needs the package cyclonedx-python-lib: pip install 'podloxx[sbom]'")


def write(engine: Engine, service: str, image: str, folder: Path) -> Path:
    """Write the document of one image into `folder`; its path."""
    # Only here: who builds no document does not need it.
    from cyclonedx.output.json import JsonV1Dot6

    argv = ("run", "--rm", "--network", "none", "--user", "65532", "--entrypoint", "sh", image, "-c", _LIST)
    lines = engine.output(*argv, what=f"listing what is in {image}").decode().splitlines()
    document = JsonV1Dot6(_document(image, lines)).output_as_string(indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{service}{SUFFIX}"
    path.write_text(document + "\n")
    return path


def _document(image: str, lines: list[str]) -> Bom:
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    main = Component(
        name=image.rpartition(":")[0], version=services.__version__, type=ComponentType.CONTAINER, bom_ref=image
    )
    found = []
    for line in lines:
        kind, name, version, third, release = line.split("\t")
        if kind == "deb":
            known = {"arch": third, "distro": release}
            url = PackageURL("deb", release.partition("-")[0], name, version, known)
        else:
            url = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
        licences = [LicenseFactory().make_from_string(third)] if kind == "pypi" and third else []
        found.append(Component(name=name, version=version, purl=url, bom_ref=url.to_string(), licenses=licences))
    bom = Bom(components=found)
    bom.metadata.component = main
    bom.register_dependency(main, found)
    return bom
