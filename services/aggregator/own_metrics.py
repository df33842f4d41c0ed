"""What the aggregator tells Prometheus of itself; the traffic is the API's to tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from services.aggregator.consumer import Consumer
from services.runtime.exposition import Metric, Sums
from services.runtime.process_metrics import process_metrics


class Reached(Protocol):
    """How it stands with the store."""

    owns: bool
    reached: bool
    failures: int


def own_metrics(consumer: Consumer, store: Reached) -> Iterable[Metric]:
    """All of them; counters begin with the process."""
    work, totals = consumer.work, consumer.totals
    yield from process_metrics("aggregator")

    def gauge(name: str, text: str, value: float) -> Metric:
        return Metric(f"podloxx_aggregator_{name}", "gauge", text, [({}, value)])

    yield gauge("owns_shard", "1 where this aggregator owns its shard, 0 where it stands by.", int(store.owns))
    yield gauge("store_up", "1 where Redis answered what it was asked last.", int(store.reached))
    yield Metric(
        "podloxx_aggregator_store_failures_total",
        "counter",
        "Attempts that failed at Redis; each was made again.",
        [({}, store.failures)],
    )
    yield Metric(
        "podloxx_aggregator_batches_total", "counter", "Agents' batches that were booked.", [({}, work.batches)]
    )
    yield Metric(
        "podloxx_aggregator_commit_duration_seconds",
        "summary",
        "How long commits into Redis took.",
        [({}, Sums(work.commit_us / 1e6, work.commits))],
    )
    yield gauge(
        "last_commit_timestamp_seconds", "When it committed last, in Redis's Unix time.", work.committed_at_us / 1e6
    )
    yield gauge("agents", "Agents' boots that it knows; silent ones are forgotten.", len(consumer.inbox.applied))
    yield gauge("interfaces", "Interfaces that it knows, those included that went lately.", len(totals.points.known))
    yield gauge("pod_rows", "Rows of pods in its totals.", len(totals.rows.by_number))
    yield gauge("pending_bytes", "Bytes that wait for their place.", totals.pending_bytes)
