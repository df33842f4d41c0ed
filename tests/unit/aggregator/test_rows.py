"""Rows: who they are, what changed, over which time."""

from __future__ import annotations

from services.aggregator.rows import Moved, Rows
from services.flows.scope import Scope
from services.flows.traffic import ByScope, Identity, no_counts


def who(uid: str) -> Identity:
    return Identity(uid=uid, namespace="shop", pod=uid)


def sent(size: int) -> ByScope:
    counts = no_counts()
    counts[0] = size
    return {Scope.INTERNET: counts}


def test_a_row_keeps_its_number() -> None:
    rows = Rows()
    assert rows.open(who("a")).number == 1
    assert rows.open(who("b")).number == 2
    assert rows.open(who("a")).number == 1
    assert rows.changed == {1, 2}


def test_a_change_spans_all_windows_since_the_last_commit() -> None:
    rows = Rows()
    rows.open(who("a"))
    rows.add(1, sent(10), 1_000, 2_000)
    rows.add(1, sent(20), 4_000, 5_000)
    rows.add(1, sent(30), 1_000, 2_000)
    [change] = rows.changes()
    assert (change.window_us, change.added) == (4_000, sent(60))
    rows.committed()
    rows.add(1, sent(5), 5_000, 6_000)
    [change] = rows.changes()
    assert (change.window_us, change.added) == (1_000, sent(5))
    assert rows.by_number[1].frozen().totals == sent(65)
    assert rows.by_number[1].frozen().window_us == 1_000


def test_a_name_that_changes_nothing_is_no_news() -> None:
    rows = Rows()
    rows.open(who("a"))
    rows.committed()
    rows.identify(1, who("a"))
    assert not rows.dirty


def test_another_uid_keeps_the_row() -> None:
    rows = Rows()
    rows.open(who("a"))
    rows.committed()
    rows.identify(1, who("b"))
    assert rows.by_uid == {"b": 1}
    assert rows.take_moved() == [Moved("a", 1, "b", 1)]
    assert rows.take_moved() == []
    assert rows.identities == {1}


def test_a_merged_rows_bytes_came_in_its_whole_life() -> None:
    rows = Rows()
    rows.open(who("interface"))
    rows.open(who("pod"))
    rows.add(1, sent(100), 1_000, 2_000)
    rows.committed()
    rows.add(1, sent(11), 8_000, 9_000)
    rows.add(2, sent(5), 8_000, 9_000)
    rows.merge(1, 2)
    [change] = rows.changes()
    assert (change.number, change.window_us, change.added) == (2, 8_000, sent(116))
    assert (rows.by_uid, rows.removed) == ({"pod": 2}, {1})
    assert rows.take_moved() == [Moved("interface", 1, "pod", 2)]


def test_a_merged_row_that_was_silent_is_no_rate() -> None:
    rows = Rows()
    rows.open(who("interface"))
    rows.open(who("pod"))
    rows.add(1, sent(100), 1_000, 2_000)
    rows.committed()
    rows.merge(1, 2)
    [change] = rows.changes()
    assert (change.window_us, change.added) == (0, sent(100))


def test_an_empty_row_merges_without_a_change() -> None:
    rows = Rows()
    rows.open(who("interface"))
    rows.open(who("pod"))
    rows.merge(1, 2)
    assert rows.changes() == ()
    assert rows.changed == {2}
