"""The mirror: totals, rates, who is live, and which row is shown."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.increments import CursorError
from services.api.mirror import COLUMNS, GapError, Mirror
from services.flows.history import Passed
from services.flows.keys import HISTORY_BUCKETS
from services.flows.scope import Column, Scope
from services.flows.traffic import ROW_COUNTERS, Row, Session, Tick
from tests.support.clocks import HandClock
from tests.support.shard import SECOND, change, counts, pod, report, talked

TX = ROW_COUNTERS.index("tx_bytes")
START = 1_700_000_000 * SECOND
WEB, DB = pod("web"), pod("db", node="node-b")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def mirror(clock: HandClock) -> Mirror:
    """Rows 1 (node-a) and 2 (node-b) at tick 10; both agents are known, none has reported since."""
    session = Session(
        7, 10, START, cluster=talked(tx_bytes=5), nodes={n: report(n) for n in ("node-a", "node-b")}, loss={"x": 1}
    )
    rows = [Row(1, WEB, talked(tx_bytes=1000)), Row(2, DB, talked(rx_bytes=1000))]
    return Mirror.of(clock, session, rows, START)


def tick(n: int, *changes: Any, second: float = 1, nodes: tuple[str, ...] = ("node-a", "node-b"), **more: Any) -> Tick:
    """Tick `n`, so many seconds after the start."""
    at_us = START + int(second * SECOND)
    return Tick(epoch=7, n=n, at_us=at_us, changes=changes, nodes=tuple(map(report, nodes)), **more)


def rate(mirror: Mirror, number: int, scope: Scope = Scope.SAME_NODE) -> int:
    """Bytes per second that a row sends; 0 where it is silent."""
    return mirror.rows[number].rates.get(scope, counts())[TX]


def test_of_two_pods_of_several_shards_the_one_that_began_later_is_shown(clock: HandClock) -> None:
    later, earlier = pod("web", started_us=9), pod("web", node="node-b", started_us=5, uid="uid-before")
    rows = [Row(3, later, talked()), Row(8, earlier, talked())]
    assert Mirror.of(clock, Session(7, 10, START, shards=2), rows, START).shown()["shop/web"].number == 3
    assert Mirror.of(clock, Session(7, 10, START), rows, START).shown()["shop/web"].number == 8


def test_totals_follow_from_ticks(mirror: Mirror) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=7)), cluster=talked(tx_bytes=7), loss={"x": 2, "y": 1}))
    mirror.apply(tick(12, change(1, talked(Scope.INTERNET, tx_bytes=9)), pending_bytes=3, overlap_bytes=4))
    totals = mirror.rows[1].totals
    assert (totals[Scope.SAME_NODE][TX], totals[Scope.INTERNET][TX]) == (1007, 9)
    assert mirror.cluster[Scope.SAME_NODE][TX] == 12
    assert mirror.loss == {"x": 3, "y": 1}
    assert (mirror.pending_bytes, mirror.overlap_bytes, mirror.tick_id) == (3, 4, "7-12")


@pytest.mark.parametrize(
    "wrong",
    [tick(12), tick(10), Tick(epoch=8, n=11, at_us=START, changes=()), tick(11, change(99, talked(tx_bytes=1)))],
    ids=["missing", "old", "another-epoch", "unknown-row"],
)
def test_what_does_not_follow_is_a_gap(mirror: Mirror, wrong: Tick) -> None:
    with pytest.raises(GapError):
        mirror.apply(wrong)


def test_a_rate_is_over_its_own_window(mirror: Mirror) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=500), window_us=SECOND // 2)))
    assert rate(mirror, 1) == 1000


def test_a_row_without_which_its_agent_reports_is_silent(mirror: Mirror) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=500)), change(2, talked(tx_bytes=600))))
    mirror.apply(tick(12, second=2, nodes=("node-b",)))
    assert (rate(mirror, 1), rate(mirror, 2)) == (500, 0)
    mirror.apply(tick(13, second=2.1, nodes=("node-a",)))
    assert rate(mirror, 1) == 0


def test_an_agent_that_says_nothing_for_5_s_is_not_live(mirror: Mirror, clock: HandClock) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=500))))
    clock.pass_s(1)
    mirror.apply(tick(12, second=2, nodes=("node-b",)))
    clock.pass_s(4.5)
    assert not mirror.live_row(mirror.rows[1])
    assert mirror.live_row(mirror.rows[2])
    assert mirror.live_nodes() == {"node-b"}
    clock.pass_s(1)
    assert mirror.live_nodes() == frozenset()


def test_nobody_is_live_before_a_report_was_seen(mirror: Mirror) -> None:
    assert mirror.live_nodes() == frozenset()


def test_a_row_of_a_node_without_agent_is_judged_by_the_others(mirror: Mirror, clock: HandClock) -> None:
    mirror.apply(tick(11, change(3, talked(tx_bytes=500)), identities={3: pod("late", node="elsewhere")}))
    assert mirror.live_row(mirror.rows[3])
    mirror.apply(tick(12, second=2))
    assert rate(mirror, 3) == 500, "which agent would have reported it nobody knows"
    mirror.apply(tick(13, second=3.5))
    assert rate(mirror, 3) == 0
    clock.pass_s(10)
    assert not mirror.live_row(mirror.rows[3])


def test_what_an_agent_missed_is_no_rate(mirror: Mirror) -> None:
    added = {**talked(Scope.UNKNOWN, tx_bytes=10**9), **talked(Scope.SAME_NODE, tx_bytes=100)}
    mirror.apply(tick(11, change(1, added)))
    assert set(mirror.rows[1].rates) == {Scope.SAME_NODE}
    assert mirror.rows[1].totals[Scope.UNKNOWN][TX] == 10**9


def test_a_gap_alone_leaves_the_rate(mirror: Mirror) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=100))))
    mirror.apply(tick(12, change(1, talked(Scope.UNKNOWN, tx_bytes=10**9), window_us=0), second=2))
    assert rate(mirror, 1) == 100


def test_a_merged_row_is_gone_and_makes_neither_rate_nor_peak(mirror: Mirror) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=100)), change(2, talked(tx_bytes=50))))
    before = mirror.rows[2].totals[Scope.SAME_NODE]
    merged = talked(tx_bytes=before[TX] + 5, rx_bytes=1000)
    mirror.apply(tick(12, change(1, merged), removed=(2,), second=2))
    assert set(mirror.rows) == {1}
    assert mirror.rows[1].totals[Scope.SAME_NODE][TX] == 1155
    assert rate(mirror, 1) == 100
    assert sum(sum(bucket) for bucket in mirror.timeline.values()) == 155


def test_a_row_that_is_forgotten_leaves_the_timeline_above_0(mirror: Mirror) -> None:
    mirror.apply(tick(11, removed=(2,)))
    assert all(column >= 0 for bucket in mirror.timeline.values() for column in bucket)


def test_ticks_that_are_in_the_totals_tell_rates_and_reports(mirror: Mirror) -> None:
    mirror.recall(tick(9, change(1, talked(tx_bytes=300)), second=-2))
    mirror.recall(tick(10, change(1, talked(tx_bytes=400)), second=-1, nodes=("node-a",)))
    assert mirror.rows[1].totals[Scope.SAME_NODE][TX] == 1000
    assert rate(mirror, 1) == 400
    assert mirror.live_nodes() == {"node-a", "node-b"}
    assert mirror.at_us == START - SECOND
    assert mirror.since(7, 8) == {1: (0, 700, 0, 0, 700, 0)}


@pytest.mark.parametrize("other", [tick(11), Tick(epoch=8, n=3, at_us=START, changes=())])
def test_other_ticks_are_not_recalled(mirror: Mirror, other: Tick) -> None:
    mirror.recall(other)
    assert mirror.live_nodes() == frozenset()


def test_a_row_that_is_gone_is_recalled_without_harm(mirror: Mirror) -> None:
    mirror.recall(tick(10, change(99, talked(tx_bytes=300))))
    assert 99 not in mirror.rows


def test_now_goes_on_between_ticks(mirror: Mirror, clock: HandClock) -> None:
    assert mirror.now_us == START
    clock.pass_s(2)
    assert mirror.now_us == START + 2 * SECOND


def test_late_ticks_do_not_set_the_clock_back(mirror: Mirror, clock: HandClock) -> None:
    clock.pass_s(30)
    mirror.apply(tick(11, second=1))
    assert mirror.now_us == START + 30 * SECOND
    assert mirror.live_nodes() == frozenset(), "what is read late was reported long ago"


def test_a_clock_that_stood_still_is_set_right_by_a_tick(mirror: Mirror) -> None:
    mirror.apply(tick(11, second=3600))
    assert mirror.now_us == START + 3600 * SECOND


def test_redis_clock_counts(mirror: Mirror) -> None:
    mirror.set_now(START + 5 * SECOND)
    assert mirror.now_us == START + 5 * SECOND


def test_of_several_pods_of_a_name_the_newest_is_shown(mirror: Mirror) -> None:
    assert mirror.shown()["shop/web"].number == 1
    mirror.apply(tick(11, identities={3: pod("web", uid="another")}))
    assert mirror.shown()["shop/web"].number == 3
    mirror.apply(tick(12, identities={3: pod("api", uid="another")}))
    assert mirror.shown()["shop/web"].number == 1


def test_shown_stays_the_same_while_nobody_comes_or_goes(mirror: Mirror) -> None:
    before = mirror.shown()
    mirror.apply(tick(11, change(1, talked(tx_bytes=1))))
    assert mirror.shown() is before


def test_cursors(mirror: Mirror) -> None:
    assert mirror.since(7, 10) == {}
    mirror.apply(tick(11, change(1, talked(tx_bytes=500))))
    assert mirror.since(7, 10) == {1: (0, 500, 0, 0, 500, 0)}
    for epoch, n in ((7, 9), (7, 12), (6, 10), (8, 11)):
        with pytest.raises(CursorError):
            mirror.since(epoch, n)


def test_a_window_counts_from_now(mirror: Mirror, clock: HandClock) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=500)), second=0.5))
    assert mirror.within(10 * SECOND) == {1: (0, 500, 0, 0, 500, 0)}
    clock.pass_s(11)
    assert mirror.within(10 * SECOND) == {}


def test_the_timeline_begins_with_the_stored_history(mirror: Mirror) -> None:
    bucket = START // (5 * SECOND)
    mirror.take_history(
        {bucket: {1: {Scope.INTERNET: Passed(10, 5), Scope.SERVICE: Passed(1, 0)}, 2: {Scope.INTERNET: Passed(2, 0)}}}
    )
    mirror.apply(tick(11, change(1, talked(Scope.INTERNET, rx_bytes=100))))
    columns = dict(zip(COLUMNS, mirror.timeline[bucket], strict=True))
    assert (columns[Column.INTERNET], columns[Column.LOCAL]) == (117, 1)


def test_the_timeline_is_bounded(mirror: Mirror) -> None:
    for n in range(HISTORY_BUCKETS + 20):
        mirror.apply(tick(11 + n, second=5 * n))
    assert len(mirror.timeline) == HISTORY_BUCKETS


def test_a_tick_of_another_shard_may_come_late(mirror: Mirror) -> None:
    mirror.apply(tick(11, change(1, talked(tx_bytes=500)), second=20, nodes=("node-a",)), START + 19 * SECOND)
    mirror.apply(tick(12, change(2, talked(rx_bytes=500)), second=10, nodes=("node-b",)), START + 9 * SECOND)
    assert (mirror.at_us, mirror.now_us) == (START + 20 * SECOND, START + 20 * SECOND)
    assert (mirror.live("node-a"), mirror.live("node-b")) == (True, False)


def test_a_clock_that_was_set_back_shows_in_each_shards_own_ticks(mirror: Mirror) -> None:
    mirror.apply(tick(11, second=3600, nodes=("node-a",)), START + 3599 * SECOND)
    mirror.apply(tick(12, second=1, nodes=("node-a",)), START + 3600 * SECOND)
    assert (mirror.at_us, mirror.now_us) == (START + SECOND, START + SECOND)
    mirror.apply(tick(13, second=1.2, nodes=("node-b",)), START + 3599 * SECOND)
    assert mirror.live_nodes() == {"node-a", "node-b"}
