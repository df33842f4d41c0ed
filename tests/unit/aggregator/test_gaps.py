"""The least that must have passed while pods had no agent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.gaps import Gaps


def test_a_gap_alone_counts_both_ways() -> None:
    assert Gaps().add(0, 10, 600, 300) == (600, 300)


def test_what_one_sent_and_another_received_counts_once() -> None:
    gaps = Gaps()
    assert gaps.add(0, 10, 600, 0) == (600, 0)
    assert gaps.add(5, 15, 0, 700) == (0, 100)
    assert gaps.add(12, 13, 50, 0) == (0, 0)


def test_gaps_of_other_times_count_apart() -> None:
    gaps = Gaps()
    gaps.add(0, 10, 600, 0)
    assert gaps.add(10, 20, 0, 600) == (0, 600)


def test_a_gap_that_joins_two_groups_adds_no_more_than_is_sure() -> None:
    gaps = Gaps()
    gaps.add(0, 10, 100, 0)
    gaps.add(20, 30, 100, 0)
    assert gaps.add(5, 25, 0, 250) == (0, 50)
    assert len(gaps.groups) == 1


def test_groups_are_bounded() -> None:
    gaps = Gaps()
    for at in range(300):
        gaps.add(at, at + 1, 1, 0)
    assert len(gaps.groups) == 256
    assert gaps.groups[-1].start_us == 299


def test_it_survives_the_store() -> None:
    gaps, again = Gaps(), Gaps()
    gaps.add(0, 10, 600, 300)
    again.restore(gaps.stored())
    assert again == gaps


pods = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 9)).filter(lambda one: one[0] != one[1]),
    max_size=8,
)


@given(pods, st.permutations(range(4)))
def test_never_more_than_has_passed(sent: list[tuple[int, int, int]], order: list[int]) -> None:
    """Pods 1 to 3 have gaps, pod 0 stands for everybody else."""
    gaps = Gaps()
    added = 0
    for pod in order:
        if pod:
            out = sum(size for sender, _, size in sent if sender == pod)
            into = sum(size for _, receiver, size in sent if receiver == pod)
            tx, rx = gaps.add(0, 10, out, into)
            assert 0 <= tx <= out
            assert 0 <= rx <= into
            added += tx + rx
    assert added <= sum(size for _, _, size in sent)
