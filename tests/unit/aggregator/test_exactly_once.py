"""Whatever agents miss, and whenever they report: each byte is in the totals once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.aggregator.once import HOLD_US
from services.aggregator.totals import Totals
from services.flows.delta import Attachment, InterfaceCounters
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS
from tests.support.agents import SECOND, ScriptedAgent, attachment, flow, window
from tests.support.worlds import directory

INTERNET = "1.1.1.1"
PODS = {"10.1.0.2": "shop/web", "10.1.0.3": "shop/api", "10.2.0.2": "data/db"}
BOTH = frozenset("ab")
ON = {"a": ("10.1.0.2", "10.1.0.3"), "b": ("10.2.0.2",)}
_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")

Traffic = Counter[tuple[str, str]]
"""Bytes by sender and receiver."""


@dataclass
class Node:
    """The interfaces of a node's pods, and the agents that watch them one after the other."""

    name: str
    counters: dict[str, InterfaceCounters]
    agent: ScriptedAgent | None = None
    points: dict[str, Attachment] = field(default_factory=dict)
    boots: int = 0
    began: dict[str, InterfaceCounters] = field(default_factory=dict)
    """The interfaces' counters when the first agent that told anything began."""
    current: tuple[int, Traffic] = (0, Counter())
    """When the current window began, and what it has seen."""
    waiting: list[tuple[int, int, Traffic]] = field(default_factory=list)
    """Start and end of windows that were not told yet, and what they saw."""

    def pass_by(self, second: int, traffic: Traffic, *, alive: bool, cut: bool) -> None:
        """One second of traffic, with an agent or without; with `cut` a window ends with it."""
        if not alive:
            # What it had not told dies with it.
            self.agent, self.waiting = None, []
        elif self.agent is None:
            self._start(second)
        for pod, before in self.counters.items():
            tx = sum(size for (sender, _), size in traffic.items() if sender == pod)
            rx = sum(size for (_, receiver), size in traffic.items() if receiver == pod)
            self.counters[pod] = InterfaceCounters(
                before.tx_bytes + tx, before.tx_packets + tx // 100, before.rx_bytes + rx, before.rx_packets + rx // 100
            )
        start, seen = self.current
        self.current = start, seen + traffic
        if self.agent is not None and cut:
            self.waiting.append((start, second + 1, seen + traffic))
            self.current = second + 1, Counter()

    def _start(self, second: int) -> None:
        self.boots += 1
        self.current = second, Counter()
        self.agent = ScriptedAgent(f"node-{self.name}", f"{self.name}-{self.boots}")
        self.points = {
            pod: replace(attachment(at, pod), first_counters=self.counters[pod])
            for at, pod in enumerate(self.counters, 1)
        }

    def tell(self, state: Totals) -> None:
        """The agent's windows arrive."""
        if self.agent is None or not self.waiting:
            return
        for pod, point in self.points.items():
            assert point.first_counters is not None
            self.began.setdefault(pod, point.first_counters)
        for start, end, traffic in self.waiting:
            rows = [
                flow(point.id, peer, tx=traffic[pod, peer], rx=traffic[peer, pod], local=pod)
                for pod, point in self.points.items()
                for peer in (*PODS, INTERNET)
                if traffic[pod, peer] or traffic[peer, pod]
            ]
            one = window(list(self.points.values()), *rows)
            state.apply(self.agent.batch(replace(one, start_us=start * SECOND, end_us=end * SECOND)))
        self.waiting = []


@dataclass(frozen=True)
class Second:
    """What happens in one second: traffic, whose agents live, who ends a window, who reports in which order."""

    traffic: Traffic
    alive: frozenset[str]
    cuts: frozenset[str]
    tells: list[str]


ends = st.sampled_from([*PODS, INTERNET])
sizes = st.integers(1, 99).map(lambda n: n * 100)
seconds = st.builds(
    Second,
    # Not from a pod to itself: of a gap it is not known that both its ways are the same bytes.
    traffic=st.dictionaries(st.tuples(ends, ends).filter(lambda pair: pair[0] != pair[1]), sizes, max_size=5).map(
        Counter
    ),
    alive=st.frozensets(st.sampled_from(["a", "b"])),
    cuts=st.frozensets(st.sampled_from(["a", "b"])),
    tells=st.lists(st.sampled_from(["a", "b"]), unique=True),
)
scripts = st.lists(seconds, max_size=12)


def play(script: list[Second]) -> tuple[Totals, dict[str, Node], int]:
    """The totals after `script`; at the end all agents live and report, and nobody is waited for."""
    state = Totals(directory(), 1000)
    nodes = {name: Node(name, {pod: InterfaceCounters(0, 0, 0, 0) for pod in pods}) for name, pods in ON.items()}
    sent = 0
    for at, second in enumerate([*script, *[Second(Counter(), BOTH, BOTH, ["a", "b"])] * 2]):
        sent += sum(second.traffic.values())
        for name, node in nodes.items():
            node.pass_by(at, second.traffic, alive=name in second.alive, cut=name in second.cuts)
        for name in second.tells:
            nodes[name].tell(state)
        state.settle((at + 1) * SECOND)
        assert counted(state) <= sent
    state.settle((len(script) + 2) * SECOND + HOLD_US)
    assert state.pending_bytes == 0
    return state, nodes, sent


def counted(state: Totals) -> int:
    """Bytes in the cluster's totals."""
    return sum(counts[_TX] + counts[_RX] for counts in state.cluster.values())


@settings(max_examples=200)
@given(scripts)
def test_each_pod_has_what_its_interface_counted(script: list[Second]) -> None:
    state, nodes, _ = play(script)
    for node in nodes.values():
        for pod, now in node.counters.items():
            row = state.rows.by_number[state.rows.by_uid[PODS[pod]]]
            began = node.began[pod]
            assert sum(counts[_TX] for counts in row.totals.values()) == now.tx_bytes - began.tx_bytes
            assert sum(counts[_RX] for counts in row.totals.values()) == now.rx_bytes - began.rx_bytes
            peers = state.peers.of(row.number)
            assert sum(peer.counts[_TX] for peer in peers) == now.tx_bytes - began.tx_bytes


@settings(max_examples=200)
@given(scripts)
def test_no_byte_is_in_the_cluster_twice(script: list[Second]) -> None:
    state, _, sent = play(script)
    assert counted(state) <= sent


@settings(max_examples=200)
@given(scripts)
def test_every_byte_is_in_the_cluster_once_where_agents_live(script: list[Second]) -> None:
    state, _, sent = play([replace(second, alive=BOTH, cuts=BOTH) for second in script])
    assert counted(state) == sent
    assert Scope.UNKNOWN not in state.cluster


@settings(max_examples=200)
@given(scripts)
def test_nothing_overlaps_where_agents_live_and_report_in_time(script: list[Second]) -> None:
    # In time is less than `HOLD_US`; and of an agent that was never heard nobody knows that it is there.
    told = [Second(Counter(), BOTH, BOTH, [*"ab"]), *script[:3]]
    state, _, sent = play([replace(second, alive=BOTH, tells=[*second.tells, *"ab"]) for second in told])
    assert (counted(state), state.overlap_bytes) == (sent, 0)
