"""docs/security.md names tests for what nobody can do, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
TEST = re.compile(r"`((?:tests|frontend)/[\w/.-]+)(?:::(\w+))?`")


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 50
    missing = []
    for path, name in named:
        file = ROOT / path
        if not file.is_file() or (name and name not in functions(file)):
            missing.append(f"{path}::{name}")
    assert missing == []


def functions(file: Path) -> set[str]:
    """Names of a file's tests."""
    found = ast.walk(ast.parse(file.read_text()))
    return {one.name for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_cannot_has_a_test() -> None:
    parts = re.split(r"^\| (?:he|it|they) cannot \|.*\n\|---\|---\|\n", PAGE, flags=re.MULTILINE)[1:]
    assert len(parts) >= 7
    for part in parts:
        rows = part.split("\n\n")[0].splitlines()
        assert rows
        for row in rows:
            assert TEST.search(row.split("|")[2]), row
