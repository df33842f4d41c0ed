"""Docs say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.runtime.settings import Described, as_table

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docs" / "configuration.md"


def line(entry: Described) -> str:
    """A setting's line in the table."""
    default = f"`{entry.default}`" if entry.default else ""
    text = entry.help.replace("|", "\\|")
    return f"| `{entry.flag}` | `{entry.variable}` | {default} | {', '.join(entry.services)} | {text} |"


def test_every_setting_is_documented_as_it_is() -> None:
    documented = [row for row in CONFIGURATION.read_text().splitlines() if row.startswith("| `--")]
    assert documented == [line(entry) for entry in as_table()], (
        "docs/configuration.md must hold exactly these lines:\n" + "\n".join(line(entry) for entry in as_table())
    )


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_verb_of_the_makefile_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    explained = re.findall(r"^([a-z0-9-]+):.*## ", text, re.MULTILINE)
    assert set(phony.split()) - set(explained) <= {"clean"}
