"""The messages of the WebSocket, as clients of version 1 know them."""

from __future__ import annotations

from typing import Any

import pytest

from services.flows import live_message
from services.flows.live_message import COLUMNS, POD_FIELDS, MessageError, Pod, Said, State

STATE = State(
    epoch=7, seq=101, ts=1_700_000_000.5, started=1_699_999_000.0, reporting=(41, 42), totals=tuple(range(10, 20))
)
WEB = Pod(1, "shop", "web", "node-a", "eu-1a", "10.1.0.2", "veth1", "full", 0.0)
DB = Pod(2, "data", "db", "", "", "", "veth2", "egress-only", 1_700_000_000.0)
ROW = (100, 50, 120, 0, 0, 20, 10, 0, 3, 9000)
SILENT = (None, None, None, None, None, None, None, None, None, 400)


def test_a_snapshot() -> None:
    assert live_message.snapshot(STATE, [WEB, DB], [1, 2], [ROW, SILENT], [[1_700_000_000, 1, 2, 3, 4, 5]]) == {
        "t": "snapshot",
        "v": 1,
        "epoch": 7,
        "seq": 101,
        "ts": 1_700_000_000.5,
        "started": 1_699_999_000.0,
        "reporting": (41, 42),
        "tot": (10, 11, 12, 13, 14, 15, 16, 17, 18, 19),
        "problem": "",
        "columns": COLUMNS,
        "pods": {
            "id": [1, 2],
            "ns": ["shop", "data"],
            "name": ["web", "db"],
            "node": ["node-a", ""],
            "zone": ["eu-1a", ""],
            "ip": ["10.1.0.2", ""],
            "iface": ["veth1", "veth2"],
            "coverage": ["full", "egress-only"],
            "ended": [0.0, 1_700_000_000.0],
        },
        "i": [1, 2],
        "rows": {
            "tx": [100, None],
            "rx": [50, None],
            "local": [120, None],
            "cross": [0, None],
            "private": [0, None],
            "internet_tx": [20, None],
            "internet_rx": [10, None],
            "other": [0, None],
            "syn": [3, None],
            "total": [9000, 400],
        },
        "timeline": [[1_700_000_000, 1, 2, 3, 4, 5]],
    }


def test_a_delta() -> None:
    message = live_message.delta(STATE, 100, [1], [ROW], [], [4, 5])
    assert (message["t"], message["base"], message["seq"], message["i"], message["gone"]) == (
        "delta",
        100,
        101,
        [1],
        [4, 5],
    )
    assert message["rows"]["total"] == [9000]
    assert message["add"] == {name: [] for name in POD_FIELDS}


def test_columns_are_there_without_rows() -> None:
    assert live_message.delta(STATE, 100, [], [], [], [])["rows"] == {name: [] for name in COLUMNS}


def test_peers_of_the_watched_pod() -> None:
    peers = {"pod": "shop/web", "uid": "u", "peers": [{"address": "10.1.0.3"}], "more": 4}
    assert live_message.watched("shop/web", 101, peers) == {"t": "pod", "seq": 101, **peers}


def test_peers_that_nobody_knows_are_null() -> None:
    assert live_message.watched("shop/web", 101, None) == {
        "t": "pod",
        "pod": "shop/web",
        "seq": 101,
        "peers": None,
        "more": 0,
    }


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ({"ack": 101}, Said(ack=101)),
        ({"ack": 0, "snapshot": True}, Said(ack=0, snapshot=True)),
        ({"hz": 1}, Said(hz=1.0)),
        ({"hz": 0.2}, Said(hz=0.2)),
        ({"hz": 0}, Said(hz=0.0)),
        ({"watch": "shop/web"}, Said(watch="shop/web")),
        ({"watch": None}, Said(watch="")),
    ],
)
def test_what_a_client_may_say(raw: dict[str, Any], meant: Said) -> None:
    assert live_message.said(raw) == meant


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ([], "expected an object"),
        ({}, "expected an object"),
        ("ack", "expected an object"),
        (None, "expected an object"),
        ({"ack": "1"}, "ack must be"),
        ({"ack": True}, "ack must be"),
        ({"ack": -1}, "ack must be"),
        ({"hz": True}, "hz must be"),
        ({"hz": None}, "hz must be"),
        ({"hz": 5}, "hz must be"),
        ({"hz": -1}, "hz must be"),
        ({"hz": 1e-9}, "hz must be"),
        ({"hz": float("nan")}, "hz must be"),
        ({"hz": "1"}, "hz must be"),
        ({"watch": 1}, "watch must be"),
        ({"snapshot": False}, "snapshot must be"),
        ({"ack": 1, "ä" * 4000: 1}, "unknown field"),
    ],
)
def test_what_is_not_understood_is_said_within_a_close_frame(raw: object, why: str) -> None:
    with pytest.raises(MessageError, match=why) as caught:
        live_message.said(raw)
    assert len(str(caught.value).encode()) <= 123
