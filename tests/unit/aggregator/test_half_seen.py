"""What passes pods unseen: taken from who sent it on the node, else unknown, and once in the cluster's totals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.aggregator.once import HOLD_US
from services.aggregator.totals import Totals
from services.api.counters import gap_bytes, six
from services.flows.delta import Attachment, Coverage, InterfaceCounters, Kind, Rows, beside
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS
from tests.support.agents import SECOND, ScriptedAgent, attachment, detached, flow, window
from tests.support.worlds import directory

WEB = attachment(1, "10.1.0.2")
API = attachment(2, "10.1.0.3")
DB = attachment(1, "10.2.0.2", interface="veth9")
RX = ROW_COUNTERS.index("rx_bytes")
TX = ROW_COUNTERS.index("tx_bytes")


def hidden(number: int, rx: int, *, kind: Kind = Kind.HIDDEN, tx: int = 0) -> Rows:
    """What an agent tells of an interface; one packet per 100 bytes."""
    return beside(kind, {number: InterfaceCounters(tx, tx // 100, rx, rx // 100)})


def rules(state: Totals, pod: str, at: int = RX) -> dict[str, int]:
    """Bytes of a pod's row by rule, without zeros."""
    [number] = [number for number, row in state.rows.by_number.items() if row.identity.pod == pod]
    found: dict[str, int] = {}
    for peer in state.peers.of(number):
        found[peer.rule] = found.get(peer.rule, 0) + peer.counts[at]
    whole = sum(counts[at] for counts in state.rows.by_number[number].totals.values())
    assert sum(found.values()) == whole
    return {rule: value for rule, value in found.items() if value}


def cluster(state: Totals, second: int) -> tuple[int, int]:
    """Bytes sent and received in the cluster's totals, when nothing waits any more."""
    state.settle(second * SECOND + 2 * HOLD_US)
    assert state.pending_bytes == 0
    return sum(one[TX] for one in state.cluster.values()), sum(one[RX] for one in state.cluster.values())


def test_what_another_pod_of_the_node_sent_is_its_and_the_rest_unknown() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    sent = flow(1, "10.1.0.3", tx=1000)
    state.apply(agent.batch(window([WEB, API], sent, hidden(2, 1500))))
    assert rules(state, "api") == {"seen-at-sender": 1000}
    # The rest may be what was sent meanwhile, and is told with the next window.
    state.apply(agent.batch(window([WEB, API], second=1)))
    assert rules(state, "api") == {"seen-at-sender": 1000, "hidden-datapath": 500}
    [peer] = [peer for peer in state.peers.of(state.rows.by_uid["shop/api"]) if peer.rule == "seen-at-sender"]
    assert (peer.name, peer.namespace, peer.what, peer.address, peer.port) == ("web", "shop", "pod", "10.1.0.2", 80)
    assert (peer.scope.value, peer.server) == ("same-node", 1)
    assert cluster(state, 2) == (1000, 500)


@pytest.mark.parametrize("kind", [Kind.HIDDEN, Kind.NO_SOCKET])
def test_what_passed_unseen_is_not_shown_as_an_agents_gap(kind: Kind) -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    for second in range(2):
        state.apply(agent.batch(window([API], hidden(2, 1500, tx=200, kind=kind), second=second)))
    [row] = state.rows.by_number.values()
    assert row.totals[Scope.UNKNOWN][RX] >= 1500
    assert gap_bytes(row.totals) == 0
    # It has no protocol that is known, so it is what the original calls unknown.
    assert six(row.totals)[3] == row.totals[Scope.UNKNOWN][RX] + row.totals[Scope.UNKNOWN][TX]
    assert cluster(state, 2)[0]
    assert gap_bytes(state.cluster) == 0


def test_what_is_read_late_is_the_next_windows() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    state.apply(agent.batch(window([WEB, API], flow(1, "10.1.0.3", tx=1000), hidden(2, 1300))))
    state.apply(agent.batch(window([WEB, API], flow(1, "10.1.0.3", tx=1000), hidden(2, 700), second=1)))
    state.apply(agent.batch(window([WEB, API], second=2)))
    assert rules(state, "api") == {"seen-at-sender": 2000}


def test_no_more_is_taken_from_senders_than_the_pod_received() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    flows = flow(1, "10.1.0.3", tx=1000), flow(1, "10.1.0.3", tx=3000, port=443)
    state.apply(agent.batch(window([WEB, API], *flows, hidden(2, 3500))))
    state.apply(agent.batch(window([WEB, API], second=1)))
    assert rules(state, "api") == {"seen-at-sender": 3500}
    assert rules(state, "web", TX) == {"pod-same-node": 4000}


