"""Who may import whom: the law stands in pyproject.toml, and it bites."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the law as it stands in `folder`."""
    return subprocess.run(
        [str(LINT), "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_law_is_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "imported", "law"),
    [
        ("flows/delta.py", "socket", "flows is pure"),
        ("runtime/clock.py", "services.api.views", "services stand side by side"),
        ("api/views.py", "services.aggregator.totals", "services stand side by side"),
        ("capture/frames.py", "aiohttp", "the agent carries no HTTP server"),
    ],
)
def test_who_breaks_it_is_found(folder: Path, module: str, imported: str, law: str) -> None:
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for path in (ROOT / "services").rglob("*.py"):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    with (folder / "services" / module).open("a") as file:
        file.write(f"\nimport {imported}\n")
    done = lint(folder)
    assert done.returncode == 1, done.stdout
    assert any(line.startswith(law) and line.endswith("BROKEN") for line in done.stdout.splitlines()), done.stdout
