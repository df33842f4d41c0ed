"""The ranked table in the terminal: rows of a message, filters as on the page, ranks and widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.flows.live_message import SCOPE_NAMES
from services.launcher import top
from services.launcher.filter import matcher, parsed, unknown_fields


def message(*pods: dict[str, Any], problem: str = "") -> Any:
    """A snapshot of these pods; what is not given is nothing."""
    words = [""]

    def word(text: str) -> int:
        if text not in words:
            words.append(text)
        return words.index(text)

    texts = ("ns", "node", "zone", "owner", "owner_kind")
    columns = {name: [word(pod.get(name, "")) for pod in pods] for name in texts}
    numbers = ("tx", "rx", "local", "cross", "private", "internet_tx", "internet_rx", "other", "syn", "total")
    return {
        "t": "snapshot",
        "problem": problem,
        "reporting": (1, 2),
        "pods": {
            **columns,
            "id": list(range(len(pods))),
            "name": [pod["name"] for pod in pods],
            "labels": [[word(one) for one in pod.get("labels", ())] for pod in pods],
            "ips": [list(pod.get("ips", ())) for pod in pods],
            "iface": [pod.get("iface", "") for pod in pods],
            "scopes": [sum(1 << SCOPE_NAMES.index(one) for one in pod.get("scopes", ())) for pod in pods],
        },
        # Not in the order of the pods.
        "i": list(reversed(range(len(pods)))),
        "rows": {name: [pod.get(name, 0) for pod in reversed(pods)] for name in numbers},
        "words": words,
    }


WEB = {
    "ns": "shop",
    "name": "web-1",
    "node": "n1",
    "zone": "z1",
    "owner": "web",
    "owner_kind": "Deployment",
    "labels": ("app=web", "tier=front"),
    "ips": ("10.1.0.7", "fd81::7"),
    "scopes": ("cross-zone", "internet"),
    "tx": 1000,
    "rx": 500,
    "cross": 600,
    "internet_tx": 700,
    "internet_rx": 200,
    "total": 123456,
}
DB = {"ns": "data", "name": "db-0", "node": "n2", "ips": ("10.2.0.9",), "tx": 9000, "rx": 10, "local": 9010, "total": 5}
SILENT = {"ns": "data", "name": "old", "tx": None, "rx": None, "internet_tx": None, "internet_rx": None, "total": 7}


def test_a_row_has_what_the_message_says_of_its_pod() -> None:
    web = next(row for row in top.rows(message(WEB, DB)) if row.name == "web-1")
    assert (web.key, web.node, web.bytes) == ("shop/web-1", "n1", 123456)
    assert web.rates == {
        **dict.fromkeys(("local", "private", "other", "syn"), 0),
        "cross": 600,
        "internet": 900,
        "total": 1500,
    }
    assert web.scopes == {"cross-zone", "cross", "internet"}


SHARED = json.loads((Path(__file__).parents[2] / "contract/filters.json").read_text())
"""The page's tests are held against the same."""


@pytest.mark.parametrize(("words", "names"), SHARED["cases"])
def test_a_filter_means_what_it_means_on_the_page(words: str, names: list[str]) -> None:
    around = {"ns": "shop", "node": "node-a", "zone": "z1", "owner_kind": "ReplicaSet"}
    pods = [{**around, "iface": f"veth{at}", **one} for at, one in enumerate(SHARED["pods"], 1)]
    found = top.rows(message(*pods))
    fits = matcher(parsed(words), found, SHARED["ports"])
    assert [row.name for row in found if fits(row)] == names


@pytest.mark.parametrize(("words", "names"), SHARED["unknown"])
def test_fields_that_there_are_none_of_are_found(words: str, names: list[str]) -> None:
    assert unknown_fields(words) == names


def lines(sort: str, most: int = 100, **more: Any) -> list[list[str]]:
    said = message(WEB, DB, SILENT, **more)
    return [line.split() for line in top.table(said, top.rows(said), sort, most)]


def test_the_table_is_ranked_and_names_units() -> None:
    head, names, *found = lines("total")
    assert " ".join(head) == "3 of 3 pods, 1/2 nodes report, by total"
    assert names[:3] == ["pod", "node", "total/s"]
    assert [line[0] for line in found] == ["data/db-0", "shop/web-1", "data/old"]
    assert found[1][2:4] == ["1.5", "kB"]
    assert found[1][-2:] == ["123", "kB"]


def test_another_column_ranks_otherwise() -> None:
    assert lines("internet")[2][0] == "shop/web-1"


def test_what_nobody_knows_is_no_zero() -> None:
    silent = lines("total")[-1]
    assert silent[:3] == ["data/old", "-", "-"]


def test_no_more_lines_than_fit() -> None:
    assert len(lines("total", most=3)) == 3


def test_what_is_not_current_is_said_above() -> None:
    assert "not current: Redis does not answer" in " ".join(lines("total", problem="Redis does not answer")[0])


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (999_500, "1.0 MB")],
)
def test_bytes_have_three_digits(count: int | None, text: str) -> None:
    assert top.human(count) == text
