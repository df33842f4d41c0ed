"""Each service runs with the packages of its dependency group alone: that is all its image has."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {re.split("[>=<]", line)[0] for line in PROJECT["project"]["dependencies"]}

IMPORT_ALL = """
import importlib, pkgutil, sys
service, *missing = sys.argv[1:]

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"{name} is not in the group of {service}")

sys.meta_path.insert(0, Missing())
package = importlib.import_module(f"services.{service}")
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    importlib.import_module(module.name)
"""


def group(name: str) -> set[str]:
    """The packages of a dependency group, with those of the groups that it includes."""
    found: set[str] = set()
    for entry in PROJECT["dependency-groups"][name]:
        found |= group(entry["include-group"]) if isinstance(entry, dict) else {entry}
    return found


@pytest.mark.parametrize("service", ["capture", "aggregator", "api"])
def test_a_service_needs_no_more_than_its_group(service: str) -> None:
    assert group(service) <= PACKAGES
    missing = sorted(PACKAGES - group(service))
    argv = [sys.executable, "-c", IMPORT_ALL, service, *missing]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_agent_carries_no_http_and_no_kubernetes() -> None:
    assert not group("capture") & {"aiohttp", "orjson", "kubernetes-asyncio"}


def pinned(lock: str) -> set[tuple[str, str]]:
    """Packages and versions in a lock file: some have two, for different Pythons."""
    return set(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / lock).read_text(), re.MULTILINE))


def test_images_install_what_tests_were_run_with() -> None:
    images = pinned("images.lock")
    assert images <= pinned("requirements.lock")
    assert {name for name, _ in images} >= group("capture") | group("aggregator") | group("api")
