"""Prometheus' text format, held against its grammar and naming rules."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from services.api import metrics
from services.api.mirror import Mirror
from services.flows.scope import Scope
from services.flows.traffic import Row, Session, Tick
from services.runtime.exposition import OPENMETRICS, TEXT
from tests.support.clocks import HandClock
from tests.support.shard import SECOND, counts, pod, report, talked

START = 1_700_000_000 * SECOND
LABEL = r'[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"(?P<name>[a-z_:][a-z0-9_:]*)(?:\{{(?P<labels>{LABEL}(?:,{LABEL})*)\}})? (?P<value>[0-9.e+-]+)")
Samples = dict[str, dict[frozenset[tuple[str, str]], str]]


def parsed(text: str) -> tuple[Samples, dict[str, str]]:
    """Samples and types; asserts what the format asks for."""
    samples: Samples = defaultdict(dict)
    kinds: dict[str, str] = {}
    described = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            described = line.split()[2]
            assert described not in kinds
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == described
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match["name"] == described, "samples of a metric stand together"
            labels = re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match["labels"] or "")
            key = frozenset((name, re.sub(r"\\(.)", r"\1", value)) for name, value in labels)
            assert len(key) == len(labels)
            assert key not in samples[described], f"{line} stands twice"
            samples[described][key] = match["value"]
    return samples, kinds


@pytest.fixture
def mirror() -> Mirror:
    odd = pod('we"b\\', uid="odd")
    rows = [
        Row(1, pod("web", uid="old"), talked(tx_bytes=1)),
        Row(2, pod("web", uid="new"), {Scope.INTERNET: counts(tx_bytes=2**63 - 1, rx_packets=3)}),
        Row(3, odd, talked(tx_bytes=5)),
    ]
    agent = report(loss={"kernel-drop": 7}, gauges={"cpu_seconds_total": 1.5}, attachments=3)
    session = Session(
        7,
        1,
        START,
        cluster=talked(tx_bytes=3, rx_bytes=4),
        nodes={"node-a": agent, "node-b": report("node-b")},
        loss={"kernel-drop": 7, "agent-gap-bytes": 100, "batch-gap": 2},
    )
    mirror = Mirror.of(HandClock(), session, rows, START)
    mirror.apply(Tick(7, 2, START, (), nodes=(agent,)))
    return mirror


def test_it_follows_the_format_and_the_naming_rules(mirror: Mirror) -> None:
    samples, kinds = parsed(metrics.exposition(mirror, clients=2, ready=True)[0])
    assert set(samples) <= set(kinds)
    for name, kind in kinds.items():
        assert name.startswith(("podloxx_", "process_"))
        assert (kind == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(kb|mb|ms|us|percent)(_|$)", name), "base units only"


def test_values(mirror: Mirror) -> None:
    samples, _ = parsed(metrics.exposition(mirror, clients=2, ready=True)[0])
    internet = {"namespace": "shop", "pod": "web", "node": "node-a", "scope": "internet"}
    sent = frozenset({**internet, "direction": "transmit"}.items())
    assert samples["podloxx_pod_bytes_total"][sent] == "9223372036854775807"
    assert samples["podloxx_pod_packets_total"][frozenset({**internet, "direction": "receive"}.items())] == "3"
    assert samples["podloxx_cluster_bytes_total"] == {frozenset({("scope", "same-node")}): "7"}
    assert samples["podloxx_websocket_clients"] == {frozenset(): "2"}
    up = {dict(key)["node"]: value for key, value in samples["podloxx_node_up"].items()}
    assert up == {"node-a": "1", "node-b": "0"}
    assert samples["podloxx_agent_cpu_seconds_total"] == {frozenset({("node", "node-a")}): "1.5"}
    assert samples["podloxx_session_start_time_seconds"] == {frozenset(): "1700000000"}


def test_losses_stand_by_their_units(mirror: Mirror) -> None:
    samples, _ = parsed(metrics.exposition(mirror, clients=0, ready=True)[0])
    assert samples["podloxx_lost_packets_total"] == {frozenset({("reason", "kernel-drop")}): "7"}
    assert samples["podloxx_lost_bytes_total"] == {frozenset({("reason", "agent-gap")}): "100"}
    assert samples["podloxx_lost_batches_total"] == {frozenset({("reason", "gap")}): "2"}
    assert samples["podloxx_node_lost_packets_total"] == {
        frozenset({("node", "node-a"), ("reason", "kernel-drop")}): "7"
    }


def test_of_several_pods_of_a_name_the_newest_is_there(mirror: Mirror) -> None:
    samples, _ = parsed(metrics.exposition(mirror, clients=0, ready=True)[0])
    pods = {(dict(key)["pod"], dict(key)["scope"]) for key in samples["podloxx_pod_bytes_total"]}
    assert pods == {("web", "internet"), ('we"b\\', "same-node")}


def test_before_there_are_totals_the_api_says_that_of_itself() -> None:
    samples, _ = parsed(metrics.exposition(None, clients=0, ready=False)[0])
    assert samples["podloxx_api_ready"] == {frozenset(): "0"}
    assert "podloxx_pod_bytes_total" not in samples


HOSTILE = {
    "cpu_seconds": 1.0,
    "cpu_seconds_total": 2.0,
    "lag_seconds": 3.0,
    "discovery_delay_seconds": 4.0,
    "discovery_delay_seconds_sum": 5.0,
    "work_count": 6.0,
    "work_bucket": 7.0,
    "some_info": 8.0,
    "free": 9.0,
}
"""Names that an agent may send, and that would spoil a scrape next to others."""


def test_openmetrics_reads_it_whatever_agents_call_theirs(mirror: Mirror) -> None:
    mirror.apply(Tick(7, 3, START, (), nodes=(report(gauges=HOSTILE),)))
    body, kind = metrics.exposition(mirror, clients=2, ready=True, accept="application/openmetrics-text; version=1.0.0")
    assert kind == OPENMETRICS
    families = {one.name: one for one in text_string_to_metric_families(body)}
    assert {name for name in families if name.startswith("podloxx_agent")} == {
        "podloxx_agent_cpu_seconds",
        "podloxx_agent_free",
        "podloxx_agent_lag_seconds",
    }
    assert [sample.value for sample in families["podloxx_agent_cpu_seconds"].samples] == [2.0]
    assert families["podloxx_build"].type == "info"


def test_two_sums_of_an_agent_are_a_summary(mirror: Mirror) -> None:
    gauges = {"discovery_delay_seconds_sum": 0.5, "discovery_delay_seconds_count": 4}
    mirror.apply(Tick(7, 3, START, (), nodes=(report(gauges=gauges),)))
    body, kind = metrics.exposition(mirror, clients=2, ready=True, accept="text/plain")
    assert kind == TEXT
    assert "# TYPE podloxx_agent_discovery_delay_seconds summary\n" in body
    assert 'podloxx_agent_discovery_delay_seconds_count{node="node-a"} 4\n' in body
