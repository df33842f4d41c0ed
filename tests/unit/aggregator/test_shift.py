"""Totals whose times were moved are what they were had all been at other times."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings

from services.aggregator.cluster_totals import ClusterTotals
from services.aggregator.stored_points import points_out
from services.aggregator.totals import Totals
from tests.support.agents import SECOND
from tests.support.exactly_once import Play, Second
from tests.unit.aggregator.test_exactly_once_services import BACKENDS, cluster, scripts

HOUR_S = 3600


def told(state: Totals) -> dict[str, Any]:
    """All that is known of moments, as it is stored."""
    accounts = state.accounts
    assert isinstance(accounts, ClusterTotals)
    once, held = accounts.once.stored(), accounts.once.held
    # In which order pods are met differs from process to process.
    return {
        "held": sorted(zip(held.entries(), held.starts.tolist(), held.ends.tolist(), strict=True)),
        "settled": sorted(msgpack.unpackb(once["settled"])),
        **{name: sorted(once[name]) for name in ("deliveries", "collections")},
        "gaps": [accounts.gap_bytes.stored(), accounts.gap_packets.stored()],
        "awaited": state.awaited.stored(),
        "points": {node: points_out(state.points, node) for node in state.points.of_node},
        "coverage": {node: state.meters.of(node) for node in state.nodes},
        "nodes": state.nodes,
        "history": {number: state.history.encoded(number) for number in state.history},
        "cluster": state.cluster,
    }


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
@settings(max_examples=50)
@given(script=scripts)
def test_moved_is_as_if_it_had_been_then(step_s: int, script: list[Second]) -> None:
    moved, then = (Play(cluster(*BACKENDS), offset_s) for offset_s in (1_000_000, 1_000_000 + step_s))
    for at, second in enumerate(script):
        moved.second(at, second)
        then.second(at, second)
    moved.state.shift(step_s * SECOND)
    assert told(moved.state) == told(then.state)
    assert moved.state.points_changed == then.state.points_changed | moved.state.nodes.keys()
    assert moved.state.history.changed == set(moved.state.history)
