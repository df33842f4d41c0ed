"""What clients of the WebSocket may say, and what is said to those who say something else."""

from __future__ import annotations

from typing import Any

import pytest

from services.flows.live_request import MessageError, Said, said


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
    assert said(raw) == meant


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
        said(raw)
    assert len(str(caught.value).encode()) <= 123
