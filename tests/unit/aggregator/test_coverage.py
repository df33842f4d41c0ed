"""The meter that compares what sources saw with what interfaces counted, window by window."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from services.aggregator import coverage as module
from services.aggregator.coverage import Meters
from services.aggregator.totals import Totals
from services.flows.coverage import Direction, InterfaceCoverage, NodeCoverage, Sides
from services.flows.delta import NOTHING, Attachment, Coverage, InterfaceCounters, Kind, Rows
from tests.support.agents import SECOND, ScriptedAgent, attachment, flow, window
from tests.support.worlds import directory

LATER = 100
"""Seconds after which nothing can be missing because the source was not in place yet."""


def counters(tx: int, rx: int = 0) -> InterfaceCounters:
    """Bytes each way, a packet for each hundred of them."""
    return InterfaceCounters(tx, tx // 100, rx, rx // 100)


def seen(tx: int, rx: int = 0, *, kind: Kind = Kind.IP, number: int = 1) -> Rows:
    """What the source saw."""
    return flow(number, "10.2.0.2", tx=tx, rx=rx, kind=kind)


@dataclass
class Metered:
    """A node whose only agent reports interface after interface."""

    totals: Totals = field(default_factory=lambda: Totals(directory(), 10))
    agent: ScriptedAgent = field(default_factory=ScriptedAgent)
    second: int = 0

    def take(self, told: Attachment, *flows: Rows, loss: int = 0) -> None:
        """A window of one second."""
        self.totals.apply(self.agent.batch(window([told], *flows, second=self.second, loss=loss)))
        self.second += 1

    @property
    def node(self) -> NodeCoverage:
        known = self.totals.meters.of("node-a")
        assert known is not None
        return known

    @property
    def one(self) -> InterfaceCoverage:
        [one] = self.node.interfaces
        return one

    def sides(self) -> Sides | None:
        """What is known of its directions by now."""
        return self.one.sides

    def based(self) -> bool:
        """Whether its counters compare."""
        return self.one.based


@pytest.fixture
def metered() -> Metered:
    return Metered()


def at(told: Attachment, tx: int, rx: int = 0) -> Attachment:
    """The attachment when its interface has counted so much."""
    return replace(told, counters=counters(tx, rx))


TOLD = attachment(1, "10.1.0.2")


def test_all_is_covered_where_everything_was_seen(metered: Metered) -> None:
    for size in (10_000, 20_000, 30_000):
        metered.take(at(TOLD, size, size), seen(10_000, 10_000))
    assert metered.one.counted == metered.one.compared == counters(30_000, 30_000)
    assert metered.sides() is Sides.BOTH
    assert metered.node.unexplained_packets == 0
    assert metered.totals.meters.of("node-b") is None


def test_what_passed_before_the_source_was_in_place_is_known_as_that(metered: Metered) -> None:
    metered.take(at(TOLD, 5_000), seen(3_000))
    metered.take(at(TOLD, 9_000), seen(4_000))
    assert metered.one.sums.attach == counters(2_000)
    metered.second = LATER
    metered.take(at(TOLD, 12_000), seen(1_000))
    assert metered.one.sums.attach == counters(2_000)
    assert metered.one.sums.uncovered == counters(4_000)
    assert metered.node.unexplained_packets == 20


def test_it_is_known_as_that_also_where_windows_were_merged_meanwhile(metered: Metered) -> None:
    metered.take(at(TOLD, 0))
    merged = replace(window([at(TOLD, 900)], seen(500), second=1), end_us=6 * SECOND)
    metered.totals.apply(metered.agent.batch(merged))
    assert metered.one.sums.attach.tx_bytes == metered.one.sums.uncovered.tx_bytes == 400


def test_what_a_window_brought_too_early_is_no_credit(metered: Metered) -> None:
    metered.take(at(TOLD, 1_000), seen(1_500))
    assert metered.one.uncovered == NOTHING
    metered.take(at(TOLD, 3_000), seen(1_500))
    assert metered.one.sums.ratio(Direction.TRANSMIT) == 1.0


def test_a_direction_that_is_not_seen_is_told_after_some_packets(metered: Metered) -> None:
    for size in (3_000, 6_000):
        metered.take(at(TOLD, size, size), seen(3_000))
        assert metered.sides() is None
    metered.take(at(TOLD, 9_000, 9_000), seen(3_000))
    assert metered.sides() is Sides.EGRESS_ONLY
    assert metered.one.sums.unseen == counters(0, 9_000)
    [row] = metered.totals.rows.by_number.values()
    assert row.identity.coverage == Coverage.EGRESS_ONLY.value
    # Once it is seen again this is told as well.
    for size in (20_000, 30_000, 40_000, 50_000):
        metered.take(at(TOLD, size, size), seen(10_000, 10_000))
    assert metered.sides() is Sides.BOTH
    assert [one.identity.coverage for one in metered.totals.rows.by_number.values()] == ["full"]


def test_answers_show_a_direction_that_its_interface_does_not_count(metered: Metered) -> None:
    for size in (3_000, 6_000, 9_000):
        metered.take(at(TOLD, size, 0), seen(3_000))
    # TCP that is answered all the time cannot come from somebody who receives nothing.
    assert metered.sides() is Sides.EGRESS_ONLY


def test_a_window_that_lost_packets_proves_little(metered: Metered) -> None:
    metered.second = LATER
    for size in (10_000, 20_000, 30_000, 40_000):
        metered.take(at(TOLD, size, size), seen(10_000), loss=100)
    assert metered.one.sees(Direction.TRANSMIT) is True
    assert metered.one.sees(Direction.RECEIVE) is None
    assert metered.node.loss == {"kernel-drop": 400}
    assert metered.node.unexplained_packets == 0


def test_without_the_interfaces_counters_nothing_is_missing(metered: Metered) -> None:
    metered.take(replace(TOLD, first_counters=None), seen(1_000))
    assert metered.one.sums.ratio(Direction.TRANSMIT) is None
    assert metered.one.captured == counters(1_000)


def test_an_attachment_that_is_met_in_the_middle_counts_from_a_fresh_reading(metered: Metered) -> None:
    # The aggregator was not there when it began: its first counters are of no use.
    old = replace(TOLD, attached_us=-5 * SECOND)
    metered.take(at(old, 70_000), seen(1_000))
    assert not metered.based()
    metered.take(at(old, 70_000), seen(1_000))
    assert not metered.based()
    metered.take(at(old, 80_000), seen(1_000))
    assert metered.based()
    metered.take(at(old, 85_000), seen(5_000))
    assert metered.one.counted == metered.one.captured == counters(5_000)


def test_counters_that_were_set_back_begin_at_zero(metered: Metered) -> None:
    metered.take(at(TOLD, 10_000), seen(10_000))
    metered.take(at(TOLD, 2_000), seen(2_000))
    assert metered.one.counted == counters(12_000)


def test_what_its_interface_counted_last_nobody_could_read(metered: Metered) -> None:
    metered.take(at(TOLD, 10_000), seen(10_000))
    metered.take(replace(at(TOLD, 10_000), detached_us=SECOND), seen(500))
    assert metered.one.detached_us == SECOND
    assert metered.one.sums.ratio(Direction.TRANSMIT) == 1.0
    assert metered.one.captured == counters(10_500)


def test_what_passed_between_two_agents_is_a_gap(metered: Metered) -> None:
    metered.take(at(TOLD, 10_000), seen(10_000))
    metered.agent = ScriptedAgent(boot="boot-b")
    again = replace(attachment(1, "10.1.0.2", since=SECOND), first_counters=counters(14_000))
    metered.take(at(again, 15_000), seen(1_000))
    assert metered.one.gap == counters(4_000)
    assert metered.node.past.counted == counters(10_000)
    assert metered.node.sums.gap == counters(4_000)
    # An interface of that name and number whose counters began anew is another one.
    metered.agent = ScriptedAgent(boot="boot-c")
    metered.take(replace(again, attached_us=2 * SECOND, first_counters=counters(100), counters=counters(100)))
    assert metered.one.gap == NOTHING


def test_an_interface_that_went_while_there_was_no_agent_stays_without_an_end(metered: Metered) -> None:
    metered.take(at(TOLD, 10_000), seen(10_000))
    metered.agent = ScriptedAgent(boot="boot-b")
    metered.take(attachment(2, "10.1.0.9"))
    ends = {one.interface: (one.boot, one.detached_us) for one in metered.node.interfaces}
    assert ends == {"veth1": ("boot-a", None), "veth2": ("boot-b", None)}


def test_folded_traffic_is_counted_as_captured(metered: Metered) -> None:
    metered.take(at(TOLD, 10_000), seen(4_000), seen(6_000, kind=Kind.FOLDED))
    assert metered.one.folded == counters(6_000)
    assert metered.one.uncovered == NOTHING


def test_interfaces_that_ended_are_bounded_and_their_sums_stay(
    metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_ENDED", 2)
    for number in range(1, 6):
        begun = attachment(number, f"10.1.0.{number}", since=metered.second * SECOND)
        told = replace(begun, detached_us=number * SECOND, counters=counters(1_000))
        metered.take(told, seen(1_000, number=number))
    assert len(metered.node.interfaces) == 2
    assert metered.node.sums.counted == counters(5_000)


def test_reasons_are_bounded(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_REASONS", 2)
    for name in ("a", "b", "c", "d", "a"):
        lossy = replace(window([TOLD], second=metered.second), loss={name: 1})
        metered.totals.apply(metered.agent.batch(lossy))
        metered.second += 1
    assert metered.node.loss == {"a": 2, "b": 1, "other": 2}


def test_what_nobody_can_ask_about_any_more_goes_into_the_past(metered: Metered) -> None:
    metered.take(replace(at(TOLD, 1_000), detached_us=SECOND), seen(1_000))
    metered.second = 10_000
    metered.take(attachment(2, "10.1.0.9"))
    assert [one.attachment for one in metered.node.interfaces] == [2]
    assert metered.node.past.counted == counters(1_000)


def test_meters_come_back_from_the_store(metered: Metered) -> None:
    metered.take(at(TOLD, 10_000), seen(7_000))
    meters = Meters(metered.totals.points)
    meters.restore(metered.node)
    assert meters.of("node-a") == metered.node


def test_forged_losses_break_no_sum(metered: Metered) -> None:
    forged = {f"reason-{at}": 1 << 62 for at in range(40)}
    for _ in range(2):
        metered.totals.apply(metered.agent.batch(replace(window([TOLD], second=metered.second), loss=forged)))
        metered.second += 1
    assert sum(metered.node.loss.values()) < 1 << 63
    metered.take(attachment(2, "10.1.0.3"))
    assert max(one.lost_before for one in metered.node.interfaces) == sum(metered.node.loss.values())
