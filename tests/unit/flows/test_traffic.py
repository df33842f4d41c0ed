"""The codecs between aggregator and API."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.flows import history, peer_store, traffic
from services.flows.history import Passed
from services.flows.scope import Rule, Scope
from services.flows.traffic import (
    ROW_COUNTERS,
    Identity,
    NodeReport,
    Peer,
    Row,
    RowChange,
    Session,
    Tick,
    TrafficError,
)

numbers = st.integers(0, 2**63)
texts = st.text(max_size=8)
counts = st.lists(numbers, min_size=len(ROW_COUNTERS), max_size=len(ROW_COUNTERS))
some_scopes = st.dictionaries(st.sampled_from(Scope), counts, min_size=1, max_size=3)
identities = st.builds(
    Identity,
    uid=texts,
    namespace=texts,
    pod=texts,
    ips=st.lists(texts, max_size=2).map(tuple),
    labels=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    started_us=numbers,
)
reports = st.builds(
    NodeReport,
    node=texts,
    boot=texts,
    source=texts,
    window_start_us=numbers,
    window_end_us=numbers,
    attachments=numbers,
    loss=st.dictionaries(texts, numbers, max_size=2),
    gauges=st.dictionaries(texts, st.floats(0, 1e12), max_size=2),
)
ticks = st.builds(
    Tick,
    epoch=numbers,
    n=numbers,
    at_us=numbers,
    changes=st.lists(
        st.builds(RowChange, numbers, numbers, some_scopes), max_size=4, unique_by=lambda row: row.number
    ).map(tuple),
    identities=st.dictionaries(numbers, identities, max_size=2),
    removed=st.lists(numbers, max_size=2).map(tuple),
    nodes=st.lists(reports, max_size=2).map(tuple),
    cluster=some_scopes,
    pending_bytes=numbers,
    overlap_bytes=numbers,
    loss=st.dictionaries(texts, numbers, max_size=2),
)


@given(ticks)
def test_ticks_round_trip(tick: Tick) -> None:
    assert traffic.decode_tick(traffic.encode_tick(tick)) == tick


@given(st.builds(Row, numbers, identities, some_scopes, numbers))
def test_rows_round_trip(row: Row) -> None:
    assert traffic.decode_row(row.number, traffic.encode_row(row)) == row


@given(numbers, numbers, numbers, some_scopes, st.lists(reports, max_size=3, unique_by=lambda node: node.node))
def test_sessions_round_trip(
    epoch: int, n: int, started: int, cluster: traffic.ByScope, nodes: list[NodeReport]
) -> None:
    session = Session(epoch, n, started, cluster, {node.node: node for node in nodes}, 1, 2, {"late": 3})
    assert traffic.decode_session(traffic.encode_session(session)) == session


@given(
    st.builds(Peer, texts, numbers, numbers, numbers, numbers, st.sampled_from(Scope), texts, counts, numbers, numbers)
)
def test_peers_round_trip(peer: Peer) -> None:
    data = peer_store.encode_peer(peer.counts, peer.first_us, peer.last_us)
    assert peer_store.decode_peers({peer_store.peer_key(peer): data}) == [peer]


@given(
    st.dictionaries(
        st.integers(0, 2**32 - 1),
        st.dictionaries(
            st.sampled_from(Scope), st.builds(Passed, numbers, numbers, numbers, numbers), min_size=1, max_size=3
        ),
    )
)
def test_history_round_trips(bucket: dict[int, dict[Scope, Passed]]) -> None:
    assert history.decode(history.encode(bucket)) == bucket


@pytest.mark.parametrize(
    ("rows", "scopes"), [([1, 2], [0]), ([[1]], [[0]]), ([1], [len(Scope)]), ([1], [-1])], ids=repr
)
def test_a_bucket_of_another_shape_is_refused(rows: object, scopes: object) -> None:
    with pytest.raises(TrafficError, match="not a history bucket"):
        history.decode(traffic.pack({"v": traffic.VERSION, "rows": rows, "scopes": scopes}))


ONE = Peer("10.0.0.1", 6, 80, 2, 0, Scope.SAME_NODE, Rule.POD_SAME_NODE, traffic.no_counts(), 0, 0)


@pytest.mark.parametrize(
    "decode",
    [
        traffic.decode_tick,
        traffic.decode_session,
        lambda data: peer_store.decode_peer(data, data),
        lambda data: peer_store.decode_peer(peer_store.peer_key(ONE), data),
        history.decode,
        lambda data: traffic.decode_row(1, data),
    ],
)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01",
        msgpack.packb({"v": 2}),
        msgpack.packb({"v": 1}),
        msgpack.packb({"v": 1, "totals": {"nowhere": []}, "identity": {}}),
    ],
)
def test_other_bytes_are_refused(decode: object, data: bytes) -> None:
    with pytest.raises(TrafficError):
        decode(data)  # type: ignore[operator]


def test_a_scope_with_too_few_counters_is_refused() -> None:
    row = Row(1, Identity("u", "n", "p"), {Scope.OTHER: [1]})
    with pytest.raises(TrafficError, match="one number per counter"):
        traffic.decode_row(1, traffic.encode_row(row))


def test_tick_ids() -> None:
    assert traffic.parse_tick_id(Tick(7, 9, 0, ()).id) == (7, 9)
    for text in ("", "7", "7-", "-9", "a-1", "7-9-1", "7-²"):
        with pytest.raises(TrafficError, match="no tick id"):
            traffic.parse_tick_id(text)


def test_counters_add_scope_by_scope() -> None:
    one = traffic.no_counts()
    one[0] = 5
    into: traffic.ByScope = {Scope.OTHER: list(one)}
    traffic.add_scopes(into, {Scope.OTHER: one, Scope.NODE: one})
    assert into[Scope.OTHER][0] == 10
    assert into[Scope.NODE] == one
    assert into[Scope.NODE] is not one


def test_peers_with_another_verdict_stand_apart() -> None:
    other = replace(ONE, scope=Scope.CLUSTER_UNRESOLVED, rule=Rule.CLUSTER_RANGE)
    assert peer_store.peer_key(ONE) != peer_store.peer_key(other)


def test_an_identity_is_keyed_by_namespace_and_name() -> None:
    assert Identity("u", "shop", "web-1").key == "shop/web-1"
