"""Numbers that no interface can have counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.aggregator.plausible import implausible
from services.flows.delta import Batch, InterfaceCounters, Window
from tests.support.agents import SECOND, ScriptedAgent, attachment, detached, flow, window

WEB = attachment(1, "10.1.0.2")


def batch(one: Window, offset_us: int = 0) -> Batch:
    return replace(ScriptedAgent().batch(one), offset_us=offset_us)


def test_a_fast_link_for_a_while_is_plausible() -> None:
    assert implausible(batch(window([detached(WEB, SECOND)], flow(1, "1.1.1.1", tx=10**14), loss=10**9))) == ""


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (batch(window([WEB], flow(1, "1.1.1.1", tx=2**48), flow(1, "1.1.1.2", tx=1000))), "its tx_bytes are more"),
        (batch(window([WEB], flow(1, "1.1.1.1", rx=2**63))), "its rx_bytes are more"),
        (batch(window([WEB], loss=2**49)), "its loss is more"),
        (batch(replace(window([WEB]), loss={"ring-full": 2**47, "kernel-drop": 2**47, "x": 1})), "its loss is more"),
        (batch(window([WEB]), offset_us=-(2**62)), "a time is out of bounds"),
        (replace(batch(window([WEB])), error_us=2**63), "a time is out of bounds"),
        (batch(replace(window([WEB]), end_us=2**63)), "a time is out of bounds"),
        (batch(window([detached(WEB, 2**63)])), "a time is out of bounds"),
        (
            batch(window([replace(WEB, first_counters=InterfaceCounters(0, 0, 0, 2**63))])),
            "an interface's counters are out of bounds",
        ),
        (batch(window([replace(WEB, first_counters=None)])), ""),
    ],
)
def test_what_is_wrong_is_said(bad: Batch, why: str) -> None:
    assert implausible(bad).startswith(why)
    assert bool(implausible(bad)) == bool(why)
