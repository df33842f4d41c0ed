"""What windows become: rows, peers, scopes, cluster totals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.once import HOLD_US
from services.aggregator.totals import Totals
from services.flows import address, history
from services.flows.delta import InterfaceCounters, Kind
from services.flows.history import Passed
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, ByScope, Identity
from tests.support.agents import SECOND, ScriptedAgent, attachment, detached, flow, window
from tests.support.worlds import directory

WEB = attachment(1, "10.1.0.2")
API = attachment(2, "10.1.0.3")
DB = attachment(1, "10.2.0.2", interface="veth9")


def totals(peers_per_pod: int = 1000) -> Totals:
    """Empty totals over the small cluster."""
    return Totals(directory(), peers_per_pod)


def counted(scopes: ByScope, name: str = "tx_bytes") -> dict[str, int]:
    """A counter by scope, without zeros."""
    at = ROW_COUNTERS.index(name)
    return {scope.value: counts[at] for scope, counts in scopes.items() if counts[at]}


def row(state: Totals, uid: str) -> ByScope:
    """The totals of a pod's row."""
    return state.rows.by_number[state.rows.by_uid[uid]].totals


def buckets(state: Totals) -> dict[int, dict[int, dict[Scope, Passed]]]:
    """The history as it is stored."""
    return {number: history.decode(state.history.encoded(number)) for number in state.history}


def identity(state: Totals, uid: str) -> Identity:
    """The identity of a pod's row."""
    return state.rows.by_number[state.rows.by_uid[uid]].identity


def test_bytes_land_at_the_pod_by_scope() -> None:
    state, agent = totals(), ScriptedAgent()
    flows = [
        flow(1, "10.1.0.3", tx=1000, rx=500),
        flow(1, "10.2.0.2", tx=300),
        flow(1, "10.96.0.10", tx=200, port=53, protocol=17),
        flow(1, "10.200.1.1", tx=50),
        flow(1, "1.1.1.1", tx=70, rx=90),
        flow(1, "", tx=28, kind=Kind.NOT_IP, port=0x0806, protocol=0),
    ]
    state.apply(agent.batch(window([WEB], *flows)))
    sent = {"same-node": 1000, "cross-zone": 300, "service": 200, "private": 50, "internet": 70, "unknown": 28}
    assert counted(row(state, "shop/web")) == sent
    assert counted(row(state, "shop/web"), "rx_bytes") == {"same-node": 500, "internet": 90}
    assert counted(row(state, "shop/web"), "tx_other_bytes") == {"unknown": 28}
    who = identity(state, "shop/web")
    assert (who.node, who.zone, who.region, who.interface, who.ip) == ("node-a", "eu-1a", "eu-1", "veth1", "10.1.0.2")
    assert who.ips == ("10.1.0.2", "fd00:1::2")


def test_a_peer_carries_its_name_scope_and_rule() -> None:
    state, agent = totals(), ScriptedAgent()
    state.apply(agent.batch(window([WEB], flow(1, "10.2.0.2", tx=300, port=5432))))
    state.apply(agent.batch(window([WEB], flow(1, "10.2.0.2", rx=700, port=5432), second=1)))
    [peer] = state.peers.of(1)
    assert (peer.namespace, peer.name, peer.what) == ("data", "db", "pod")
    assert (peer.scope, peer.rule, peer.port, peer.protocol) == (Scope.CROSS_ZONE, "pod-cross-zone", 5432, 6)
    assert (peer.counts[0], peer.counts[1]) == (300, 700)
    assert (peer.first_us, peer.last_us) == (0, 2 * SECOND)


def test_peers_beyond_the_bound_are_folded_by_scope() -> None:
    state, agent = totals(peers_per_pod=2), ScriptedAgent()
    state.apply(agent.batch(window([WEB], *(flow(1, f"1.1.1.{at}", tx=100) for at in range(5)))))
    peers = state.peers.of(1)
    assert len(peers) == 3
    [folded] = [peer for peer in peers if peer.name == "other peers"]
    assert (folded.counts[0], folded.scope) == (300, Scope.INTERNET)


