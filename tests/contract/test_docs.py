"""Docs say what the code does."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from services.flows.scope import RULES
from services.launcher import cli
from services.runtime.settings import PREFIX, as_table

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docs" / "configuration.md"


def table(heading: str) -> list[str]:
    """The lines of settings in the part of docs/configuration.md that begins with `heading`."""
    [part] = [part for part in CONFIGURATION.read_text().split("\n## ") if part.startswith(heading)]
    return [line for line in part.splitlines() if line.startswith("| `--")]


def line(flag: str, variable: str, default: str, users: str, text: str) -> str:
    """A setting's line in a table."""
    shown = f"`{default}`" if default else ""
    text = text.replace("|", "\\|")
    return f"| `{flag}` | `{variable}` | {shown} | {users} | {text} |"


def test_every_setting_of_a_service_is_documented_as_it_is() -> None:
    wanted = [line(one.flag, one.variable, one.default, ", ".join(one.services), one.help) for one in as_table()]
    assert table("Settings of the services") == wanted, "it must hold exactly these lines:\n" + "\n".join(wanted)


def test_every_option_of_the_launcher_is_documented_as_it_is() -> None:
    users: dict[str, list[str]] = {}
    options: dict[str, argparse.Action] = {}
    for command, parser in commands().items():
        for action in parser._actions:
            flag = next((flag for flag in action.option_strings if flag.startswith("--")), "--help")
            if flag != "--help":
                users.setdefault(flag, []).append(command)
                options.setdefault(flag, action)
    wanted = [
        line(
            flag,
            PREFIX + flag[2:].replace("-", "_").upper(),
            "" if action.default is None or action.default is False else str(action.default),
            ", ".join(users[flag]),
            action.help or "",
        )
        for flag, action in options.items()
    ]
    assert table("Options of the launcher") == wanted, "it must hold exactly these lines:\n" + "\n".join(wanted)


def commands() -> dict[str, argparse.ArgumentParser]:
    """The launcher's commands."""
    [found] = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def test_the_launcher_reads_what_the_table_says_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODLOXX_PORT", "8080")
    assert cli.parser().parse_args(cli._with_environment(["demo"])).port == 8080
    assert cli.parser().parse_args(cli._with_environment(["demo", "--port", "9090"])).port == 9090


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


def test_every_rule_has_a_sentence_on_the_page() -> None:
    words = (ROOT / "frontend" / "src" / "lib" / "words.ts").read_text()
    assert [rule.value for rule in RULES if not re.search(rf"^  '?{rule.value}'?:", words, re.MULTILINE)] == []
