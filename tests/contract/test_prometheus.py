"""The board and the alerts are what Grafana and Prometheus take; that their metrics exist is held by tests/e2e."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

DOCS = Path(__file__).parents[2] / "docs"


def expressions(value: Any) -> Iterator[str]:
    """Every expression of PromQL in a board or in rules."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr":
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


@pytest.mark.parametrize("file", ["board.json", "alerts.yaml"])
def test_expressions_are_promql(file: str) -> None:
    found = list(expressions(yaml.safe_load((DOCS / "prometheus" / file).read_text())))
    assert len(found) >= 10
    for one in found:
        # Raises ValueError where it is none; Grafana fills in the interval.
        promql_parser.parse(one.replace("$__rate_interval", "1m"))


def test_the_board_can_be_imported() -> None:
    board = json.loads((DOCS / "prometheus/board.json").read_text())
    panels = board["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    assert all(one["datasource"]["uid"] == "${datasource}" for one in panels)
    cells = [
        (column, row)
        for one in panels
        for place in [one["gridPos"]]
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie on each other"
    assert max(column for column, _ in cells) < 24


def test_alerts_say_what_is_wrong_and_how_bad() -> None:
    [group] = yaml.safe_load((DOCS / "prometheus/alerts.yaml").read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names)
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"].endswith((".", ")."))
        assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "1m"))
