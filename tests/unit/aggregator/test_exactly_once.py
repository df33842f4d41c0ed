"""Whatever agents miss, and whenever they report: each byte is in the totals once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.flows.scope import Scope
from tests.support.exactly_once import (
    BOTH,
    INTERNET,
    PODS,
    Second,
    Traffic,
    Way,
    as_the_interfaces_counted,
    counted,
    play,
    seconds,
    sizes,
)
from tests.support.worlds import directory


def direct(sizes: dict[tuple[str, str], int]) -> Traffic:
    """Traffic by sender and receiver."""
    return Counter({(*pair, Way.DIRECT): size for pair, size in sizes.items()})


ends = st.sampled_from([*PODS, INTERNET])
# Not from a pod to itself: of a gap it is not known that both its ways are the same bytes.
pairs = st.tuples(ends, ends).filter(lambda pair: pair[0] != pair[1])
traffic = st.dictionaries(pairs, sizes, max_size=5).map(direct)
scripts = st.lists(seconds(traffic), max_size=12)
# Of machines that nobody has heard of it cannot be known which clock they tell of.
on_set_clocks = st.lists(seconds(traffic, [0, 0, -3600, -3, 3, 3600]), max_size=12).map(
    lambda script: [Second(Counter(), BOTH, BOTH, [*"ab"]), *script]
)


@settings(max_examples=200)
@given(scripts)
def test_each_pod_has_what_its_interface_counted(script: list[Second]) -> None:
    state, nodes, _ = play(script, directory())
    assert as_the_interfaces_counted(state, nodes)


FIRST_REPORT_IS_LATE = [
    Second(Counter(), frozenset("a"), frozenset("a"), []),
    # The sender's agent is the first to tell of it; the receiver's dies with what it saw.
    Second(direct({("10.2.0.2", "10.1.0.2"): 100}), BOTH, frozenset("b"), ["b", "a"]),
    Second(Counter(), frozenset(), frozenset(), []),
]
TWO_GAPS = [
    Second(Counter(), frozenset("a"), frozenset("a"), ["a"]),
    Second(direct({("10.1.0.2", "10.1.0.3"): 100}), frozenset(), frozenset(), []),
    Second(Counter(), frozenset("a"), frozenset("a"), []),
    # Told by the sender's agent before the first gap is found, and part of the second one.
    Second(direct({("10.2.0.2", "10.1.0.2"): 100}), BOTH, frozenset("b"), ["b", "a"]),
    Second(Counter(), frozenset(), frozenset(), []),
]


@settings(max_examples=200)
@given(scripts)
@example(FIRST_REPORT_IS_LATE)
@example(TWO_GAPS)
def test_no_byte_is_in_the_cluster_twice(script: list[Second]) -> None:
    state, _, sent = play(script, directory())
    assert counted(state) <= sent


@settings(max_examples=200)
@given(scripts)
def test_every_byte_is_in_the_cluster_once_where_agents_live(script: list[Second]) -> None:
    state, _, sent = play([replace(second, alive=BOTH, cuts=BOTH) for second in script], directory())
    assert counted(state) == sent
    assert Scope.UNKNOWN not in state.cluster


@settings(max_examples=200)
@given(scripts)
def test_nothing_overlaps_where_agents_live_and_report_in_time(script: list[Second]) -> None:
    # In time is less than `HOLD_US`; and of an agent that was never heard nobody knows that it is there.
    told = [Second(Counter(), BOTH, BOTH, [*"ab"]), *script[:3]]
    state, _, sent = play([replace(second, alive=BOTH, tells=[*second.tells, *"ab"]) for second in told], directory())
    assert (counted(state), state.overlap_bytes) == (sent, 0)


@settings(max_examples=200)
@given(on_set_clocks)
def test_each_pod_has_what_its_interface_counted_though_the_clock_is_set(script: list[Second]) -> None:
    state, nodes, _ = play(script, directory())
    assert as_the_interfaces_counted(state, nodes)


@settings(max_examples=200)
@given(on_set_clocks)
def test_every_byte_is_in_the_cluster_once_though_the_clock_is_set(script: list[Second]) -> None:
    state, _, sent = play([replace(second, alive=BOTH, cuts=BOTH) for second in script], directory())
    assert counted(state) == sent