def test_without_a_directory_an_interface_is_the_pod() -> None:
    state, agent = totals(), ScriptedAgent()
    one, two = attachment(1, "172.17.0.2"), attachment(2, "172.17.0.3")
    state.apply(agent.batch(window([one, two], flow(1, "172.17.0.3", tx=100, local="172.17.0.2"))))
    assert counted(row(state, "interface:node-a/veth1")) == {"same-node": 100}
    assert identity(state, "interface:node-a/veth1").key == "local/veth1"


def test_a_row_becomes_the_pods_once_its_address_is_seen() -> None:
    state, agent = totals(), ScriptedAgent()
    state.apply(agent.batch(window([attachment(1)], flow(1, "1.1.1.1", rx=100))))
    assert list(state.rows.by_uid) == ["interface:node-a/veth1"]
    state.apply(agent.batch(window([WEB], flow(1, "1.1.1.1", tx=50), second=1)))
    assert list(state.rows.by_uid) == ["shop/web"]
    assert counted(row(state, "shop/web"), "rx_bytes") == {"internet": 100}


def test_a_second_interface_of_a_pod_joins_its_row() -> None:
    state, agent = totals(), ScriptedAgent()
    unknown = attachment(2)
    state.apply(agent.batch(window([WEB, unknown], flow(1, "1.1.1.1", tx=50), flow(2, "1.1.1.1", tx=7))))
    state.committed()
    second = replace(unknown, addresses=(address.parse("fd00:1::2"),))
    state.apply(agent.batch(window([WEB, second], second=1)))
    assert counted(row(state, "shop/web")) == {"internet": 57}
    tick = state.tick(1, 1, 0)
    assert len(tick.removed) == 1
    assert counted(state.cluster) == {"internet": 57}
    assert sum(peer.counts[0] for peer in state.peers.of(1)) == 57


def test_what_a_pod_exchanges_with_a_unit_of_its_node_counts_once_for_the_cluster() -> None:
    # The unit knows the pod by its address, and the pod sees its node.
    state, agent = totals(), ScriptedAgent()
    unit = replace(attachment(3, interface="ssh.service", first=None), source="cgroup")
    ours = [replace(WEB, source="cgroup"), unit]
    node = "10.0.0.11"
    flows = flow(1, node, tx=1000, rx=500), flow(3, "10.1.0.2", local=node, tx=500, rx=1000)
    state.apply(agent.batch(window(ours, *flows)))
    state.apply(agent.batch(window(ours, second=1)))
    state.settle(2 * SECOND + HOLD_US)
    assert sum(counted(state.cluster).values()) == 1000
    assert sum(counted(state.cluster, "rx_bytes").values()) == 500
    assert counted(row(state, "interface:node-a/ssh.service")) == {"same-node": 500}


def test_what_a_unit_sends_to_a_pod_that_nobody_watches_counts_at_the_unit() -> None:
    state, agent = totals(), ScriptedAgent()
    unit = replace(attachment(3, interface="ssh.service", first=None), source="cgroup")
    state.apply(agent.batch(window([unit], flow(3, "10.1.0.2", local="10.0.0.11", tx=500))))
    state.settle(SECOND + HOLD_US)
    assert sum(counted(state.cluster).values()) == 500


def test_between_two_seen_pods_bytes_count_once_for_the_cluster() -> None:
    state, agent = totals(), ScriptedAgent()
    flows = flow(1, "10.1.0.3", tx=1000, rx=400), flow(2, "10.1.0.2", tx=400, rx=1000, local="10.1.0.3")
    state.apply(agent.batch(window([WEB, API], *flows)))
    state.settle(SECOND)
    assert counted(state.cluster) == {"same-node": 1400}
    assert counted(state.cluster, "rx_bytes") == {}
    assert counted(row(state, "shop/api"), "rx_bytes") == {"same-node": 1000}


def test_what_an_unseen_pod_sends_counts_at_its_receiver() -> None:
    state, agent = totals(), ScriptedAgent()
    state.apply(agent.batch(window([WEB], flow(1, "10.2.0.2", tx=100, rx=900))))
    state.settle(SECOND)
    assert counted(state.cluster) == {"cross-zone": 100}
    assert counted(state.cluster, "rx_bytes") == {"cross-zone": 900}


