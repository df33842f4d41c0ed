"""What follows from a source's record of an interface, and its bytes in the store."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.flows.coverage import (
    CoverageError,
    Direction,
    Evidence,
    InterfaceCoverage,
    NodeCoverage,
    Sides,
    Sums,
    beyond,
    decode,
    encode,
    least,
    plus,
    went_on,
)
from services.flows.delta import NOTHING, Coverage, InterfaceCounters

COUNTS = st.integers(0, (1 << 63) - 1)
COUNTERS = st.builds(InterfaceCounters, COUNTS, COUNTS, COUNTS, COUNTS)
SUMS = st.builds(Sums, *[COUNTERS] * 7)
TOLD = st.sampled_from([None, False, True])
INTERFACES = st.builds(
    InterfaceCoverage,
    interface=st.text(max_size=15),
    index=COUNTS,
    source=st.text(max_size=5),
    boot=st.text(max_size=5),
    attachment=COUNTS,
    row=COUNTS,
    since_us=COUNTS,
    reported_us=COUNTS,
    detached_us=st.none() | COUNTS,
    based=st.booleans(),
    counters=st.none() | COUNTERS,
    counted=COUNTERS,
    captured=COUNTERS,
    compared=COUNTERS,
    attach=COUNTERS,
    folded=COUNTERS,
    gap=COUNTERS,
    lost_before=COUNTS,
    sees_tx=TOLD,
    sees_rx=TOLD,
    tx=st.builds(Evidence, COUNTS, COUNTS, COUNTS, COUNTS),
    rx=st.builds(Evidence, COUNTS, COUNTS, COUNTS, COUNTS),
)
NODES = st.builds(
    NodeCoverage,
    node=st.text(max_size=9),
    since_us=COUNTS,
    interfaces=st.lists(INTERFACES, max_size=3).map(tuple),
    past=SUMS,
    loss=st.dictionaries(st.text(max_size=9), COUNTS, max_size=3),
)
PLAIN = InterfaceCoverage("veth1", 3, "ebpf", "boot-a", 1, 1, 0, 10)


def both(size: int, packets: int) -> InterfaceCounters:
    """As much each way."""
    return InterfaceCounters(size, packets, size, packets)


@given(NODES)
def test_a_nodes_coverage_comes_back_as_it_was_stored(node: NodeCoverage) -> None:
    assert decode(encode(node)) == node


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01",
        msgpack.packb({}),
        msgpack.packb({"v": 1}),
        msgpack.packb([1]),
        encode(NodeCoverage("a", 0))[:-1],
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CoverageError, match="not a node's coverage of version 3"):
        decode(data)


def test_an_interface_of_another_shape_is_refused() -> None:
    raw = msgpack.unpackb(encode(NodeCoverage("a", 0, (PLAIN,))))
    raw["interfaces"][0].pop()
    with pytest.raises(CoverageError):
        decode(msgpack.packb(raw))


@given(COUNTERS, COUNTERS)
def test_counters_add_up_and_never_overflow(one: InterfaceCounters, two: InterfaceCounters) -> None:
    assert plus(one, NOTHING) == one
    assert plus(one, two) == plus(two, one)
    assert max(plus(one, two).tx_bytes, plus(one, two).rx_packets) < 1 << 63
    assert beyond(one, one) == NOTHING
    assert plus(least(one, two), beyond(one, two)) == one
    assert went_on(one, plus(one, two))
    assert went_on(two, one) == (beyond(two, one) == NOTHING)


@given(st.lists(INTERFACES, max_size=4))
def test_a_nodes_sums_are_those_of_its_interfaces(interfaces: list[InterfaceCoverage]) -> None:
    node = NodeCoverage("a", 0, tuple(interfaces))
    counted = NOTHING
    for one in interfaces:
        counted = plus(counted, one.counted)
    assert node.sums.counted == counted
    assert node.unexplained_packets >= 0
    for one in interfaces:
        sums = one.sums
        assert went_on(plus(sums.attach, sums.unseen), plus(sums.uncovered, NOTHING))


def test_the_ratio_is_one_only_where_nothing_was_missed() -> None:
    assert Sums().ratio(Direction.TRANSMIT) is None
    whole = Sums(counted=both(1 << 62, 1), captured=both(1 << 62, 1))
    assert whole.ratio(Direction.RECEIVE) == 1.0
    almost = replace(whole, uncovered=both(1, 1))
    assert 0.999 < (almost.ratio(Direction.RECEIVE) or 0) < 1.0
    assert replace(whole, uncovered=whole.counted).ratio(Direction.TRANSMIT) == 0.0


@pytest.mark.parametrize(
    ("tx", "rx", "sides", "coverage"),
    [
        (True, True, Sides.BOTH, None),
        (True, False, Sides.EGRESS_ONLY, Coverage.EGRESS_ONLY),
        (False, True, Sides.INGRESS_ONLY, Coverage.INGRESS_ONLY),
        (False, False, Sides.NONE, Coverage.NONE),
    ],
)
def test_sides_are_told_once_both_are_known(tx: bool, rx: bool, sides: Sides, coverage: Coverage | None) -> None:
    one = replace(PLAIN, sees_tx=tx, sees_rx=rx)
    assert one.sides is sides
    assert sides.coverage is coverage
    assert (one.sees(Direction.TRANSMIT), one.sees(Direction.RECEIVE)) == (tx, rx)
    assert replace(one, sees_rx=None).sides is None
    assert replace(one, sees_tx=None).sides is None


def test_what_is_missing_has_its_reasons_in_order() -> None:
    one = replace(PLAIN, counted=both(1000, 10), compared=both(400, 4), attach=both(200, 2), sees_rx=False)
    sums = one.sums
    assert sums.uncovered == both(600, 6)
    # What is not seen at all did not pass before the source was in place: it would be missing anyway.
    assert sums.unseen == InterfaceCounters(0, 0, 600, 6)
    assert sums.attach == InterfaceCounters(200, 2, 0, 0)
    assert replace(one, sees_rx=None, sees_tx=False).sums.unseen == InterfaceCounters(600, 6, 0, 0)
    assert NodeCoverage("a", 0, (one,), loss={"kernel-drop": 3}).unexplained_packets == 12 - 6 - 2 - 3
