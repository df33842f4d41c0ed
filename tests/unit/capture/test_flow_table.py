"""What a bounded table keeps apart, and that it never loses or adds anything."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.capture.flow_table import FlowTable
from services.capture.frames import Frame
from services.capture.raw_flow import RAW_FLOW, VALUES, Direction, RawRows
from services.flows import address
from services.flows.delta import Kind, Malformed
from services.flows.protocols import TCP, UDP

ARP = 0x0806


def number(text: str) -> int:
    hi, lo = address.to_words(address.parse(text))
    return hi << 64 | lo


def udp(client_port: int = 40000, *, client: str = "10.0.0.1", server: str = "10.0.0.2") -> Frame:
    return Frame(Kind.IP, UDP, number(client), number(server), client_port, 53, header_bytes=42)


def end(row: np.void, name: str) -> tuple[str, int]:
    return str(address.from_words(int(row[f"{name}_hi"]), int(row[f"{name}_lo"]))), int(row[f"{name}_port"])


def values(row: np.void) -> tuple[int, ...]:
    return tuple(int(row[name]) for name in VALUES)


def test_frames_of_one_flow_are_one_row() -> None:
    table = FlowTable(10)
    table.add(7, Direction.TX, udp(), 100)
    table.add(7, Direction.TX, udp(), 50)
    (row,) = table.take()
    assert (row["attachment"], row["kind"], row["protocol"], row["direction"]) == (7, Kind.IP, UDP, Direction.TX)
    assert values(row) == (150, 2, 2, 150, 0)


def test_the_local_end_is_the_sender_of_what_leaves_and_the_receiver_of_what_comes() -> None:
    table = FlowTable(10)
    table.add(1, Direction.TX, udp(client="fd00::1", server="fd00::2"), 100)
    table.add(1, Direction.RX, udp(), 100)
    sent, received = table.take()
    assert (end(sent, "local"), end(sent, "peer")) == (("fd00::1", 40000), ("fd00::2", 53))
    assert (end(received, "local"), end(received, "peer")) == (("10.0.0.2", 53), ("10.0.0.1", 40000))


def test_what_differs_in_any_part_of_its_key_is_another_row() -> None:
    table = FlowTable(10)
    table.add(1, Direction.TX, udp(), 100)
    table.add(2, Direction.TX, udp(), 100)
    table.add(1, Direction.RX, udp(), 100)
    table.add(1, Direction.TX, udp(40001), 100)
    table.add(1, Direction.TX, udp(client="10.0.0.3"), 100)
    table.add(1, Direction.TX, udp(server="10.0.0.3"), 100)
    table.add(1, Direction.TX, udp()._replace(protocol=TCP), 100)
    assert table.take()["packets"].tolist() == [1] * 7


def test_wire_bytes_repeat_the_headers_for_every_segment_after_the_first() -> None:
    table = FlowTable(10)
    table.add(1, Direction.TX, udp(), 42 + 3000, segments=3)
    (row,) = table.take()
    assert values(row) == (3042, 1, 3, 3042 + 2 * 42, 0)


def test_syns_are_counted() -> None:
    table = FlowTable(10)
    table.add(1, Direction.TX, udp()._replace(protocol=TCP, syn=True), 60)
    table.add(1, Direction.TX, udp()._replace(protocol=TCP), 60)
    assert table.take()["syns"].tolist() == [1]


def test_the_number_of_what_is_not_ip_or_malformed_stands_in_the_peers_port() -> None:
    table = FlowTable(10)
    for direction in Direction:
        table.add(1, direction, Frame(Kind.NOT_IP, code=ARP, header_bytes=14), 60)
        table.add(1, direction, Frame(Kind.MALFORMED, code=Malformed.VLAN_DEPTH), 60)
    rows = table.take()
    assert rows["kind"].tolist() == [Kind.NOT_IP, Kind.MALFORMED] * 2
    assert rows["peer_port"].tolist() == [ARP, Malformed.VLAN_DEPTH] * 2
    assert not rows["local_port"].any()
    assert not any(rows[f"{one}_{word}"].any() for one in ("local", "peer") for word in ("hi", "lo"))


def test_taking_leaves_nothing_behind() -> None:
    table = FlowTable(1)
    table.add(1, Direction.TX, udp(1), 100)
    table.add(1, Direction.TX, udp(2), 100)
    assert len(table.take()) == 2
    empty = table.take()
    assert (len(empty), empty.dtype) == (0, RAW_FLOW)
    table.add(1, Direction.TX, udp(2), 100)
    assert table.take()["kind"].tolist() == [Kind.IP]


def test_a_full_table_folds_new_flows_and_still_counts_those_it_knows() -> None:
    table = FlowTable(1)
    table.add(1, Direction.TX, udp(1), 100)
    assert table.full
    table.add(1, Direction.TX, udp(2), 20, segments=2)
    table.add(1, Direction.TX, udp(3), 3)
    table.add(1, Direction.TX, udp(1), 100)
    known, folded = table.take()
    assert (end(known, "local")[1], *values(known)) == (1, 200, 2, 2, 200, 0)
    assert (folded["kind"], folded["protocol"], *values(folded)) == (Kind.FOLDED, 0, 23, 2, 3, 65, 0)
    assert not any(folded[f"{one}_{word}"] for one in ("local", "peer") for word in ("hi", "lo", "port"))


def test_what_is_folded_stays_apart_by_attachment_and_direction() -> None:
    table = FlowTable(1)
    table.add(9, Direction.TX, udp(), 1)
    for attachment, direction, length in ((1, Direction.TX, 10), (1, Direction.RX, 20), (2, Direction.TX, 40)):
        table.add(attachment, direction, udp(), length)
    folded = table.take()[1:]
    assert list(zip(folded["attachment"], folded["direction"], folded["bytes"], strict=True)) == [
        (1, Direction.TX, 10),
        (1, Direction.RX, 20),
        (2, Direction.TX, 40),
    ]


# --- Whatever comes

ports = st.integers(0, 3)
hosts = st.sampled_from([number("10.0.0.1"), number("10.0.0.2"), number("fd00::1")])
ip_frames = st.builds(
    Frame,
    kind=st.just(Kind.IP),
    protocol=st.sampled_from([TCP, UDP, 1]),
    source=hosts,
    destination=hosts,
    source_port=ports,
    destination_port=ports,
    syn=st.booleans(),
    code=st.just(0),
    header_bytes=st.integers(0, 100),
)
others = st.sampled_from(
    [
        *(Frame(Kind.NOT_IP, code=code, header_bytes=14) for code in (0, ARP)),
        *(Frame(Kind.MALFORMED, code=reason) for reason in Malformed),
    ]
)
additions = st.tuples(
    st.integers(1, 3),
    st.sampled_from(Direction),
    ip_frames | others,
    st.integers(0, 1 << 32),
    st.integers(1, 64),
)


def expected(added: list[tuple[int, Direction, Frame, int, int]]) -> Counter[tuple[int, int, str]]:
    """The sums of `added` by attachment, direction and counter."""
    sums: Counter[tuple[int, int, str]] = Counter()
    for attachment, direction, frame, length, segments in added:
        wire_bytes = length + (segments - 1) * frame.header_bytes
        for name, value in zip(VALUES, (length, 1, segments, wire_bytes, frame.syn), strict=True):
            sums[attachment, direction, name] += int(value)
    return sums


def found(rows: RawRows) -> Counter[tuple[int, int, str]]:
    sums: Counter[tuple[int, int, str]] = Counter()
    for row in rows:
        for name in VALUES:
            sums[int(row["attachment"]), int(row["direction"]), name] += int(row[name])
    return sums


@given(st.lists(additions, max_size=60), st.integers(0, 20), st.integers(1, 60))
def test_what_goes_in_comes_out(
    added: list[tuple[int, Direction, Frame, int, int]], capacity: int, take_after: int
) -> None:
    table, sums = FlowTable(capacity), Counter[tuple[int, int, str]]()
    for at, (attachment, direction, frame, length, segments) in enumerate(added, 1):
        table.add(attachment, direction, frame, length, segments)
        if at % take_after == 0:
            sums += found(table.take())
    sums += found(table.take())
    assert sums == +expected(added)


@given(st.lists(additions, max_size=60), st.integers(0, 20))
def test_a_table_is_never_larger_than_its_capacity_and_its_folds(
    added: list[tuple[int, Direction, Frame, int, int]], capacity: int
) -> None:
    table = FlowTable(capacity)
    for one in added:
        table.add(*one)
    rows = table.take()
    folded = rows["kind"] == Kind.FOLDED
    assert (~folded).sum() <= capacity
    assert folded.sum() <= len({one[:2] for one in added})
    keys = [tuple(row)[:12] for row in rows.tolist()]
    assert len(set(keys)) == len(keys)


@given(st.lists(additions, max_size=40))
def test_with_room_enough_nothing_is_folded(added: list[tuple[int, Direction, Frame, int, int]]) -> None:
    table = FlowTable(len(added) + 1)
    for one in added:
        table.add(*one)
    assert not table.full
    assert Kind.FOLDED not in table.take()["kind"]
