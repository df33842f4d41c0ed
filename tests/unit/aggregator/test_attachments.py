"""Whose observation points are, how long they saw, and what was missed before them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from services.aggregator import attachments as module
from services.aggregator.attachments import Points
from services.aggregator.directory.static_file import StaticDirectory
from services.aggregator.point import Gap, Point
from services.aggregator.rows import Rows
from services.aggregator.sights import NOTHING, PART, WHOLE, Sights
from services.aggregator.stored_points import point_in, points_out
from services.aggregator.sums import Numbers
from services.flows import address
from services.flows.address import Address
from services.flows.delta import Attachment, Coverage, InterfaceCounters
from services.flows.scope import Ambiguous, Pod
from services.flows.traffic import Identity
from tests.support.agents import SECOND, ScriptedAgent, attachment, detached, window
from tests.support.worlds import directory

FIRST = np.zeros(1, np.int64)
WEB = attachment(1, "10.1.0.2")
NOBODY = attachment(1)
STRANGER = attachment(1, "172.17.0.2")


class Renewed(StaticDirectory):
    """Another file's content, that everybody has to ask anew."""

    def __init__(self, new: StaticDirectory, version: int) -> None:
        self.__dict__.update(vars(new))
        self._asked = version

    def version(self, _: Iterable[Address]) -> int:
        return self._asked


class Watcher:
    """Points that agents' windows of one second each are shown to."""

    def __init__(self) -> None:
        self.points = Points(directory(), Rows())
        self.agents = {boot: ScriptedAgent(boot=f"boot-{boot}") for boot in ("a", "a2", "a3")}
        self.agents["b"] = ScriptedAgent("node-b", "b")

    def see(self, *attachments: Attachment, second: int = 0, agent: str = "a", offset_s: int = 0) -> list[Gap]:
        """A window lists `attachments`; Redis's clock is `offset_s` before the agent's."""
        batch = replace(self.agents[agent].batch(), offset_us=offset_s * SECOND)
        return self.points.observe(batch, window(attachments, second=second))

    def stand_in(self, second: int = 0) -> Pod | None:
        """Who is known by frames alone to have had `STRANGER`'s address in a window of one second."""
        return self.points.stand_ins.pod(ip("172.17.0.2"), second * SECOND, (second + 1) * SECOND)

    def late(self, *attachments: Attachment, second: int, agent: str = "a", offset_s: int = 0) -> set[int]:
        """Which attachments of a window are another agent's by now."""
        batch = replace(self.agents[agent].batch(), offset_us=offset_s * SECOND)
        return self.points.late(batch, window(attachments, second=second))

    def learn(self, new: StaticDirectory) -> None:
        """The directory changes."""
        self.points.directory = Renewed(new, self.points.directory.version(()) + 1)

    @property
    def rows(self) -> dict[str, Identity]:
        """Identities by uid."""
        return {row.identity.uid: row.identity for row in self.points.rows.by_number.values()}

    def sight(self, uid: str, start: float, end: float, *, sent: bool = True) -> int:
        """What is known of a pod between two seconds."""
        asked, (starts, ends) = self.asked(uid, start, end)
        return int(asked.seen(FIRST, starts, ends, np.array([sent]))[0])

    def expected(self, uid: str, end: float) -> bool:
        """Whether its agent may still report what it did up to a second."""
        asked, (_, ends) = self.asked(uid, 0, end)
        return bool(asked.expected(FIRST, ends)[0])

    def in_gap(self, uid: str, start: float, end: float) -> bool:
        """Whether something is missing between two seconds."""
        asked, times = self.asked(uid, start, end)
        return bool(asked.in_gap(FIRST, *times)[0])

    def asked(self, uid: str, start: float, end: float) -> tuple[Sights, tuple[Numbers, Numbers]]:
        """One pod, and a window."""
        starts, ends = (np.array([int(second * SECOND)]) for second in (start, end))
        return self.points.sights([uid]), (starts, ends)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


def changed(*removed: str, **added: str) -> StaticDirectory:
    """A directory with other addresses; keywords are further pods of `shop`."""
    content = {"10.1.0.2": "web", "10.1.0.3": "api"} | {v: k for k, v in added.items()}
    entries = {text: {"namespace": "shop", "pod": pod} for text, pod in content.items() if text not in removed}
    return StaticDirectory({"version": 1, "addresses": entries}, "changed.json")


def ip(text: str) -> Address:
    return address.parse(text)


