from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.flows.delta import Kind, Malformed
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, Peer
from services.launcher.replay import _local_addresses, summed
from services.runtime.errors import PodloxxError, UsageError

PEER = Peer(
    address="192.0.2.1",
    protocol=6,
    port=443,
    server=2,
    kind=Kind.IP,
    scope=Scope.INTERNET,
    rule="public",
    counts=[0] * len(ROW_COUNTERS),
    first_us=0,
    last_us=0,
    local="10.0.0.2",
)


def counted(peer: Peer, tx: tuple[int, int], rx: tuple[int, int] = (0, 0)) -> Peer:
    """The peer with so many (packets, bytes)."""
    values = {"tx_packets": tx[0], "tx_bytes": tx[1], "rx_packets": rx[0], "rx_bytes": rx[1]}
    return replace(peer, counts=[values.get(name, 0) for name in ROW_COUNTERS])


def test_the_object_has_just_the_documented_keys_in_order() -> None:
    arp = counted(replace(PEER, kind=Kind.NOT_IP, port=0x0806, protocol=0), (2, 84))
    cut = counted(replace(PEER, kind=Kind.MALFORMED, port=Malformed.TRUNCATED_IPV4, protocol=0), (1, 20), (1, 22))
    assert json.dumps(summed([cut, arp, counted(PEER, (3, 300), (4, 4000))])) == json.dumps(
        {
            "packets": 11,
            "bytes": 4426,
            "not_ip": {"arp": {"packets": 2, "bytes": 84}},
            "malformed": {"truncated-ipv4": {"packets": 2, "bytes": 42}},
            "peers": [
                {
                    "local": "10.0.0.2",
                    "peer": "192.0.2.1",
                    "protocol": "tcp",
                    "port": 443,
                    "tx_packets": 3,
                    "tx_bytes": 300,
                    "rx_packets": 4,
                    "rx_bytes": 4000,
                    "scope": "internet",
                    "rule": "public",
                }
            ],
        }
    )


def test_nothing_sums_to_nothing() -> None:
    assert summed([]) == {"packets": 0, "bytes": 0, "not_ip": {}, "malformed": {}, "peers": []}


def test_what_differs_in_nothing_that_is_shown_is_one_entry() -> None:
    [entry] = summed([counted(PEER, (1, 60)), counted(replace(PEER, server=1), (2, 200), (1, 50))])["peers"]
    assert [entry[name] for name in ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")] == [3, 260, 1, 50]


@pytest.mark.parametrize(
    "other",
    [
        {"address": "192.0.2.2"},
        {"local": "10.0.0.3"},
        {"protocol": 17},
        {"port": 80},
        {"scope": Scope.PRIVATE},
        {"rule": "private-range"},
    ],
)
def test_what_differs_is_kept_apart(other: dict[str, object]) -> None:
    assert len(summed([counted(PEER, (1, 60)), counted(replace(PEER, **other), (1, 60))])["peers"]) == 2  # type: ignore[arg-type]


def test_who_has_no_address_yet_is_all_zeros() -> None:
    [entry] = summed([counted(replace(PEER, local="", address="ff02::16"), (1, 90))])["peers"]
    assert (entry["local"], entry["peer"]) == ("::", "ff02::16")


def test_what_was_folded_is_an_error_and_never_hidden() -> None:
    with pytest.raises(PodloxxError, match="5 packets could not be kept apart"):
        summed([counted(PEER, (1, 60)), counted(replace(PEER, kind=Kind.FOLDED), (2, 100), (3, 200))])


@given(
    st.lists(
        st.builds(
            lambda kind, port, peer, tx, rx: counted(replace(PEER, kind=kind, port=port, address=peer), tx, rx),
            st.sampled_from([Kind.IP, Kind.NOT_IP, Kind.MALFORMED]),
            st.sampled_from(list(map(int, Malformed))),
            st.sampled_from(["192.0.2.1", "2001:db8::1"]),
            st.tuples(st.integers(0, 2**40), st.integers(0, 2**50)),
            st.tuples(st.integers(0, 2**40), st.integers(0, 2**50)),
        )
    )
)
def test_every_packet_and_byte_is_in_just_one_place(peers: list[Peer]) -> None:
    found = summed(peers)
    for unit in ("packets", "bytes"):
        parts = [entry[unit] for group in ("not_ip", "malformed") for entry in found[group].values()]
        parts += [entry[f"{way}_{unit}"] for entry in found["peers"] for way in ("tx", "rx")]
        assert sum(parts) == found[unit]
        assert found[unit] == sum(
            peer.counts[ROW_COUNTERS.index(f"{way}_{unit}")] for peer in peers for way in ("tx", "rx")
        )


def test_the_known_addresses_are_those_of_the_file_that_are_addresses(folder: Path) -> None:
    file = folder / "a.json"
    file.write_text(json.dumps({"addresses": {"10.0.0.2": {}, "x": {}, "fd00::1": {}}}))
    assert _local_addresses(str(file)) == [ip_address("10.0.0.2"), ip_address("fd00::1")]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"addresses": 1}'])
def test_what_is_wrong_with_the_file_the_aggregator_says(folder: Path, text: str) -> None:
    (folder / "a.json").write_text(text)
    assert _local_addresses(str(folder / "a.json")) == []


def test_a_file_that_is_missing_is_named() -> None:
    assert _local_addresses("") == []
    with pytest.raises(UsageError, match=r"cannot read the address file /nowhere/a\.json"):
        _local_addresses("/nowhere/a.json")
