"""Whatever agents miss, and whenever they and their shards report: each byte is in the cluster's totals once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.aggregator import letters
from services.flows.scope import Scope
from tests.support import exactly_once
from tests.support.exactly_once import BOTH, Second
from tests.support.sharded import Shards, counted, play
from tests.support.worlds import directory
from tests.unit.aggregator.test_exactly_once import on_set_clocks, scripts
from tests.unit.aggregator.test_exactly_once_services import BACKENDS, ELSEWHERE, cluster
from tests.unit.aggregator.test_exactly_once_services import scripts as service_scripts

# Several totals take several times as long, and machines are slow at times.
pytestmark = pytest.mark.timeout(240)

outages = st.frozensets(st.integers(0, 13), max_size=6)


def as_the_interfaces_counted(one: Shards) -> bool:
    """Whether each shard's rows are what its node's interfaces counted."""
    return all(
        exactly_once.as_the_interfaces_counted(shard.state, {name: one.nodes[name]})
        for name, shard in one.shards.items()
    )


@settings(max_examples=60)
@given(scripts, outages)
def test_each_pod_has_what_its_interface_counted(script: list[Second], outage: frozenset[int]) -> None:
    assert as_the_interfaces_counted(play(script, directory, outage))


@settings(max_examples=80)
@given(scripts, outages)
def test_no_byte_is_in_the_cluster_twice(script: list[Second], outage: frozenset[int]) -> None:
    one = play(script, directory, outage)
    assert counted(one.cluster) <= one.sent


@settings(max_examples=80)
@given(scripts, outages)
def test_every_byte_is_in_the_cluster_once_where_agents_live(script: list[Second], outage: frozenset[int]) -> None:
    one = play([replace(second, alive=BOTH, cuts=BOTH) for second in script], directory, outage)
    assert counted(one.cluster) == one.sent
    assert Scope.UNKNOWN not in one.cluster


@settings(max_examples=60)
@given(scripts, outages)
def test_what_waits_for_the_ledger_is_added_up(script: list[Second], outage: frozenset[int]) -> None:
    told = [Second(Counter(), BOTH, BOTH, [*"ab"]), *script]
    with patch.multiple(letters, MOST_SEALED=1, _MOST_ROUNDS=1):
        one = play([replace(second, alive=BOTH, cuts=BOTH) for second in told], directory, outage - {0})
    assert counted(one.cluster) == one.sent


@settings(max_examples=60)
@given(on_set_clocks)
def test_every_byte_is_in_the_cluster_once_though_the_clock_is_set(script: list[Second]) -> None:
    one = play([replace(second, alive=BOTH, cuts=BOTH) for second in script], directory)
    assert counted(one.cluster) == one.sent


@settings(max_examples=60)
@given(scripts)
def test_one_shard_and_two_agree_where_agents_live(script: list[Second]) -> None:
    told = [
        replace(second, alive=BOTH, cuts=BOTH, tells=[*second.tells, *"ab"])
        for second in [Second(Counter(), BOTH, BOTH, [*"ab"]), *script]
    ]
    alone, _, _ = exactly_once.play(told, directory())
    assert play(told, directory).cluster == alone.cluster


@pytest.mark.parametrize("backends", [BACKENDS, (*BACKENDS, ELSEWHERE)], ids=["watched", "one unwatched"])
@settings(max_examples=60)
@given(script=service_scripts)
def test_traffic_of_services_is_in_the_cluster_once(script: list[Second], backends: tuple[str, ...]) -> None:
    told = [Second(Counter(), BOTH, BOTH, [*"ab"]), *script]
    in_time = [
        replace(second, alive=BOTH, cuts=BOTH, tells=[*second.tells, *"ab"] if at % 4 == 0 else second.tells)
        for at, second in enumerate(told)
    ]
    one = play(in_time, lambda: cluster(*backends))
    assert counted(one.cluster) == one.sent
    assert (Scope.SERVICE in one.cluster) <= (ELSEWHERE in backends)