def test_a_receipt_waits_for_the_senders_agent() -> None:
    state, here, there = totals(), ScriptedAgent(), ScriptedAgent("node-b", "boot-b")
    state.apply(there.batch(window([DB])))
    state.apply(here.batch(window([WEB], second=0), window([WEB], flow(1, "10.2.0.2", rx=900), second=1)))
    state.settle(2 * SECOND)
    assert state.pending_bytes == 900
    state.apply(there.batch(window([DB], flow(1, "10.1.0.2", tx=900, local="10.2.0.2"), second=1)))
    state.settle(2 * SECOND)
    assert state.pending_bytes == 0
    assert counted(state.cluster) == {"cross-zone": 900}
    assert counted(state.cluster, "rx_bytes") == {}


def test_a_silent_agents_pods_count_at_the_receiver_and_never_twice() -> None:
    state, here, there = totals(), ScriptedAgent(), ScriptedAgent("node-b", "boot-b")
    state.apply(there.batch(window([DB])))
    state.apply(here.batch(window([WEB], flow(1, "10.2.0.2", rx=900), second=1)))
    state.settle(2 * SECOND + HOLD_US)
    assert counted(state.cluster, "rx_bytes") == {"cross-zone": 900}
    state.apply(there.batch(window([DB], flow(1, "10.1.0.2", tx=900, local="10.2.0.2"), second=1)))
    assert counted(state.cluster) == {}
    assert state.overlap_bytes == 900
    assert counted(row(state, "data/db")) == {"cross-zone": 900}


def test_after_its_sender_went_a_receipt_counts_at_the_receiver() -> None:
    state, agent = totals(), ScriptedAgent()
    state.apply(agent.batch(window([WEB, API], second=0), window([WEB, detached(API, SECOND)], second=0)))
    state.apply(agent.batch(window([WEB], flow(1, "10.1.0.3", rx=60), second=1)))
    state.settle(2 * SECOND)
    assert counted(state.cluster, "rx_bytes") == {"same-node": 60}


def test_a_hairpin_counts_once() -> None:
    state, agent = totals(), ScriptedAgent()
    state.apply(agent.batch(window([WEB], flow(1, "10.1.0.2", tx=100, rx=100))))
    state.settle(SECOND)
    assert counted(state.cluster) == {"same-pod": 100}
    assert counted(state.cluster, "rx_bytes") == {}


def test_what_an_agent_missed_while_dead_is_a_gap() -> None:
    state = totals()
    state.apply(ScriptedAgent().batch(window([WEB], flow(1, "1.1.1.1", tx=1000, rx=500))))
    again = replace(attachment(7, "10.1.0.2", interface="veth1"), index=WEB.index)
    again = replace(again, first_counters=InterfaceCounters(1600, 16, 500, 5))
    state.apply(ScriptedAgent(boot="boot-a2").batch(window([again], second=9)))
    assert counted(row(state, "shop/web")) == {"internet": 1000, "unknown": 600}
    assert counted(state.cluster)["unknown"] == 600
    assert state.loss["agent-gap"] == 6
    assert {peer.rule for peer in state.peers.of(1)} == {"public", "agent-gap"}


def test_in_a_new_session_a_gap_holds_nothing_of_the_one_before() -> None:
    state, first, second = totals(), ScriptedAgent(seq=100), ScriptedAgent(boot="boot-b")
    midway = replace(WEB, passed=InterfaceCounters(90_000, 900, 0, 0))
    state.apply(first.batch(window([midway], flow(1, "1.1.1.1", tx=1000), second=50)))
    assert identity(state, "shop/web").transmit_start_bytes == 90_000
    again = replace(WEB, id=7, first_counters=InterfaceCounters(91_600, 916, 0, 0))
    state.apply(second.batch(window([again], flow(7, "1.1.1.1", tx=50), second=55)))
    assert counted(row(state, "shop/web")) == {"internet": 1050, "unknown": 600}


def test_what_a_dead_agent_sent_last_counts_once_however_late_it_comes() -> None:
    state, first, second = totals(), ScriptedAgent(), ScriptedAgent(boot="boot-b")
    state.apply(first.batch(window([WEB], flow(1, "1.1.1.1", tx=1000))))
    stray = first.batch(window([WEB, API], flow(1, "1.1.1.1", tx=500), flow(2, "1.1.1.1", tx=30), second=1))
    again = replace(WEB, id=7, first_counters=InterfaceCounters(1700, 17, 0, 0))
    state.apply(second.batch(window([again], flow(7, "1.1.1.1", tx=40), second=5)))
    state.apply(stray)
    assert counted(row(state, "shop/web")) == {"internet": 1040, "unknown": 700}
    # That one's interface nobody watches now: of it nothing else is known.
    assert counted(row(state, "shop/api")) == {"internet": 30}
    assert state.loss["batch-late"] == 1
    assert state.nodes["node-a"].boot == "boot-b"


