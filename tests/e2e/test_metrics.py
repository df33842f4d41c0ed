"""What Prometheus reads of a whole run, held against the board, the alerts and the page that explain it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from services.runtime.exposition import OPENMETRICS, TEXT
from tests.support.launched import Launched, launched
from tests.support.served import free_port
from tests.support.truth import wait_for_total
from tests.support.wait import wait_until

DOCS = Path(__file__).parents[2] / "docs"
NAME = re.compile(r"\b(?:podloxx|process)_[a-z0-9_]+\b")
Scrapes = dict[str, dict[str, str]]
"""Bodies by process and content type."""


@pytest.fixture(scope="module")
def scrapes() -> Iterator[Scrapes]:
    """What API and aggregator of a demo answered, with agents that had reported."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODLOXX_METRICS_LISTEN", f"127.0.0.1:{port}")
        with launched("demo") as podloxx:
            wait_for_total(podloxx, lambda pods: len(pods) >= 8, "the pods are there")
            wait_until(lambda: "_direction_seen{" in scraped(podloxx, TEXT), "it is known which directions are seen")
            yield {
                "api": {kind: scraped(podloxx, kind) for kind in (TEXT, OPENMETRICS)},
                "aggregator": {kind: asked(port, kind) for kind in (TEXT, OPENMETRICS)},
            }


def scraped(podloxx: Launched, kind: str) -> str:
    status, body, headers = podloxx.ask("/metrics", Accept=kind)
    assert (status, headers["Content-Type"]) == (200, kind)
    return body.decode()


def asked(port: int, kind: str) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": kind})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"] == kind
        return str(answer.read().decode())


def parsed(scrape: Mapping[str, str]) -> list[Metric]:
    """Metrics of one process; both formats must tell the same ones, which have other values by the second scrape."""
    families = list(openmetrics(scrape[OPENMETRICS]))
    told, again = (
        {one.name.removesuffix("_info"): sample_names(one) for one in of} for of in (families, text(scrape[TEXT]))
    )
    assert told.keys() == again.keys()
    # A family may have got its first sample in between.
    assert all(told[name] == again[name] for name in told if told[name] and again[name])
    return families


def sample_names(family: Metric) -> set[str]:
    return {sample.name for sample in family.samples}


def exposed(scrapes: Scrapes) -> dict[str, bool]:
    """Names of samples of every process, and whether there was any sample of that name."""
    found: dict[str, bool] = {}
    for process in scrapes.values():
        for one in parsed(process):
            suffixes = {"counter": ("_total",), "info": ("_info",), "summary": ("_sum", "_count")}.get(one.type, ("",))
            for suffix in suffixes:
                name = one.name + suffix
                found[name] = found.get(name, False) or any(sample.name == name for sample in one.samples)
    return found


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


def test_names_follow_prometheus_rules(scrapes: Scrapes) -> None:
    for process in scrapes.values():
        for one in parsed(process):
            assert re.fullmatch(r"(podloxx|process)_[a-z0-9]+(_[a-z0-9]+)*", one.name), one.name
            assert one.documentation.endswith("."), one.name
            assert one.type in {"counter", "gauge", "summary", "info"}, one.name
            # Base units, in the plural, and the kind is no part of the name.
            parts = set(one.name.split("_"))
            wrong = {
                "kb",
                "mb",
                "kilobytes",
                "ms",
                "us",
                "milliseconds",
                "microseconds",
                "minutes",
                "percent",
                "second",
            }
            assert not parts & (wrong | {"gauge", "counter", "summary", "byte"}), one.name
            assert "total" not in parts, f"{one.name}: only counters end in _total, once"
            for sample in one.samples:
                assert set(map(str.lower, sample.labels)) == set(sample.labels)
                assert not {"le", "quantile", "instance", "job"} & set(sample.labels), one.name


@pytest.mark.parametrize("file", ["board.json", "alerts.yaml"])
def test_boards_and_alerts_ask_only_for_what_a_run_has(scrapes: Scrapes, file: str) -> None:
    asked_for = list(expressions(yaml.safe_load((DOCS / "prometheus" / file).read_text())))
    assert len(asked_for) >= 10
    known = exposed(scrapes)
    for expression in asked_for:
        names = NAME.findall(expression)
        assert names, expression
        assert set(names) <= set(known), expression


def test_the_page_explains_every_metric_and_no_other(scrapes: Scrapes) -> None:
    lines = [line for line in (DOCS / "metrics.md").read_text().splitlines() if line.startswith("| `")]
    explained = {name for line in lines for name in NAME.findall(line.split("|")[1])}
    known = exposed(scrapes)
    assert explained == set(known)
    # A miniature cluster has no losses; all else has values.
    assert {name for name, has in known.items() if not has} <= {name for name in known if "_lost_" in name}
