"""Who had an address in a window, while it changes hands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.directory.tenures import Tenures
from services.flows import address

ONE, OTHER = address.parse("10.1.0.2"), address.parse("10.1.0.3")


def test_windows_before_between_and_after() -> None:
    held = Tenures()
    held.begin(ONE, "a", 100)
    held.end(ONE, "a", 200)
    held.begin(ONE, "b", 300)
    assert held.holders(ONE, 0, 100) == set()
    assert held.holders(ONE, 90, 110) == {"a"}
    assert held.holders(ONE, 199, 300) == {"a"}
    assert held.holders(ONE, 200, 300) == set()
    assert held.holders(ONE, 199, 301) == {"a", "b"}
    assert held.holders(ONE, 1000, 2000) == {"b"}
    assert held.holders(OTHER, 0, 1000) == set()
    assert [one.uid for one in held.now(ONE)] == ["b"]
    assert held.settled_us(ONE) == 300
    assert held.settled_us(OTHER) == 0


def test_of_two_ends_the_earlier_counts_and_none_is_before_the_beginning() -> None:
    held = Tenures()
    held.begin(ONE, "a", 100)
    held.end(ONE, "a", 300)
    held.end(ONE, "a", 200)
    held.end(ONE, "a", 400)
    assert held.holders(ONE, 200, 300) == set()
    held.end(ONE, "a", 50)
    assert held.holders(ONE, 0, 1000) == set()
    held.end(ONE, "nobody", 1)
    held.end(OTHER, "a", 1)


def test_a_pod_begins_once_and_may_come_back() -> None:
    held = Tenures()
    held.begin(ONE, "a", 100)
    held.begin(ONE, "a", 50)
    assert held.holders(ONE, 60, 90) == set()
    held.end(ONE, "a", 200)
    held.begin(ONE, "a", 300)
    assert held.holders(ONE, 350, 360) == {"a"}
    assert held.holders(ONE, 210, 220) == set()


def test_what_ended_long_ago_is_forgotten() -> None:
    held = Tenures()
    held.begin(ONE, "a", 0)
    held.end(ONE, "a", 100)
    held.begin(ONE, "b", 100)
    held.begin(OTHER, "c", 0)
    held.end(OTHER, "c", 50)
    assert held.forget(60) == ["c"]
    assert OTHER not in held
    assert held.forget(101) == ["a"]
    assert set(held.known()) == {ONE}
    assert held.holders(ONE, 0, 1000) == {"b"}


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 50)), max_size=8), st.integers(0, 200), st.integers(1, 50))
def test_holders_are_those_whose_time_overlaps(spans: list[tuple[int, int]], start: int, length: int) -> None:
    held = Tenures()
    for at, (begin, lasting) in enumerate(spans):
        held.begin(ONE, str(at), begin)
        held.end(ONE, str(at), begin + lasting)
    window = range(start, start + length)
    truth = {str(at) for at, (begin, lasting) in enumerate(spans) if set(range(begin, begin + lasting)) & set(window)}
    assert held.holders(ONE, window.start, window.stop) == truth