def test_an_interface_that_ends_leaves_nothing_to_wait() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    state.apply(agent.batch(window([WEB, detached(API, SECOND)], flow(1, "10.1.0.3", tx=1000), hidden(2, 1500))))
    assert rules(state, "api") == {"seen-at-sender": 1000, "hidden-datapath": 500}


def test_who_tells_no_counters_takes_all_that_was_sent_once_it_is_known_to_see_one_side() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    half = replace(API, coverage=Coverage.EGRESS_ONLY)
    state.apply(agent.batch(window([WEB, half], flow(1, "10.1.0.3", tx=1000))))
    assert rules(state, "api") == {"seen-at-sender": 1000}
    assert cluster(state, 1) == (1000, 0)


def test_pods_that_are_seen_get_nothing_twice() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    state.apply(agent.batch(window([WEB, API], flow(1, "10.1.0.3", tx=1000), flow(2, "10.1.0.2", rx=1000))))
    assert rules(state, "api") == {"pod-same-node": 1000}


def test_what_came_from_another_node_counts_where_it_was_sent() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    other = ScriptedAgent("node-b", "boot-b")
    state.apply(agent.batch(window([API], hidden(2, 5000)), window([API], second=1)))
    # It comes a little later.
    state.apply(other.batch(window([DB], flow(1, "10.1.0.3", tx=3000, local="10.2.0.2"))))
    assert rules(state, "api") == {"hidden-datapath": 5000}
    assert state.pending_bytes >= 5000
    assert cluster(state, 2) == (3000, 2000)
    assert state.overlap_bytes == 3000


def test_a_gap_holds_what_passed_unseen_only_as_far_as_nobody_told_it() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    api = replace(API, counters=InterfaceCounters(0, 0, 0, 0))
    state.apply(agent.batch(window([api], hidden(2, 5000)), window([api], hidden(2, 700), second=1)))
    assert rules(state, "api") == {"hidden-datapath": 5000}
    # The last 700 were to be booked with the next window; the interface has counted 6,000 by now.
    again = replace(API, id=7, first_counters=InterfaceCounters(0, 0, 6000, 60), attached_us=5 * SECOND)
    state.apply(ScriptedAgent(boot="boot-b").batch(window([again], second=5)))
    assert rules(state, "api") == {"hidden-datapath": 5000, "agent-gap": 1000}


def test_what_no_socket_had_is_unknown_and_counts_for_the_cluster_where_it_was_sent() -> None:
    state, agent = Totals(directory(), 10), ScriptedAgent()
    web = replace(WEB, source="cgroup", first_counters=None)
    rest = hidden(1, 900, tx=400, kind=Kind.NO_SOCKET)
    state.apply(agent.batch(window([web], flow(1, "1.1.1.1", tx=100, rx=200), rest)))
    assert rules(state, "web") == {"public": 200, "no-socket": 900}
    assert rules(state, "web", TX) == {"public": 100, "no-socket": 400}
    assert cluster(state, 1) == (500, 200)


@pytest.mark.parametrize("hides", [False, True])
def test_a_pod_that_is_seen_by_its_control_group_is_not_booked_by_its_link_as_well(*, hides: bool) -> None:
    state, links = Totals(directory(), 10), ScriptedAgent()
    groups = ScriptedAgent(boot="boot-g")
    api = Attachment(9, "container", 9, "cgroup", 0, addresses=API.addresses)

    def of_links(second: int) -> None:
        seen = () if hides else (flow(2, "10.1.0.2", rx=1000),)
        more = (hidden(2, 1000),) if hides else ()
        state.apply(links.batch(window([WEB, API], flow(1, "10.1.0.3", tx=1000), *seen, *more, second=second)))

    state.apply(groups.batch(window([api], flow(9, "10.1.0.2", rx=1000, local="10.1.0.3"))))
    of_links(1)
    state.apply(groups.batch(window([api], flow(9, "10.1.0.2", rx=1000, local="10.1.0.3"), second=1)))
    of_links(2)
    assert rules(state, "api") == {"pod-same-node": 2000}
    # Nobody tells of the pod by its groups any more.
    of_links(9)
    of_links(10)
    assert sum(rules(state, "api").values()) == 4000
