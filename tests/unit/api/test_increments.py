"""Increments since a tick, and of a while."""

from __future__ import annotations

import pytest

from services.api.increments import CursorError, Increments
from services.flows.scope import Scope
from services.flows.traffic import RowChange, Tick
from tests.support.shard import SECOND, change, talked


def tick(n: int, *changes: RowChange, second: float | None = None) -> Tick:
    """Tick `n`, at second `n` unless said otherwise."""
    return Tick(epoch=7, n=n, at_us=int((n if second is None else second) * SECOND), changes=changes)


def sent(number: int, size: int) -> RowChange:
    """A row that sent so much to the internet."""
    return change(number, talked(Scope.INTERNET, tx_bytes=size, tx_packets=1))


@pytest.fixture
def increments() -> Increments:
    """Ticks 1 to 4; row 1 in all of them, row 2 in one, one without any."""
    kept = Increments()
    kept.add(tick(1, sent(1, 10)))
    kept.add(tick(2, sent(1, 20), sent(2, 500)))
    kept.add(tick(3, sent(1, 40)))
    kept.add(tick(4))
    return kept


def test_since_a_tick(increments: Increments) -> None:
    assert increments.since(1, now=4) == {1: (2, 60, 0, 0, 0, 0), 2: (1, 500, 0, 0, 0, 0)}
    assert increments.since(2, now=4) == {1: (1, 40, 0, 0, 0, 0)}


def test_since_before_the_first(increments: Increments) -> None:
    assert increments.since(0, now=4)[1][1] == 70


def test_since_the_last_there_is_nothing(increments: Increments) -> None:
    assert increments.since(3, now=4) == {}
    assert increments.since(4, now=4) == {}


def test_a_tick_to_come_is_no_cursor(increments: Increments) -> None:
    with pytest.raises(CursorError):
        increments.since(5, now=4)


def test_of_a_while(increments: Increments) -> None:
    assert increments.within(2 * SECOND) == {1: (1, 40, 0, 0, 0, 0)}
    assert increments.within(2 * SECOND - 1)[2][1] == 500


def test_without_any_tick() -> None:
    assert Increments().within(0) == {}
    with pytest.raises(CursorError):
        Increments().since(0, now=1)


def test_two_minutes_are_kept(increments: Increments) -> None:
    increments.add(tick(5, second=122))
    assert increments.since(1, now=5)[1][1] == 60
    increments.add(tick(6, second=122.000001))
    with pytest.raises(CursorError):
        increments.since(1, now=6)
    assert increments.since(2, now=6)[1][1] == 40


def test_where_one_is_missing_nothing_is_added_up(increments: Increments) -> None:
    with pytest.raises(CursorError):
        increments.since(1, now=5)
    increments.add(tick(6, sent(1, 1)))
    with pytest.raises(CursorError):
        increments.since(4, now=6)
    assert increments.since(5, now=6)[1][1] == 1


def test_more_than_32_bits_add_up() -> None:
    kept = Increments()
    kept.add(tick(1, sent(1, 2**61)))
    kept.add(tick(2, sent(1, 2**61)))
    assert kept.since(0, now=2)[1][1] == 2**62
