"""The workflows of a forge are what its checker takes, and name no registry."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from scripts.build_dist import PYTHONS, TARGETS
from services.launcher.images.names import SERVICES
from tests.support.programs import WITHOUT, built

ROOT: Final = Path(__file__).parents[2]
WORKFLOWS: Final = sorted((ROOT / ".github/workflows").glob("*.yml"))
HOST: Final = re.compile(r"\b[a-z0-9-]+(\.[a-z0-9-]+)*\.(io|com|org|dev|net)\b")


def checked(*files: Path) -> subprocess.CompletedProcess[str]:
    """What actionlint says; it looks at scripts only with programs that this machine may not have."""
    programs = built("actionlint")
    if programs is None:
        pytest.skip(WITHOUT["actionlint"])
    argv = [str(programs / "actionlint"), "-no-color", "-shellcheck=", "-pyflakes=", *map(str, files)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_there_are_some() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


def test_they_are_what_runners_take() -> None:
    done = checked(*WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_an_output_that_nobody_makes_is_found(folder: Path) -> None:
    broken = folder / "release.yml"
    broken.write_text((ROOT / ".github/workflows/release.yml").read_text().replace("steps.joined.", "steps.absent."))
    done = checked(broken)
    assert done.returncode == 1
    assert '"absent" is not defined' in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_they_name_no_host_and_say_that_they_did_not_run(path: Path) -> None:
    text = path.read_text()
    assert HOST.search(text) is None
    assert "NOT RUN" in text.split("\nname:")[0]


def test_a_release_has_every_image() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert f"for service in {' '.join(SERVICES)}; do" in text
    assert f"service: [{', '.join(SERVICES)}]" in text


def test_a_release_runs_every_file_with_every_python() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert re.findall(r"\{name: (\S+), runner: ", text) == list(TARGETS)
    assert f"python: {json.dumps(PYTHONS)}" in text
    assert "needs: [wheels, files, images]" in text
    assert "made/dist/*" in text
    assert "sha256sum" in text


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_their_scripts_are_shell(path: Path) -> None:
    lines = path.read_text().splitlines()
    scripts: list[str] = []
    for at, line in enumerate(lines):
        if line.strip() == "run: |":
            deep = len(line) - len(line.lstrip())
            body = []
            for one in lines[at + 1 :]:
                if one.strip() and len(one) - len(one.lstrip()) <= deep:
                    break
                body.append(one)
            scripts.append("\n".join(body))
    assert scripts
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 0, f"{done.stderr}{script}"
