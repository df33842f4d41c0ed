"""The programs that `scripts/build-programs` builds, where somebody has built them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
WITHOUT: Final = {
    "apiserver": "without the API server: `make apiserver` builds it once, with Go 1.26, in about four minutes and 4.5 GB",
    "cluster": "without the cluster's programs: `make nodes` builds them once, with Go 1.26, in about five minutes",
    "engine": "without a container engine: `make engine` builds it once, with Go 1.26, in about six minutes",
    "actionlint": "without actionlint: `make actionlint` builds it once, with Go 1.26, in half a minute",
}
"""Why a test is skipped where nobody built a group."""
WITHOUT_IMAGES: Final = "without images: `make images` builds them, once for each state of their sources"
TOOLS: Final = "podloxx-test/tools:1"
"""The image of what talks in the tests' containers."""


def built(group: str) -> Path | None:
    """The folder of a group's programs; None where nobody built them."""
    argv = ["bash", str(ROOT / "scripts/build-programs"), "--where", group]
    where = subprocess.run(argv, check=True, capture_output=True, text=True)
    folder = Path(where.stdout.strip())
    return folder if folder.is_dir() else None


def built_images() -> list[Path]:
    """Archives of podloxx's images and of the tests' tools; none where nobody built them."""
    argv = ["bash", str(ROOT / "scripts/build-images"), "--where"]
    folder = Path(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip())
    return [folder / "images.tar", folder / "tools.tar"] if folder.is_dir() else []