def test_counters_that_began_anew_are_no_gap() -> None:
    state = totals()
    state.apply(ScriptedAgent().batch(window([WEB], flow(1, "1.1.1.1", tx=1000))))
    again = replace(attachment(7, "10.1.0.2", interface="veth1"), index=WEB.index)
    state.apply(ScriptedAgent(boot="boot-a2").batch(window([again], second=9)))
    assert counted(row(state, "shop/web")) == {"internet": 1000}


def test_loss_is_told_per_node_and_in_all() -> None:
    state, agent = totals(), ScriptedAgent()
    state.apply(agent.batch(window([WEB], loss=3)))
    state.apply(agent.batch(window([WEB], loss=4, second=1)))
    assert state.loss["kernel-drop"] == 7
    assert state.nodes["node-a"].loss == {"kernel-drop": 7}


def test_history_is_kept_in_buckets() -> None:
    state, agent = totals(), ScriptedAgent()
    for second in (3, 4, 5):
        state.apply(agent.batch(window([WEB], flow(1, "1.1.1.1", tx=100, rx=1), second=second)))
    assert buckets(state) == {0: {1: {Scope.INTERNET: Passed(100, 1)}}, 1: {1: {Scope.INTERNET: Passed(200, 2)}}}


@pytest.mark.parametrize("kind", [Kind.NOT_IP, Kind.MALFORMED, Kind.FOLDED])
def test_what_has_no_peer_is_unknown_with_its_rule(kind: Kind) -> None:
    state, agent = totals(), ScriptedAgent()
    state.apply(agent.batch(window([WEB], flow(1, "", rx=60, kind=kind, port=0, protocol=0))))
    [peer] = state.peers.of(1)
    assert (peer.scope, peer.rule) == (Scope.UNKNOWN, {1: "not-ip", 2: "malformed", 3: "folded"}[kind])


sizes = st.integers(0, 10**6).map(lambda n: n * 100)
peers = st.sampled_from(["10.1.0.2", "10.1.0.3", "10.2.0.2", "10.96.0.10", "1.1.1.1", "224.0.0.1", "10.1.0.77"])
steps = st.lists(
    st.lists(st.tuples(st.sampled_from([1, 2]), peers, sizes, sizes, st.sampled_from([1, 6, 17])), max_size=6),
    max_size=5,
)


@given(steps, st.integers(1, 3))
def test_every_byte_is_booked_in_every_view(
    script: list[list[tuple[int, str, int, int, int]]], peers_per_pod: int
) -> None:
    state, agent = totals(peers_per_pod), ScriptedAgent()
    ticks: dict[int, int] = {}
    for second, flows in enumerate(script):
        rows = [flow(at, peer, tx=tx, rx=rx, protocol=protocol) for at, peer, tx, rx, protocol in flows]
        state.apply(agent.batch(window([WEB, API], *rows, second=second)))
        state.settle(second * SECOND)
        for change in state.tick(1, second + 1, 0).changes:
            ticks[change.number] = ticks.get(change.number, 0) + sum(c[0] + c[1] for c in change.added.values())
        state.committed()
    every = [entry for flows in script for entry in flows]
    for uid, number in (("shop/web", 1), ("shop/api", 2)):
        truth = sum(tx + rx for at, _, tx, rx, _ in every if at == number)
        if uid not in state.rows.by_uid:
            assert truth == 0
            continue
        own = state.rows.by_number[state.rows.by_uid[uid]]
        assert sum(counts[0] + counts[1] for counts in own.totals.values()) == truth
        assert sum(peer.counts[0] + peer.counts[1] for peer in state.peers.of(own.number)) == truth
        assert ticks.get(own.number, 0) == truth
        kept = [s for b in buckets(state).values() for s in b.get(own.number, {}).values()]
        assert int(np.sum(kept)) == truth
    state.settle(10**12)
    assert sum(counts[0] for counts in state.cluster.values()) == sum(tx for _, _, tx, _, _ in every)
