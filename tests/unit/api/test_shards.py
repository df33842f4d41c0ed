"""Several shards as one: numbers, the order of ticks, and sums."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.api.shards import Shards, Stored
from services.flows import traffic
from services.flows.history import Passed
from services.flows.keys import LEDGER, Keys, shard_of
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, Row, Session, Tick
from tests.support.shard import SECOND, change, pod, report, talked

START = 1_700_000_000 * SECOND
TX = ROW_COUNTERS.index("tx_bytes")
THREE = [Keys(0), Keys(1), Keys(2), Keys(LEDGER)]


def tick(n: int, second: float, **more: object) -> Tick:
    """Tick `n` of a shard, so many seconds after the start."""
    return Tick(7, n, START + int(second * SECOND), **{"changes": (), **more})  # type: ignore[arg-type]


def stored(*ticks: Tick, rows: tuple[Row, ...] = (), **session: object) -> Stored:
    """What a shard has whose last ticks are these."""
    return Stored(
        Session(7, len(ticks), START, shards=3, **session),  # type: ignore[arg-type]
        [*rows],
        [traffic.encode_tick(one) for one in ticks],
        {},
    )


def of_three(**parts: Stored) -> dict[Keys, Stored]:
    """Three shards and the ledger: those named `s0` to `s2` and `ledger`, the others empty."""
    return dict(zip(THREE, (parts.get(name, stored()) for name in ("s0", "s1", "s2", "ledger")), strict=True))


def test_one_shard_is_as_it_is() -> None:
    shards = Shards()
    one = tick(1, 1, changes=(change(5, talked(tx_bytes=1)),))
    part = replace_session(stored(one, rows=(Row(5, pod("web"), {}),)))
    whole = shards.together({Keys(0): part})
    assert (whole.session, whole.rows, [*whole.ticks]) == (part.session, part.rows, [one])
    assert shards.tick(Keys(0), one, 99, 99) is one
    assert (shards.all, shards.of_row(5), shards.of_node("any")) == ([Keys(0)], (Keys(0), 5), Keys(0))


def replace_session(part: Stored) -> Stored:
    """The same of a session with one shard."""
    return part._replace(session=replace(part.session, shards=1))


@given(st.integers(1, 64), st.data())
def test_each_row_has_a_number_of_its_own(count: int, data: st.DataObject) -> None:
    shards = Shards(count)
    rows = st.tuples(st.integers(0, count - 1), st.integers(0, 1 << 40))
    one, other = data.draw(rows), data.draw(rows)
    assert shards.of_row(shards.number(Keys(one[0]), one[1])) == (Keys(one[0]), one[1])
    assert (shards.number(Keys(one[0]), one[1]) == shards.number(Keys(other[0]), other[1])) == (one == other)


def test_a_node_is_where_its_agent_publishes() -> None:
    assert {Shards(3).of_node(f"node-{n}") for n in range(30)} == set(THREE[:3])
    assert Shards(3).of_node("node-a") == Keys(shard_of("node-a", 3))


def test_ticks_are_taken_by_time_and_numbered_anew() -> None:
    whole = Shards(3).together(
        of_three(s0=stored(tick(1, 1), tick(2, 3)), s2=stored(tick(1, 2)), ledger=stored(tick(1, 2.5)))
    )
    ticks = [*whole.ticks]
    assert [(one.at_us - START) / SECOND for one in ticks] == [1, 2, 2.5, 3]
    assert [(one.epoch, one.n) for one in ticks] == [(whole.session.epoch, n) for n in (1, 2, 3, 4)]
    assert whole.session.n == 4


def test_where_the_clock_was_set_back_a_shards_ticks_stay_in_order() -> None:
    first, second = (
        tick(1, 3600, changes=(change(4, talked(tx_bytes=1)),)),
        tick(2, 1, changes=(change(5, talked(tx_bytes=1)),)),
    )
    whole = Shards(3).together(of_three(s1=stored(first, second), s2=stored(tick(1, 2))))
    numbers = [one.changes[0].number for one in whole.ticks if one.changes]
    assert numbers == [4 * 3 + 1, 5 * 3 + 1]


def test_rows_and_history_have_the_numbers_that_ticks_name() -> None:
    passed = {9: {4: {Scope.INTERNET: Passed(1, 2, 3, 4)}}}
    row = Row(4, pod("web"), talked(tx_bytes=5))
    parts = of_three(s0=stored(rows=(row,))._replace(buckets=passed), s2=stored(rows=(row,))._replace(buckets=passed))
    shards = Shards(3)
    whole = shards.together(parts)
    told = shards.tick(Keys(2), tick(1, 1, identities={4: pod("web")}, removed=(7,)), whole.session.epoch, 1)
    assert [one.number for one in whole.rows] == [12, 14]
    assert [*whole.buckets[9]] == [12, 14]
    assert ([*told.identities], told.removed) == ([14], (23,))


def test_sums_are_of_all_shards_and_the_ledger() -> None:
    whole = Shards(3).together(
        of_three(
            s0=stored(cluster=talked(tx_bytes=1), pending_bytes=10, loss={"x": 1}, nodes={"a": report("a")}),
            s1=stored(cluster=talked(tx_bytes=2), overlap_bytes=5, loss={"x": 2, "y": 1}, nodes={"b": report("b")}),
            ledger=stored(cluster=talked(tx_bytes=4), pending_bytes=20),
        )
    )
    session = whole.session
    assert session.cluster[Scope.SAME_NODE][TX] == 7
    assert (session.pending_bytes, session.overlap_bytes, session.loss) == (30, 5, {"x": 3, "y": 1})
    assert {*session.nodes} == {"a", "b"}


def test_gauges_are_the_sum_of_what_each_said_last() -> None:
    shards = Shards(3)
    # What the last stored ticks say is in the sessions, and older ones' are no more.
    whole = shards.together(
        of_three(s0=stored(tick(1, 1, pending_bytes=999), pending_bytes=10), ledger=stored(pending_bytes=20))
    )
    assert [one.n for one in whole.ticks] == [1]
    said = [
        shards.tick(names, tick(2, 2, pending_bytes=pending, overlap_bytes=1), 1, n).pending_bytes
        for n, (names, pending) in enumerate([(Keys(0), 0), (Keys(LEDGER), 3), (Keys(1), 4)])
    ]
    assert said == [20, 3, 7]
