"""`make verify-all` runs all that checks something, goes on where it fails, and tells what came of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import verify_all
from scripts.verify_all import NO_CHECKS, PART_OF, VERBS, made

ROOT = Path(__file__).parents[2]
MAKEFILE = ROOT / "Makefile"


def test_every_verb_is_run_or_part_of_one_that_is_or_checks_nothing() -> None:
    verbs = made(MAKEFILE)
    assert sorted([*VERBS, *PART_OF, *NO_CHECKS]) == sorted({*VERBS, *PART_OF, *NO_CHECKS}), "one is listed twice"
    assert set(verbs) == {*VERBS, *PART_OF, *NO_CHECKS}
    assert set(PART_OF.values()) <= set(VERBS)


def test_what_runs_tests_is_among_them() -> None:
    recipes = re.findall(r"^([a-z0-9-]+):[^\n]*\n((?:\t[^\n]*\n)+)", MAKEFILE.read_text(), re.MULTILINE)
    checking = {
        verb for verb, recipe in recipes if re.search(r"\$\(PYTEST\)|-m pytest|tests\.fuzz|/ruff|/mypy", recipe)
    }
    assert {"test", "coverage", "cluster", "rig", "fuzz", "unit", "lint"} <= checking
    assert checking <= {*VERBS, *PART_OF}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One whose verbs do next to nothing, each as another one ends."""
    recipes = {
        "test": "@echo '===== 7 passed, 2 skipped in 1.50s ====='; echo '3 passed, 1 warning in 0.20s'; echo x >>ran",
        "coverage": "@echo 'FAILED tests/unit/test_a.py::test_b - why'; echo '1 failed, 4 passed in 2.00s'; exit 3",
        "rig": "@echo all is well; echo y >>ran",
    }
    lines = [f"{verb}: ## for a test\n\t{recipe}\n" for verb, recipe in recipes.items()]
    (tmp_path / "Makefile").write_text("".join(lines))
    (tmp_path / "page.md").write_text("Above.\n\n## What ran last\n\nold\n")
    return tmp_path


def test_it_goes_on_after_a_failure_and_ends_with_it(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify_all.main(["--page", str(checkout / "page.md")], checkout) == 1
    page = (checkout / "page.md").read_text()
    assert page.startswith("Above.\n\n## What ran last\n\n| `make` |")
    [passed, failed, plain] = [
        line.split(" | ") for line in page.splitlines() if line.startswith("| `") and "make" not in line
    ]
    assert (passed[0], passed[3]) == ("| `test`", "passed: 10 passed, 2 skipped")
    assert failed[3] == "**failed (exit code 2); 1 failed, 4 passed; `tests/unit/test_a.py::test_b`**"
    assert (plain[0], plain[3]) == ("| `rig`", "passed")
    assert passed[5] == f"{verify_all.machine()} |"
    assert "Did not run: `shards`, `cluster`, `torture`" in page
    assert "all is well" in (checkout / ".verify/rig.log").read_text()
    assert "verify-all: make rig: passed" in capfd.readouterr().out


def test_it_can_be_limited_and_resumed(checkout: Path) -> None:
    assert verify_all.main(["rig"], checkout) == 0
    assert verify_all.main(["--resume", "test", "rig"], checkout) == 0
    assert (checkout / "ran").read_text() == "y\nx\n"
    assert verify_all.main(["rig", "test"], checkout) == 0
    assert (checkout / "ran").read_text() == "y\nx\ny\nx\n"


def test_a_verb_that_there_is_not_is_named(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify_all.main(["cluter"], checkout) == 2
    assert "VERIFY names cluter, which is none of: test coverage" in capfd.readouterr().err
