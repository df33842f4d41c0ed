"""The batch codec: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.flows import keys, wire
from services.flows.delta import FLOW, Attachment, Batch, Window
from tests.unit.flows.strategies import batches


def batch() -> Batch:
    """A batch with one row."""
    rows = np.zeros(1, FLOW)
    rows["attachment"], rows["tx_bytes"], rows["peer_lo"] = 1, 98, 7
    return Batch("node-a", "b00t", 1, 5, 1, (Window(0, 9, (Attachment(1, "veth0", 3, "socket", 0),), rows),))


def raw() -> dict[str, Any]:
    """The same as the map on the wire."""
    unpacked: dict[str, Any] = msgpack.unpackb(wire.encode(batch()))
    return unpacked


@given(batches)
def test_round_trip(one: Batch) -> None:
    assert wire.decode(wire.encode(one)) == one


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_with_a_wire_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


@given(batches, st.data())
def test_a_changed_byte_never_raises_anything_else(one: Batch, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(one))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        wire.decode(bytes(encoded))
    except wire.WireError:
        return


def change_window(**changes: Any) -> dict[str, Any]:
    """The batch with changes to its window."""
    whole = raw()
    whole["windows"][0].update(changes)
    return whole


def change_column(name: str, value: object) -> dict[str, Any]:
    """The batch with another column."""
    whole = raw()
    whole["windows"][0]["columns"][name] = value
    return whole


def change_attachment(at: int, value: object) -> dict[str, Any]:
    """The batch with another field in its attachment."""
    whole = raw()
    whole["windows"][0]["attachments"][0][at] = value
    return whole


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ([], "not a map"),
        (raw() | {"v": wire.VERSION + 1}, f"version {wire.VERSION}"),
        (raw() | {"windows": []}, "no window"),
        (raw() | {"windows": [3]}, "window is not a map"),
        (raw() | {"node": 3}, "field node"),
        (raw() | {"seq": -1}, "seq is negative"),
        (raw() | {"gauges": {"a": "b"}}, "gauges"),
        (change_window(start=10), "ends .* before it starts"),
        (change_window(rows=2_000_000), "too many rows"),
        (change_window(rows=-1), "rows is negative"),
        (change_window(addresses=b"123"), "cut address table"),
        (change_window(attachments=[]), "does not list"),
        (change_window(loss={"kernel-drop": -1}), "loss"),
        (change_column("tx_bytes", None), "tx_bytes is missing"),
        (change_column("tx_bytes", [3, b"123"]), "length of 1 rows"),
        (change_column("tx_bytes", [8, b"123"]), "length of 1 rows"),
        (change_column("tx_bytes", [True, b"1"]), "length of 1 rows"),
        (change_column("kind", [1, b"\x09"]), "unknown kind"),
        (change_column("port", [4, b"\x00\x00\x01\x00"]), "port does not fit"),
        (change_column("peer", [1, b"\x09"]), "past the address table"),
        (change_attachment(0, "x"), "wrong type"),
        (change_attachment(0, 2**32), "out of bounds"),
        (change_attachment(5, "x"), "wrong type"),
        (change_attachment(6, b"123"), "out of bounds"),
        (change_attachment(7, [1, 2]), "four counts"),
        (change_attachment(9, "half"), "coverage 'half'"),
        (change_attachment(10, [1, 2, 3, -4]), "four counts"),
        (change_attachment(11, 3), "wrong type"),
        (change_window(attachments=[[1]]), "list of 13"),
    ],
)
def test_what_is_wrong_is_named(whole: object, message: str) -> None:
    with pytest.raises(wire.WireError, match=message):
        wire.decode(msgpack.packb(whole))


def test_a_batch_beyond_the_bound_is_refused_unread() -> None:
    with pytest.raises(wire.WireError, match="larger than"):
        wire.decode(bytes(keys.BATCH_BYTES + 1))


def test_a_column_takes_no_more_bytes_than_its_largest_value_needs() -> None:
    columns = raw()["windows"][0]["columns"]
    assert columns["rx_bytes"] == [0, b""]
    assert columns["tx_bytes"] == [1, bytes([98])]
