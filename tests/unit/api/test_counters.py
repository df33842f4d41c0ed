"""The original's six counters, and the dashboard's columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.api.counters import column_bytes, columns_of, gap_bytes, internet_bytes, six, syns, total_bytes
from services.flows.history import Passed
from services.flows.scope import SCOPES, Column, Scope
from services.flows.traffic import ROW_COUNTERS, ByScope, Counts
from tests.support.shard import counts, talked

LOCAL_IN_THE_ORIGINAL = set(SCOPES) - {Scope.PRIVATE, Scope.INTERNET, Scope.UNKNOWN}


def test_every_scope_is_local_or_external() -> None:
    for scope in SCOPES:
        packets, sent, received, unknown, near_sent, near_received = six(
            talked(scope, tx_bytes=100, rx_bytes=30, tx_packets=2, rx_packets=1)
        )
        if scope is Scope.UNKNOWN:
            assert (sent, received) == (0, 0)
        else:
            assert (sent, received, unknown) == (100, 30, 0)
        assert packets == 3
        assert (near_sent, near_received) == ((100, 30) if scope in LOCAL_IN_THE_ORIGINAL else (0, 0)), scope


def test_what_is_neither_tcp_nor_udp_is_unknown_whatever_its_scope() -> None:
    pinged = talked(Scope.SAME_NODE, tx_bytes=150, rx_bytes=80, tx_other_bytes=50, rx_other_bytes=80)
    assert six(pinged) == (0, 100, 0, 130, 100, 0)


def test_what_came_through_an_ingress_is_external() -> None:
    served = talked(Scope.SAME_NODE, tx_bytes=1000, rx_bytes=100, tx_ingress_bytes=900, rx_ingress_bytes=60)
    assert six(served)[1:] == (1000, 100, 0, 100, 40)


def test_what_came_through_an_ingress_is_in_the_internet_column() -> None:
    served = talked(Scope.SAME_NODE, tx_bytes=1000, rx_bytes=100, tx_ingress_bytes=900, rx_ingress_bytes=60)
    asked = talked(Scope.INTERNET, tx_bytes=5, rx_bytes=7)
    columns = column_bytes({**served, **asked})
    assert (columns[Column.LOCAL], columns[Column.INTERNET]) == (140, 972)
    assert internet_bytes({**served, **asked}) == (905, 67)
    assert columns_of(Scope.SAME_NODE, Passed(10, 20)) == ((Column.LOCAL, 10, 20),)


def test_what_an_agent_missed_stands_apart() -> None:
    scopes = talked(Scope.UNKNOWN, tx_bytes=500, rx_bytes=70, tx_other_bytes=40, rx_other_bytes=20, tx_packets=9)
    assert gap_bytes(scopes) == 510
    assert six(scopes) == (9, 0, 0, 60, 0, 0)
    assert gap_bytes(talked(Scope.INTERNET, tx_bytes=1)) == 0


def test_columns() -> None:
    scopes: ByScope = {scope: counts(tx_bytes=1, rx_bytes=2) for scope in SCOPES}
    assert column_bytes(scopes) == {
        Column.LOCAL: 24,
        Column.CROSS: 6,
        Column.PRIVATE: 3,
        Column.INTERNET: 3,
        Column.OTHER: 6,
    }


def test_attempts_of_both_directions() -> None:
    assert syns({**talked(Scope.INTERNET, tx_syns=2), **talked(Scope.SERVICE, rx_syns=3)}) == 5


@st.composite
def rows(draw: st.DrawFn) -> Counts:
    """Counters whose parts do not exceed the whole."""
    values = {name: draw(st.integers(0, 2**40)) for name in ROW_COUNTERS}
    for way in ("tx", "rx"):
        values[f"{way}_other_bytes"] = draw(st.integers(0, values[f"{way}_bytes"]))
        values[f"{way}_ingress_bytes"] = draw(st.integers(0, values[f"{way}_bytes"] - values[f"{way}_other_bytes"]))
    return counts(**values)


@given(st.dictionaries(st.sampled_from(SCOPES), rows()))
def test_nothing_is_lost_between_the_fields(scopes: ByScope) -> None:
    _, sent, received, unknown, near_sent, near_received = six(scopes)
    assert sent + received + unknown + gap_bytes(scopes) == total_bytes(scopes) == sum(column_bytes(scopes).values())
    assert 0 <= near_sent <= sent
    assert 0 <= near_received <= received
