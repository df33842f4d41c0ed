"""The last 15 minutes in buckets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from services.aggregator.history import History
from services.aggregator.sums import table_of
from services.flows import history as stored
from services.flows.history import Passed
from services.flows.keys import HISTORY_BUCKETS
from services.flows.scope import SCOPES, Scope
from services.flows.traffic import no_counts
from tests.support.agents import SECOND


@dataclass
class Buckets:
    """A history, and what is in it."""

    history: History = field(default_factory=History)

    def add(self, row: int, end_us: int, tx: int, rx: int = 0, *, scope: Scope = Scope.INTERNET) -> None:
        """A row saw so much in a window."""
        counts = no_counts()
        counts[0], counts[1] = tx, rx
        rows, scopes, ends = (np.array([number]) for number in (row, SCOPES.index(scope), end_us))
        self.history.add(rows, scopes, ends, table_of([counts]))

    @property
    def all(self) -> dict[int, dict[int, dict[Scope, Passed]]]:
        """Everything as it is stored."""
        return {number: stored.decode(self.history.encoded(number)) for number in self.history}


def test_windows_add_up_in_the_bucket_in_which_they_end() -> None:
    buckets = Buckets()
    buckets.add(1, 4 * SECOND, 1, 2)
    buckets.add(1, 5 * SECOND - 1, 10, 20)
    buckets.add(1, 5 * SECOND, 100)
    buckets.add(2, 5 * SECOND, 7, scope=Scope.PRIVATE)
    assert buckets.all == {
        0: {1: {Scope.INTERNET: Passed(11, 22)}},
        1: {1: {Scope.INTERNET: Passed(100, 0)}, 2: {Scope.PRIVATE: Passed(7, 0)}},
    }


def test_what_is_later_than_a_clock_that_was_set_back_is_dropped_and_the_store_is_told() -> None:
    buckets = Buckets()
    for hour_s in (0, 3600):
        buckets.add(1, hour_s * SECOND, 1)
    buckets.history.committed()
    buckets.history.drop_later(SECOND)
    assert buckets.history.dropped == {720}
    buckets.add(1, 2 * SECOND, 10)
    assert buckets.all == {0: {1: {Scope.INTERNET: Passed(10, 0)}}}


def test_old_buckets_are_dropped_and_the_store_is_told() -> None:
    buckets = Buckets()
    history = buckets.history
    buckets.add(1, 0, 1)
    history.committed()
    buckets.add(1, 5 * HISTORY_BUCKETS * SECOND, 1)
    assert list(history) == [HISTORY_BUCKETS]
    assert (history.changed, history.dropped) == ({HISTORY_BUCKETS}, {0})
    history.committed()
    assert not history.changed
    assert not history.dropped


def test_what_comes_too_late_for_any_bucket_is_not_kept() -> None:
    buckets = Buckets()
    history = buckets.history
    buckets.add(1, 5 * HISTORY_BUCKETS * SECOND, 1)
    buckets.add(1, 0, 1)
    assert list(history) == [HISTORY_BUCKETS]
    assert history.changed == {HISTORY_BUCKETS}


def test_a_row_merges_into_another_bucket_by_bucket() -> None:
    buckets = Buckets()
    history = buckets.history
    buckets.add(1, 0, 1, 1)
    buckets.add(2, 0, 10, 10)
    buckets.add(2, 0, 5, scope=Scope.PRIVATE)
    buckets.add(1, 9 * SECOND, 100)
    buckets.add(3, 99 * SECOND, 1)
    history.committed()
    history.merge(1, 2)
    assert buckets.all[0] == {2: {Scope.INTERNET: Passed(11, 11), Scope.PRIVATE: Passed(5, 0)}}
    assert buckets.all[1] == {2: {Scope.INTERNET: Passed(100, 0)}}
    assert history.changed == {0, 1}
