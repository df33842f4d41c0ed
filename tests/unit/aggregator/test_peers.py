"""The peers of rows: bounded, merged, and the same after the store."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.peers import Peers
from services.aggregator.totals import Totals
from services.aggregator.verdicts import Label, Labels
from services.flows import peer_store
from services.flows.delta import Kind
from services.flows.scope import Rule, Scope
from services.flows.traffic import Peer, no_counts
from tests.support.agents import SECOND, ScriptedAgent, attachment, flow, window
from tests.support.worlds import directory

WEB = attachment(1, "10.1.0.2")


def sums(peers: list[Peer]) -> dict[str, int]:
    """Sent bytes by address, or by name where there is none."""
    added: dict[str, int] = {}
    for peer in peers:
        called = peer.address or peer.name or peer.rule
        added[called] = added.get(called, 0) + peer.counts[0]
    return added


def told(peers: Peers, *, every: bool = False) -> list[tuple[int, Peer]]:
    """What is to be stored, by row."""
    return [
        (row, peer_store.decode_peer(name, value))
        for row, pairs in peers.changed(every=every)
        for name, value in zip(pairs[::2], pairs[1::2], strict=True)
    ]


def after(*sizes: dict[str, int], peers_per_pod: int = 0) -> Totals:
    """Totals after windows of one second each, in which the pod sent so much to each address."""
    state, agent = Totals(directory(), peers_per_pod), ScriptedAgent()
    for second, sent in enumerate(sizes):
        flows = [flow(1, peer, tx=size) for peer, size in sent.items()]
        state.apply(agent.batch(window([WEB], *flows, second=second)))
    return state


def test_without_a_bound_all_peers_are_kept() -> None:
    many = {f"1.1.{at // 256}.{at % 256}": at for at in range(1, 3000)}
    peers = after(many, many).peers.of(1)
    assert sums(peers) == {address: 2 * size for address, size in many.items()}


def test_known_peers_go_on_when_the_row_is_full() -> None:
    state = after({"1.1.1.1": 1, "1.1.1.2": 10}, {"1.1.1.1": 100, "1.1.1.3": 1000, "10.9.9.9": 5}, peers_per_pod=2)
    assert sums(state.peers.of(1)) == {"1.1.1.1": 101, "1.1.1.2": 10, "other peers": 1005}
    folded = [peer for peer in state.peers.of(1) if peer.name == "other peers"]
    assert {(peer.scope, peer.rule, peer.address) for peer in folded} == {
        (Scope.INTERNET, "", ""),
        (Scope.PRIVATE, "", ""),
    }


def test_of_new_peers_the_largest_are_kept() -> None:
    state = after({f"1.1.1.{at}": at for at in range(1, 100)}, peers_per_pod=2)
    assert sums(state.peers.of(1)) == {"1.1.1.99": 99, "1.1.1.98": 98, "other peers": 97 * 98 // 2}


def test_a_gap_is_never_folded() -> None:
    state = after({"1.1.1.1": 1}, peers_per_pod=1)
    counts = [7, *no_counts()[1:]]
    state.peers.add_gap(1, Label(Scope.UNKNOWN, Rule.AGENT_GAP.value), counts, SECOND, 9 * SECOND)
    [gap] = [peer for peer in state.peers.of(1) if peer.rule == "agent-gap"]
    assert (gap.kind, gap.counts[0], gap.first_us, gap.last_us) == (Kind.FOLDED, 7, SECOND, 9 * SECOND)


def test_only_what_changed_is_told() -> None:
    state = after({"1.1.1.1": 1, "1.1.1.2": 1})
    assert len(told(state.peers)) == 2
    state.peers.committed()
    state.apply(ScriptedAgent(boot="b").batch(window([WEB], flow(1, "1.1.1.2", tx=5), second=3)))
    [(row, peer)] = told(state.peers)
    assert (row, peer.address, peer.counts[0]) == (1, "1.1.1.2", 6)
    assert len(told(state.peers, every=True)) == 2


def two_rows(peers_per_pod: int = 0) -> Totals:
    """Two pods with one peer in common."""
    state, agent = Totals(directory(), peers_per_pod), ScriptedAgent()
    flows = (
        flow(1, "1.1.1.1", tx=1),
        flow(2, "1.1.1.1", tx=10, local="10.1.0.3"),
        flow(2, "1.1.1.2", tx=100, local="10.1.0.3"),
    )
    state.apply(agent.batch(window([WEB, attachment(2, "10.1.0.3")], *flows)))
    return state


def test_rows_merge_peer_by_peer() -> None:
    state = two_rows()
    state.peers.merge(2, 1)
    assert sums(state.peers.of(1)) == {"1.1.1.1": 11, "1.1.1.2": 100}
    assert state.peers.of(2) == []
    assert {row for row, _ in told(state.peers)} == {1}
    state.peers.merge(2, 1)
    state.apply(ScriptedAgent(boot="b").batch(window([WEB], flow(1, "1.1.1.3", tx=3), second=3)))
    assert sums(state.peers.of(1)) == {"1.1.1.1": 11, "1.1.1.2": 100, "1.1.1.3": 3}


def test_a_merge_keeps_the_bound() -> None:
    state = two_rows(peers_per_pod=1)
    assert sums(state.peers.of(2)) == {"1.1.1.2": 100, "other peers": 10}
    state.peers.merge(2, 1)
    assert sums(state.peers.of(1)) == {"1.1.1.1": 1, "other peers": 110}


counted = st.lists(st.integers(0, 2**50), min_size=len(no_counts()), max_size=len(no_counts()))
plain = st.builds(
    Peer,
    address=st.sampled_from(["1.1.1.1", "::", "2001:db8::1", "0.0.0.0"]),
    protocol=st.sampled_from([1, 6, 17]),
    port=st.integers(0, 65535),
    server=st.integers(0, 2),
    kind=st.just(int(Kind.IP)),
    scope=st.sampled_from(Scope),
    rule=st.sampled_from([rule.value for rule in Rule]),
    counts=counted,
    first_us=st.integers(0, 2**40),
    last_us=st.integers(2**40, 2**50),
    name=st.sampled_from(["", "web"]),
    namespace=st.sampled_from(["", "shop"]),
    what=st.sampled_from(["", "pod"]),
    local=st.sampled_from(["", "10.1.0.2", "fd00::2"]),
)
nameless = plain.map(lambda peer: replace(peer, address="", kind=int(Kind.NOT_IP)))
folded = plain.map(lambda peer: Peer("", 0, 0, 0, 0, peer.scope, "", peer.counts, 1, 2, "other peers"))


@given(st.lists(st.one_of(plain, nameless, folded), unique_by=peer_store.peer_key))
def test_peers_survive_the_store(listed: list[Peer]) -> None:
    peers = Peers(Labels(), 0)
    peers.restore([(7, peer) for peer in listed])
    assert sorted(map(repr, peers.of(7))) == sorted(map(repr, listed))
    assert sorted(map(repr, (peer for _, peer in told(peers, every=True)))) == sorted(map(repr, listed))
    assert told(peers) == []
