"""Who is the server, and what folding may never change."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.capture.fold import Folder
from services.capture.raw_flow import RAW_FLOW, Direction, RawRows
from services.flows import address
from services.flows.delta import Kind, Side

CLIENT, SERVER, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"
TCP, UDP, ICMP = 6, 17, 1


def raw(*packets: tuple[str, int, str, int, int, int, int]) -> RawRows:
    """Rows of (local, local port, peer, peer port, protocol, direction, syns), 100 bytes each."""
    rows = np.zeros(len(packets), RAW_FLOW)
    for row, (local, local_port, peer, peer_port, protocol, direction, syns) in zip(rows, packets, strict=True):
        row["attachment"], row["protocol"], row["direction"], row["syns"] = 1, protocol, direction, syns
        row["local_port"], row["peer_port"] = local_port, peer_port
        row["local_hi"], row["local_lo"] = address.to_words(address.parse(local))
        row["peer_hi"], row["peer_lo"] = address.to_words(address.parse(peer))
        row["bytes"], row["packets"], row["segments"], row["wire_bytes"] = 100, 1, 1, 100
    return rows


def folded(
    rows: RawRows, folder: Folder | None = None, *, oriented: bool = True
) -> list[tuple[str, str, int, Side, int, int]]:
    """(local, peer, port, server, tx_bytes, rx_bytes) of each folded row."""
    out = (folder or Folder(1000)).fold(rows, oriented=oriented)
    return sorted(
        (
            str(address.from_words(int(row["local_hi"]), int(row["local_lo"]))),
            str(address.from_words(int(row["peer_hi"]), int(row["peer_lo"]))),
            int(row["port"]),
            Side(int(row["server"])),
            int(row["tx_bytes"]),
            int(row["rx_bytes"]),
        )
        for row in out
    )


def test_both_directions_and_all_ephemeral_ports_become_one_row() -> None:
    rows = raw(
        (CLIENT, 40001, SERVER, 80, TCP, Direction.TX, 1),
        (CLIENT, 40001, SERVER, 80, TCP, Direction.RX, 0),
        (CLIENT, 40002, SERVER, 80, TCP, Direction.TX, 1),
    )
    assert folded(rows) == [(CLIENT, SERVER, 80, Side.PEER, 200, 100)]


def test_the_side_that_did_not_send_the_syn_serves_even_on_a_high_port() -> None:
    rows = raw((CLIENT, 1000, SERVER, 50000, TCP, Direction.TX, 1))
    assert folded(rows) == [(CLIENT, SERVER, 50000, Side.PEER, 100, 0)]


def test_a_syn_from_the_peer_makes_the_pod_the_server() -> None:
    rows = raw((SERVER, 50000, CLIENT, 1000, TCP, Direction.RX, 1))
    assert folded(rows) == [(SERVER, CLIENT, 50000, Side.LOCAL, 0, 100)]


def test_the_port_with_more_peers_serves() -> None:
    rows = raw(*((SERVER, 40000, CLIENT, 33000 + at, UDP, Direction.RX, 0) for at in range(3)))
    assert folded(rows) == [(SERVER, CLIENT, 40000, Side.LOCAL, 0, 300)]


def test_the_port_below_the_ephemeral_range_serves() -> None:
    assert folded(raw((CLIENT, 40000, SERVER, 8080, UDP, Direction.TX, 0)))[0][2:4] == (8080, Side.PEER)
    assert folded(raw((CLIENT, 8080, SERVER, 40000, UDP, Direction.TX, 0)))[0][2:4] == (8080, Side.LOCAL)


def test_the_lower_port_serves_and_a_tie_goes_to_the_peer() -> None:
    assert folded(raw((CLIENT, 500, SERVER, 600, UDP, Direction.TX, 0)))[0][2:4] == (500, Side.LOCAL)
    assert folded(raw((CLIENT, 123, SERVER, 123, UDP, Direction.TX, 0)))[0][2:4] == (123, Side.PEER)


def test_a_decision_is_remembered_while_the_conversation_goes_on() -> None:
    folder = Folder(1000)
    folded(raw((CLIENT, 1000, SERVER, 50000, TCP, Direction.TX, 1)), folder)
    later = raw((CLIENT, 1000, SERVER, 50000, TCP, Direction.RX, 0))
    assert folded(later, folder) == [(CLIENT, SERVER, 50000, Side.PEER, 0, 100)]
    assert folded(later) == [(CLIENT, SERVER, 1000, Side.LOCAL, 0, 100)]


def test_a_full_memory_forgets_the_longest_unseen() -> None:
    folder = Folder(2)
    folded(raw((CLIENT, 1000, SERVER, 50000, TCP, Direction.TX, 1)), folder)
    for at in range(3):
        folded(raw((CLIENT, 40000 + at, SERVER, 80, TCP, Direction.TX, 1)), folder)
    assert folded(raw((CLIENT, 1000, SERVER, 50000, TCP, Direction.TX, 0)), folder)[0][2] == 1000


def test_protocols_without_ports_have_no_server() -> None:
    rows = raw((CLIENT, 0, SERVER, 0, ICMP, Direction.TX, 0), (CLIENT, 0, SERVER, 0, ICMP, Direction.RX, 0))
    assert folded(rows) == [(CLIENT, SERVER, 0, Side.NONE, 100, 100)]


def test_later_fragments_have_port_zero() -> None:
    assert folded(raw((CLIENT, 0, SERVER, 0, UDP, Direction.TX, 0)))[0][2:4] == (0, Side.NONE)


def test_frames_that_are_not_ip_keep_their_number() -> None:
    rows = raw(("::", 0, "::", 0x0806, 0, Direction.TX, 0))
    rows["kind"] = Kind.NOT_IP
    assert folded(rows)[0][2:4] == (0x0806, Side.NONE)


def test_without_a_pods_side_local_is_the_client() -> None:
    rows = raw(
        (SERVER, 80, CLIENT, 40001, TCP, Direction.TX, 0),
        (CLIENT, 40001, SERVER, 80, TCP, Direction.TX, 0),
        (CLIENT, 40001, SERVER, 80, TCP, Direction.TX, 0),
    )
    assert folded(rows, oriented=False) == [(CLIENT, SERVER, 80, Side.PEER, 200, 100)]


def test_without_a_pods_side_and_ports_local_is_who_sent_first() -> None:
    folder = Folder(1000)
    first = raw((SERVER, 0, CLIENT, 0, ICMP, Direction.TX, 0), (CLIENT, 0, SERVER, 0, ICMP, Direction.TX, 0))
    assert folded(first, folder, oriented=False) == [(SERVER, CLIENT, 0, Side.NONE, 100, 100)]
    answer = raw((CLIENT, 0, SERVER, 0, ICMP, Direction.TX, 0))
    assert folded(answer, folder, oriented=False) == [(SERVER, CLIENT, 0, Side.NONE, 0, 100)]


def test_without_ports_the_number_of_talkers_says_nothing() -> None:
    rows = raw((SERVER, 0, CLIENT, 0, ICMP, Direction.TX, 0), (SERVER, 0, OTHER, 0, ICMP, Direction.TX, 0))
    assert {row[0] for row in folded(rows, oriented=False)} == {SERVER}


def test_without_a_pods_side_local_is_the_known_end() -> None:
    rows = raw((CLIENT, 40001, SERVER, 80, TCP, Direction.TX, 1))
    known = Folder(1000, frozenset({address.parse(SERVER)}))
    assert folded(rows, known, oriented=False) == [(SERVER, CLIENT, 80, Side.LOCAL, 0, 100)]
    both = Folder(1000, frozenset({address.parse(SERVER), address.parse(CLIENT)}))
    assert folded(rows, both, oriented=False) == [(CLIENT, SERVER, 80, Side.PEER, 100, 0)]


packets = st.tuples(
    st.sampled_from([CLIENT, SERVER, OTHER, "fd00::1"]),
    st.sampled_from([0, 80, 40000, 50000]),
    st.sampled_from([CLIENT, SERVER, OTHER, "fd00::1"]),
    st.sampled_from([0, 80, 40000, 50000]),
    st.sampled_from([TCP, UDP, ICMP]),
    st.sampled_from(Direction),
    st.integers(0, 1),
)


@given(st.lists(st.lists(packets, max_size=12), max_size=4), st.booleans())
def test_every_byte_stays_in_its_direction(
    batches: list[list[tuple[str, int, str, int, int, int, int]]], oriented: bool
) -> None:
    folder = Folder(3)
    for batch in batches:
        rows = raw(*batch)
        out = folder.fold(rows, oriented=oriented)
        assert int(out["tx_bytes"].sum() + out["rx_bytes"].sum()) == 100 * len(rows)
        assert int(out["tx_packets"].sum() + out["rx_packets"].sum()) == len(rows)
        if oriented:
            assert int(out["tx_bytes"].sum()) == 100 * int((rows["direction"] == Direction.TX).sum())


@given(st.lists(packets, max_size=12))
def test_the_order_of_packets_does_not_change_sums_per_pair(
    batch: list[tuple[str, int, str, int, int, int, int]],
) -> None:
    def pairs(rows: RawRows) -> dict[frozenset[str], int]:
        sums: dict[frozenset[str], int] = {}
        for local, peer, _, _, sent, received in folded(rows, oriented=False):
            sums[frozenset((local, peer))] = sums.get(frozenset((local, peer)), 0) + sent + received
        return sums

    assert pairs(raw(*batch)) == pairs(raw(*reversed(batch)))