def test_a_pod_keeps_its_name_when_its_address_is_no_longer_reported(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.see(NOBODY, second=1)
    assert list(watcher.rows) == ["shop/web"]


def test_a_pod_keeps_its_name_when_the_directory_forgets_it(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.learn(changed("10.1.0.2"))
    watcher.see(WEB, second=1)
    assert list(watcher.rows) == ["shop/web"]


def test_an_address_that_becomes_another_pods_opens_a_row(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.learn(changed(job="10.1.0.2"))
    watcher.see(WEB, second=1)
    assert list(watcher.rows) == ["shop/web", "shop/job"]
    assert watcher.points.rows.take_moved() == []
    assert watcher.sight("shop/web", 0, 1) == NOTHING


def test_a_stand_in_gets_the_name_that_the_directory_learns(watcher: Watcher) -> None:
    watcher.see(STRANGER)
    assert watcher.stand_in()
    watcher.learn(changed(box="172.17.0.2"))
    watcher.see(STRANGER, second=1)
    assert list(watcher.rows) == ["shop/box"]
    assert watcher.stand_in() is None
    [moved] = watcher.points.rows.take_moved()
    assert (moved.uid, moved.new_uid, moved.number) == ("interface:node-a/veth1", "shop/box", moved.into)


def test_a_pod_in_the_nodes_network_has_the_name_of_the_uid_that_its_agent_tells(watcher: Watcher) -> None:
    # Without an address of its own nothing else tells who it is, and the cluster may tell of it later.
    known, new = (replace(attachment(number), pod_uid=uid) for number, uid in ((1, "shop/web"), (2, "shop/box")))
    watcher.see(known, new)
    # No agent tells of another node's pods.
    watcher.see(known, agent="b")
    strangers = {"interface:node-a/veth2", "interface:node-b/veth1"}
    assert set(watcher.rows) == {"shop/web", *strangers}
    watcher.learn(changed(box="172.17.0.2"))
    watcher.see(known, new, second=1)
    assert set(watcher.rows) == {"shop/web", "shop/box", "interface:node-b/veth1"}


def test_the_first_of_two_stand_ins_has_a_shared_address(watcher: Watcher) -> None:
    watcher.see(STRANGER, attachment(2, "172.17.0.2"))
    pod = watcher.stand_in()
    assert pod is not None
    assert pod.name == "veth1"


def test_an_address_of_a_stand_in_that_ended_is_the_next_ones(watcher: Watcher) -> None:
    watcher.see(STRANGER)
    watcher.see(detached(STRANGER, 3 * SECOND), second=2)
    assert ip("172.17.0.2") in watcher.points.take_changed()
    assert watcher.stand_in(3) is None
    watcher.see(attachment(2, "172.17.0.2"), second=5)
    assert [getattr(watcher.stand_in(second), "name", "") for second in (2, 4, 5, 9)] == ["veth1", "", "veth2", "veth2"]
    assert watcher.points.stand_ins.settled_us(ip("172.17.0.2")) == 5 * SECOND
    # A second that both were there in.
    watcher.see(detached(attachment(2, "172.17.0.2"), 10 * SECOND + 1), second=10)
    watcher.see(attachment(3, "172.17.0.2"), second=10)
    with pytest.raises(Ambiguous):
        watcher.stand_in(10)


def test_a_stand_in_outlives_its_agent(watcher: Watcher) -> None:
    watcher.see(STRANGER)
    watcher.see(STRANGER, second=100, agent="a2")
    watcher.points.forget(SECOND + module._LATE_US + 1)
    assert list(watcher.points.known) == [("boot-a2", 1)]
    assert watcher.stand_in(200)


def test_stand_ins_are_the_same_after_a_restart(watcher: Watcher) -> None:
    watcher.see(STRANGER)
    watcher.see(detached(STRANGER, 3 * SECOND), second=2)
    watcher.see(attachment(2, "172.17.0.2"), second=5)
    watcher = stored(watcher)
    assert [getattr(watcher.stand_in(second), "name", "") for second in (2, 4, 5, 9)] == ["veth1", "", "veth2", "veth2"]


def test_what_is_shown_follows_coverage_and_end(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.see(replace(WEB, coverage=Coverage.EGRESS_ONLY), second=1)
    assert watcher.rows["shop/web"].coverage == "egress-only"
    watcher.see(detached(WEB, 3 * SECOND), second=2)
    assert watcher.rows["shop/web"].gone_us == 3 * SECOND
    watcher.see(attachment(2, "10.1.0.2"), second=3)
    assert watcher.rows["shop/web"].gone_us == 0


def test_of_two_interfaces_the_open_one_is_shown(watcher: Watcher) -> None:
    second = attachment(2, "10.1.0.2")
    watcher.see(WEB, second)
    watcher.see(WEB, detached(second, 2 * SECOND), second=1)
    assert (watcher.rows["shop/web"].interface, watcher.rows["shop/web"].gone_us) == ("veth1", 0)


def test_start_bytes_stay_those_of_the_first_interface(watcher: Watcher) -> None:
    watcher.see(attachment(1, "10.1.0.2", first=700))
    watcher.see(attachment(2, "10.1.0.2", first=900), second=1)
    assert watcher.rows["shop/web"].transmit_start_bytes == 700


def test_a_window_is_seen_whole_in_part_or_not_at_all(watcher: Watcher) -> None:
    watcher.see(WEB, second=2)
    watcher.see(WEB, second=3)
    assert watcher.sight("shop/web", 2, 4) == WHOLE
    assert watcher.sight("shop/web", 1.5, 2.5) == PART
    assert watcher.sight("shop/web", 3, 4.1) == PART
    assert watcher.sight("shop/web", 4, 5) == NOTHING
    assert watcher.sight("shop/web", 1, 2) == NOTHING
    assert watcher.sight("shop/elsewhere", 2, 3) == NOTHING


@pytest.mark.parametrize(
    ("coverage", "seen"),
    [(Coverage.FULL, WHOLE), (Coverage.EGRESS_ONLY, WHOLE), (Coverage.NONE, NOTHING)],
)
def test_sending_is_seen_where_what_leaves_the_pod_is(watcher: Watcher, coverage: Coverage, seen: int) -> None:
    watcher.see(replace(WEB, coverage=coverage))
    assert watcher.sight("shop/web", 0, 1) == seen
    assert watcher.expected("shop/web", 2) is (coverage is not Coverage.NONE)


def test_a_report_is_expected_until_it_is_there_or_the_interface_ended(watcher: Watcher) -> None:
    assert not watcher.expected("shop/web", 1)
    watcher.see(WEB)
    assert not watcher.expected("shop/web", 1)
    assert watcher.expected("shop/web", 1.1)
    watcher.see(detached(WEB, 2 * SECOND), second=1)
    assert not watcher.expected("shop/web", 3)


def again(tx: int, rx: int = 0, *, number: int = 7) -> Attachment:
    """The interface of `WEB` as a second agent finds it."""
    return replace(WEB, id=number, first_counters=InterfaceCounters(tx, tx // 100, rx, rx // 100))


def test_counters_that_went_on_are_a_gap(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.points.account(("boot-a", 1), InterfaceCounters(1000, 10, 500, 5))
    [gap] = watcher.see(again(1600, 500), second=9, agent="a2")
    assert gap == Gap(("boot-a2", 7), InterfaceCounters(600, 6, 0, 0), SECOND, 9 * SECOND)
    assert watcher.sight("shop/web", 0, 1) == WHOLE
    assert watcher.sight("shop/web", 1, 10) == WHOLE
    assert watcher.in_gap("shop/web", 8, 10)
    assert not watcher.in_gap("shop/web", 9, 10)
    assert not watcher.in_gap("shop/web", 0, 1)


def test_a_third_agents_gap_begins_where_the_second_ended(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.see(again(600), second=3, agent="a2")
    watcher.points.account(("boot-a2", 7), InterfaceCounters(50, 1, 0, 0))
    [gap] = watcher.see(again(900), second=6, agent="a3")
    assert (gap.counters.tx_bytes, gap.start_us) == (250, 4 * SECOND)


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (again(100), "nothing passed"),
        (again(99), "they began anew"),
        (replace(again(900), first_counters=None), "the agent could not read them"),
        (replace(again(900), interface="veth2"), "it is another interface"),
        (replace(again(900), index=99), "it is another interface of that name"),
    ],
)
def test_otherwise_there_is_no_gap(watcher: Watcher, later: Attachment, why: str) -> None:
    watcher.see(attachment(1, "10.1.0.2", first=100))
    assert watcher.see(later, second=9, agent="a2") == [], why


def test_after_an_interface_ended_there_is_no_gap(watcher: Watcher) -> None:
    watcher.see(detached(WEB, SECOND))
    assert watcher.see(again(600), second=1, agent="a2") == []


def test_what_an_agent_reports_of_an_interface_that_another_took_over_is_late(watcher: Watcher) -> None:
    other = attachment(2, "10.1.0.3")
    watcher.see(WEB, other)
    assert watcher.late(WEB, other, second=1) == set()
    watcher.see(again(600), second=9, agent="a2")
    assert watcher.late(WEB, other, second=1) == {WEB.id}
    assert watcher.late(again(600), second=10, agent="a2") == set()
    assert stored(watcher).late(WEB, other, second=1) == {WEB.id}


def test_an_agent_that_is_first_heard_after_its_successor_is_late(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.see(again(600), second=9, agent="a2")
    assert watcher.late(again(300), second=5, agent="a3") == {7}
    assert watcher.late(again(300), attachment(4), second=5, agent="a3") == {7}
    assert watcher.late(again(900), second=12, agent="a3") == set()


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_who_began_first_is_known_though_redis_clock_was_set_meanwhile(watcher: Watcher, step_s: int) -> None:
    watcher.see(WEB)
    watcher.see(again(600), second=9, agent="a2", offset_s=step_s)
    assert watcher.late(again(300), second=5, agent="a3", offset_s=-step_s) == {7}
    assert watcher.late(again(900), second=12, agent="a3", offset_s=-step_s) == set()
    assert stored(watcher).late(again(300), second=5, agent="a3", offset_s=-step_s) == {7}


def test_after_a_machine_started_anew_its_interfaces_are_others(watcher: Watcher) -> None:
    watcher.see(WEB, second=50)
    watcher.agents["a2"].machine = "started anew"
    assert watcher.late(again(600), second=3, agent="a2") == set()
    assert watcher.see(again(600), second=3, agent="a2") == []


def test_of_capture_files_any_window_may_come_at_any_time(watcher: Watcher) -> None:
    file = replace(attachment(1, interface="a.pcap", first=None), source="pcap")
    watcher.see(file, second=9)
    assert watcher.late(file, second=3, agent="a2") == set()


def test_where_an_agent_counts_nothing_there_is_no_gap(watcher: Watcher) -> None:
    watcher.see(replace(WEB, first_counters=None))
    watcher.points.account(("boot-a", 1), InterfaceCounters(1, 1, 1, 1))
    assert watcher.see(again(600), second=1, agent="a2") == []


def test_points_are_forgotten_when_nobody_can_ask_any_more(watcher: Watcher) -> None:
    watcher.see(STRANGER, detached(attachment(2), SECOND))
    watcher.points.forget(SECOND + module._LATE_US + 1)
    assert list(watcher.points.known) == [("boot-a", 1)]
    watcher.points.forget(SECOND + module._SILENT_US + 1)
    assert watcher.points.known == {}
    assert watcher.stand_in() is None
    assert watcher.see(again(600), agent="a2") == []


def test_a_capture_files_addresses_have_rows_up_to_a_bound(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ADDRESS_ROWS", 2)
    watcher.see(replace(attachment(1, interface="a.pcap"), source="pcap"))
    point = watcher.points.known["boot-a", 1]
    rows = [watcher.points.by_address(point, ip(text))[0] for text in ("1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.1")]
    assert rows == [2, 3, 1, 2]
    assert watcher.points.by_address(point, None)[0] == 1
    assert watcher.rows["1.1.1.2"].key == "a.pcap/1.1.1.2"


def test_a_capture_files_address_that_two_pods_had_stands_for_itself(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ambiguous(_: Address) -> Pod | None:
        raise Ambiguous

    watcher.see(replace(attachment(1, interface="a.pcap"), source="pcap"))
    monkeypatch.setattr(watcher.points.directory, "pod", ambiguous)
    _, pod = watcher.points.by_address(watcher.points.known["boot-a", 1], ip("10.1.0.2"))
    assert (pod.namespace, pod.name) == ("a.pcap", "10.1.0.2")


def stored(watcher: Watcher) -> Watcher:
    """What a restarted aggregator holds; the rows are the former's."""
    after = Watcher()
    for row in watcher.points.rows.by_number.values():
        after.points.rows.restore(row.frozen(), row.since_us)
    after.points.rows.next_number = watcher.points.rows.next_number
    after.points.restore(map(point_in, points_out(watcher.points, "node-a")))
    return after


def test_points_survive_the_store(watcher: Watcher) -> None:
    watcher.see(WEB, attachment(2), replace(detached(attachment(3, first=None), 5), coverage=Coverage.NONE))
    watcher.points.account(("boot-a", 1), InterfaceCounters(10, 1, 0, 0))
    watcher.see(again(600), second=3, agent="a2")
    after = stored(watcher)
    assert {key: _plain(point) for key, point in after.points.known.items()} == {
        key: _plain(point) for key, point in watcher.points.known.items()
    }
    assert after.points.of_row == watcher.points.of_row
    assert points_out(watcher.points, "node-b") == []


def _plain(point: Point) -> Point:
    return replace(point, asked=0)


def test_after_the_store_gaps_are_found_against_the_latest_point(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.see(again(600), second=3, agent="a2")
    after = stored(watcher)
    after.agents["a3"] = ScriptedAgent(boot="boot-a3")
    [gap] = after.see(again(700), second=6, agent="a3")
    assert gap.counters.tx_bytes == 100


def test_after_the_store_a_pod_keeps_the_name_that_no_address_tells(watcher: Watcher) -> None:
    watcher.see(WEB)
    watcher.see(NOBODY, second=1)
    after = stored(watcher)
    assert list(after.rows) == ["shop/web"]
    after.see(NOBODY, second=2)
    assert list(after.rows) == ["shop/web"]
