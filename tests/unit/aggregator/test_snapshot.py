"""What commits write adds up to the totals, and the totals come back from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.aggregator import snapshot
from services.aggregator.directory.static_file import StaticDirectory
from services.aggregator.snapshot import Part
from services.aggregator.totals import Totals
from services.flows import peer_store, traffic
from services.flows.delta import Attachment, InterfaceCounters, Kind, beside
from services.flows.scope import Scope
from tests.support.agents import SECOND, ScriptedAgent, attachment, flow, window
from tests.support.worlds import CONTENT, directory

EPOCH = 7


def raw(value: object) -> bytes:
    """What Redis makes of an argument."""
    return value if isinstance(value, bytes) else str(value).encode()


def put(into: dict[bytes, bytes], pairs: list[Any]) -> None:
    """HSET."""
    into.update({raw(pairs[at]): raw(pairs[at + 1]) for at in range(0, len(pairs), 2)})


@dataclass
class Stored:
    """The hashes of a shard."""

    totals: dict[bytes, bytes] = field(default_factory=dict)
    peers: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    history: dict[bytes, bytes] = field(default_factory=dict)

    def take(self, change: dict[str, Any]) -> None:
        """What the commit's script does."""
        self.take_part(Part(change["totals"], change["peers"]))
        for name in change["totals_gone"]:
            self.totals.pop(raw(name), None)
        for number in change["peers_gone"]:
            self.peers.pop(number, None)
        put(self.history, change["history"])
        for name in change["history_gone"]:
            self.history.pop(raw(name), None)

    def take_part(self, part: Part) -> None:
        """What it does with a part."""
        put(self.totals, part.totals)
        for number, pairs in part.peers.items():
            put(self.peers.setdefault(number, {}), pairs)


def commit(state: Totals, stored: Stored, n: int) -> None:
    """One commit of what changed."""
    stored.take(snapshot.changed(state, snapshot.session_of(state, EPOCH, n, 1), n * SECOND))
    state.committed()


def rewritten(state: Totals, n: int) -> Stored:
    """The store after everything was written again."""
    stored = Stored()
    parts, last = snapshot.whole(state, snapshot.session_of(state, EPOCH, n, 1), n * SECOND)
    for part in parts:
        stored.take_part(part)
    stored.take(last)
    return stored


def restored(stored: Stored, known: StaticDirectory) -> Totals:
    """What a restarted aggregator holds."""
    state = Totals(known, 3)
    snapshot.restore(state, stored.totals)
    for at, value in stored.history.items():
        state.history.restore(int(at), value)
    for number in snapshot.rows_in(stored.totals):
        for peer in peer_store.decode_peers(stored.peers.get(str(number), {})):
            state.peers.restore([(number, peer)])
    state.committed()
    snapshot.restore_points(state, stored.totals)
    return state


def plain(stored: Stored) -> tuple[Any, ...]:
    """Everything but the order in which it was written."""
    return stored.totals, stored.peers, stored.history


sizes = st.integers(0, 1000).map(lambda n: n * 100)
peers = st.sampled_from(["10.1.0.3", "10.2.0.2", "10.1.0.2", "1.1.1.1", "1.1.1.2", "9.9.9.9"])
flows = st.lists(st.tuples(st.sampled_from([1, 2]), peers, sizes, sizes), max_size=4)
# Which of two agents reports, whether it is a new one, and whether it knows the second pod's address yet.
steps = st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans(), flows), max_size=8)


