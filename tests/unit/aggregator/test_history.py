"""The last 15 minutes in buckets."""

from __future__ import annotations

from services.aggregator.history import History
from services.flows.keys import HISTORY_BUCKETS
from services.flows.scope import Scope
from services.flows.traffic import ByScope, no_counts
from tests.support.agents import SECOND


def seen(tx: int, rx: int = 0, scope: Scope = Scope.INTERNET) -> ByScope:
    counts = no_counts()
    counts[0], counts[1] = tx, rx
    return {scope: counts}


def test_windows_add_up_in_the_bucket_in_which_they_end() -> None:
    history = History()
    history.add(1, 4 * SECOND, seen(1, 2))
    history.add(1, 5 * SECOND - 1, seen(10, 20))
    history.add(1, 5 * SECOND, seen(100))
    history.add(2, 5 * SECOND, seen(7, scope=Scope.PRIVATE))
    assert history.buckets == {
        0: {1: {Scope.INTERNET: (11, 22)}},
        1: {1: {Scope.INTERNET: (100, 0)}, 2: {Scope.PRIVATE: (7, 0)}},
    }


def test_old_buckets_are_dropped_and_the_store_is_told() -> None:
    history = History()
    history.add(1, 0, seen(1))
    history.committed()
    history.add(1, 5 * HISTORY_BUCKETS * SECOND, seen(1))
    assert list(history.buckets) == [HISTORY_BUCKETS]
    assert (history.changed, history.dropped) == ({HISTORY_BUCKETS}, {0})
    history.committed()
    assert not history.changed
    assert not history.dropped


def test_what_comes_too_late_for_any_bucket_is_not_kept() -> None:
    history = History()
    history.add(1, 5 * HISTORY_BUCKETS * SECOND, seen(1))
    history.add(1, 0, seen(1))
    assert list(history.buckets) == [HISTORY_BUCKETS]
    assert history.changed == {HISTORY_BUCKETS}


def test_a_row_merges_into_another_bucket_by_bucket() -> None:
    history = History()
    history.add(1, 0, seen(1, 1))
    history.add(2, 0, seen(10, 10))
    history.add(2, 0, seen(5, scope=Scope.PRIVATE))
    history.add(1, 9 * SECOND, seen(100))
    history.add(3, 99 * SECOND, seen(1))
    history.committed()
    history.merge(1, 2)
    assert history.buckets[0] == {2: {Scope.INTERNET: (11, 11), Scope.PRIVATE: (5, 0)}}
    assert history.buckets[1] == {2: {Scope.INTERNET: (100, 0)}}
    assert history.changed == {0, 1}
