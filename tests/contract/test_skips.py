"""In CI a test that is skipped without leave fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED_TEST = "import pytest\n@pytest.mark.skip(reason='no time')\ndef test_a(): ...\n"
SKIPPED_MODULE = "import pytest\npytest.skip('no time', allow_module_level=True)\n"


def run(folder: Path, text: str, ci: str) -> subprocess.CompletedProcess[str]:
    """Run a test file that says `text` under the conftest of this project."""
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environ = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}  # noqa: TID251
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-ra", str(folder)]
    return subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("text", [SKIPPED_TEST, SKIPPED_MODULE], ids=["a test", "a module"])
def test_what_ci_skips_has_failed(folder: Path, text: str) -> None:
    done = run(folder, text, "true")
    assert done.returncode != 0, done.stdout
    assert "was skipped in CI, where everything is to run" in done.stdout


@pytest.mark.parametrize("text", [SKIPPED_TEST, SKIPPED_MODULE], ids=["a test", "a module"])
def test_elsewhere_it_is_counted_with_its_reason(folder: Path, text: str) -> None:
    done = run(folder, text, "")
    assert done.returncode in {0, 5}, done.stdout
    assert "1 skipped" in done.stdout
    assert "no time" in done.stdout