class Agents:
    """Two agents that are replaced now and then."""

    def __init__(self) -> None:
        self._boots = {"a": 0, "b": 0}
        self._agents: dict[str, ScriptedAgent] = {}

    def report(self, state: Totals, second: int, step: tuple[str, bool, bool, list[Any]]) -> None:
        """One window of one of them."""
        name, new, knows, listed = step
        if new or name not in self._agents:
            self._boots[name] += 1
            self._agents[name] = ScriptedAgent(f"node-{name}", f"{name}{self._boots[name]}")
        own = "10.1.0.2" if name == "a" else "10.2.0.2"
        points = [self._point(1, second, own), self._point(2, second, *(["10.1.0.3"] if knows and name == "a" else []))]
        rows = [flow(at, peer, tx=tx, rx=rx) for at, peer, tx, rx in listed]
        # Some of it passes unseen.
        passed = {at: InterfaceCounters(0, 0, rx, rx // 100) for at, _, tx, rx in listed if tx % 300 == 0}
        rows.append(beside(Kind.HIDDEN, passed))
        state.apply(self._agents[name].batch(window(points, *rows, second=second, loss=second)))
        state.settle(second * SECOND)

    def _point(self, number: int, second: int, *addresses: str) -> Attachment:
        counted = 10**9 * second
        counters = InterfaceCounters(counted, counted, counted, counted)
        return replace(attachment(number, *addresses), first_counters=counters)


@given(steps)
def test_commits_add_up_to_the_whole(script: list[Any]) -> None:
    state, stored, agents = Totals(directory(), 3), Stored(), Agents()
    for second, step in enumerate(script):
        agents.report(state, second, step)
        commit(state, stored, second + 1)
    if script:
        assert plain(stored) == plain(rewritten(state, len(script)))


@given(steps, steps)
def test_who_was_restarted_goes_on_like_who_was_not(before: list[Any], after: list[Any]) -> None:
    state, agents = Totals(directory(), 3), Agents()
    for second, step in enumerate(before):
        agents.report(state, second, step)
    again = restored(rewritten(state, len(before)), directory())
    assert not again.dirty
    state.committed()
    agents_again = Agents()
    agents_again._boots, agents_again._agents = dict(agents._boots), dict(agents._agents)
    for second, step in enumerate(after, len(before)):
        agents.report(state, second, step)
        agents_again.report(again, second, step)
        n = second + 1
        assert sorted_tick(again, n) == sorted_tick(state, n)
    assert {k: v.counts for k, v in peers_of(again).items()} == {k: v.counts for k, v in peers_of(state).items()}


def sorted_tick(state: Totals, n: int) -> Any:
    """A tick without what depends on how long a row is known."""
    tick = state.tick(EPOCH, n, 0)
    return replace(tick, changes=tuple(replace(change, window_us=0) for change in tick.changes))


def peers_of(state: Totals) -> dict[tuple[int, bytes], traffic.Peer]:
    """All peers by row and field."""
    return {
        (row, name): peer_store.decode_peer(name, value)
        for row, pairs in state.peers.changed(every=True)
        for name, value in zip(pairs[::2], pairs[1::2], strict=True)
    }


def test_a_restart_with_another_address_file_moves_and_merges_rows() -> None:
    state, agent = Totals(directory(), 3), ScriptedAgent()
    points = [attachment(1, "10.1.0.2"), attachment(2, "172.17.0.2"), attachment(3, "172.17.0.3")]
    rows = [flow(at, "1.1.1.1", tx=10**at) for at in (1, 2, 3)]
    state.apply(agent.batch(window(points, *rows)))
    # The same interfaces, watched by a second agent: two points per row.
    counters = {at: InterfaceCounters(10**at, 10**at // 100, 0, 0) for at in (1, 2, 3)}
    later = [replace(one, first_counters=counters[one.id]) for one in points]
    state.apply(ScriptedAgent(boot="boot-a2").batch(window(later, second=1)))
    stored = rewritten(state, 1)
    more = {
        "172.17.0.2": {"namespace": "shop", "pod": "web", "node": "node-a"},
        "172.17.0.3": {"namespace": "shop", "pod": "late", "node": "node-a"},
    }
    known = StaticDirectory({**CONTENT, "addresses": CONTENT["addresses"] | more}, "addresses.json")
    again = restored(stored, known)
    assert {uid: row.totals[Scope.INTERNET][0] for uid, row in by_uid(again).items()} == {
        "shop/web": 110,
        "shop/late": 1000,
    }
    assert again.tick(EPOCH, 2, 0).removed == (2,)
    [peer] = again.peers.of(1)
    assert peer.counts[0] == 110
    assert {point.row for point in again.points.known.values()} == {1, 3}
    commit(again, stored, 2)
    assert plain(stored) == plain(rewritten(again, 2))


def by_uid(state: Totals) -> dict[str, Any]:
    return {uid: state.rows.by_number[number] for uid, number in state.rows.by_uid.items()}


def test_many_peers_come_in_parts(monkeypatch: Any) -> None:
    monkeypatch.setattr(snapshot, "_PEERS_PER_PART", 2)
    state, agent = Totals(directory(), 0), ScriptedAgent()
    rows = [flow(1, f"1.1.1.{at}", tx=100) for at in range(5)]
    state.apply(agent.batch(window([attachment(1, "10.1.0.2")], *rows)))
    parts, _ = snapshot.whole(state, snapshot.session_of(state, EPOCH, 1, 1), 0)
    assert [sum(map(len, part.peers.values())) // 2 for part in parts] == [2, 2, 1]
    assert len(rewritten(state, 1).peers["1"]) == 5
