"""A small cluster whose agents miss and delay what they like, and what its totals must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from hypothesis import strategies as st

from services.aggregator.directory import Directory
from services.aggregator.once import HOLD_US
from services.aggregator.timeline import Timeline
from services.aggregator.totals import Totals
from services.flows.delta import Attachment, Batch, InterfaceCounters, Rows, Side
from services.flows.traffic import ROW_COUNTERS
from tests.support.agents import SECOND, ScriptedAgent, attachment, flow, window
from tests.support.clocks import HandClock

INTERNET = "1.1.1.1"
SERVICE = "10.96.0.20"
PODS = {"10.1.0.2": "shop/web", "10.1.0.3": "shop/api", "10.2.0.2": "data/db"}
BOTH = frozenset("ab")
ON = {"a": ("10.1.0.2", "10.1.0.3"), "b": ("10.2.0.2",)}
_TX, _RX = ROW_COUNTERS.index("tx_bytes"), ROW_COUNTERS.index("rx_bytes")
PORT, TARGET = 80, 8080
"""Of the Service, and of its backends."""


class Way(Enum):
    """How bytes get from one address to another one."""

    DIRECT = "direct"
    CALL = "a backend is called at its own address"
    ANSWER = "and answers"
    REQUEST = "a backend is called through the Service"
    REPLY = "and replies"


_SERVED = ((Way.ANSWER, Way.CALL), (Way.REPLY, Way.REQUEST))
"""What a backend sends, and what it got for it."""

Traffic = Counter[tuple[str, str, Way]]
"""Bytes by sender, receiver and way."""
Told = tuple[int, int, int, Traffic]
"""By how many seconds Redis's clock is before the machine's, start and end of a window, and what it saw."""


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
    waiting: list[Told] = field(default_factory=list)
    """Windows that were not told yet."""
    strays: list[tuple[ScriptedAgent, dict[str, Attachment], list[Told]]] = field(default_factory=list)
    """Agents that died, and windows of theirs that are still on their way."""

    def pass_by(self, second: int, offset_s: int, traffic: Traffic, *, alive: bool, cut: bool) -> None:
        """One second of traffic, with an agent or without; with `cut` a window ends with it."""
        if not alive:
            # What it had not told dies with it, or is long on its way.
            if self.agent is not None and self.waiting:
                self.strays.append((self.agent, self.points, self.waiting))
            self.agent, self.waiting = None, []
        elif self.agent is None:
            self._start(second)
        for pod, before in self.counters.items():
            tx = sum(size for (sender, _, _), size in traffic.items() if sender == pod)
            rx = sum(size for (_, receiver, _), size in traffic.items() if receiver == pod)
            self.counters[pod] = InterfaceCounters(
                before.tx_bytes + tx, before.tx_packets + tx // 100, before.rx_bytes + rx, before.rx_packets + rx // 100
            )
        start, seen = self.current
        self.current = start, seen + traffic
        if self.agent is not None and cut:
            self.waiting.append((offset_s, start, second + 1, seen + traffic))
            self.current = second + 1, Counter()

    def _start(self, second: int) -> None:
        self.boots += 1
        self.current = second, Counter()
        self.agent = ScriptedAgent(f"node-{self.name}", f"{self.name}-{self.boots}", machine=self.name)
        self.points = {
            pod: replace(attachment(at, pod), first_counters=self.counters[pod])
            for at, pod in enumerate(self.counters, 1)
        }

    def tell(self) -> Iterator[Batch]:
        """The agent's windows arrive."""
        if self.agent is not None and self.waiting:
            yield from self._arrive(self.agent, self.points, self.waiting)
            self.waiting = []

    def tell_late(self) -> Iterator[Batch]:
        """What dead agents' last requests carried arrives after all."""
        for stray in self.strays:
            yield from self._arrive(*stray)
        self.strays = []

    def _arrive(self, agent: ScriptedAgent, points: dict[str, Attachment], told: list[Told]) -> Iterator[Batch]:
        for pod, point in points.items():
            assert point.first_counters is not None
            self.began.setdefault(pod, point.first_counters)
        for offset_s, start, end, traffic in told:
            rows = [row for pod, point in points.items() for row in _rows(point.id, pod, traffic)]
            one = window(list(points.values()), *rows)
            batch = agent.batch(replace(one, start_us=start * SECOND, end_us=end * SECOND))
            yield replace(batch, offset_us=offset_s * SECOND)


@dataclass(frozen=True)
class Second:
    """What happens in one second: traffic, whose agents live, who ends a window, who reports in which order.

    Those `late` are nodes of whose dead agents something arrives afterwards. What arrives `together` is booked together.
    """

    traffic: Traffic
    alive: frozenset[str]
    cuts: frozenset[str]
    tells: list[str]
    late: frozenset[str] = frozenset()
    together: bool = True
    step_s: int = 0
    """By how much Redis's clock is set on at its end."""


def _rows(point: int, pod: str, traffic: Traffic) -> Iterator[Rows]:
    """What a pod's interface shows of some traffic."""

    def row(peer: str, sent: int, got: int, port: int = PORT, server: Side = Side.PEER) -> Iterator[Rows]:
        if sent or got:
            one = flow(point, peer, tx=sent, rx=got, local=pod, port=port)
            one["server"] = server
            yield one

    for peer in (*PODS, INTERNET):
        yield from row(peer, traffic[pod, peer, Way.DIRECT], traffic[peer, pod, Way.DIRECT])
        yield from row(peer, traffic[pod, peer, Way.CALL], traffic[peer, pod, Way.ANSWER], TARGET)
        served = [(traffic[pod, peer, way], traffic[peer, pod, back]) for way, back in _SERVED]
        yield from row(peer, sum(sent for sent, _ in served), sum(got for _, got in served), TARGET, Side.LOCAL)
    asked = sum(traffic[pod, peer, Way.REQUEST] for peer in PODS)
    yield from row(SERVICE, asked, sum(traffic[peer, pod, Way.REPLY] for peer in PODS))


sizes = st.integers(1, 99).map(lambda n: n * 100)
"""Bytes in whole packets."""


def seconds(traffic: st.SearchStrategy[Traffic], steps: Sequence[int] = (0,)) -> st.SearchStrategy[Second]:
    """Any second with such traffic, and a step of Redis's clock."""
    nodes = st.sampled_from(["a", "b"])
    return st.builds(
        Second,
        traffic=traffic,
        alive=st.frozensets(nodes),
        cuts=st.frozensets(nodes),
        tells=st.lists(nodes, unique=True),
        late=st.frozensets(nodes),
        together=st.booleans(),
        step_s=st.sampled_from(steps),
    )


@dataclass
class Play:
    """The totals of such a cluster, whose Redis's clock is `offset_s` before that of its machines."""

    directory: Directory
    offset_s: int = 1_000_000
    sent: int = 0
    waiting: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = Totals(self.directory, 1000)
        self.nodes = {
            name: Node(name, {pod: InterfaceCounters(0, 0, 0, 0) for pod in pods}) for name, pods in ON.items()
        }
        self.clock = HandClock(0)
        self.timeline = Timeline(self.clock)
        self.state.backing.refresh(self.offset_s * SECOND)

    def second(self, at: int, second: Second) -> None:
        """What happens in one second, and a commit at its end."""
        self.sent += sum(second.traffic.values())
        for name, node in self.nodes.items():
            node.pass_by(at, self.offset_s, second.traffic, alive=name in second.alive, cut=name in second.cuts)
        arrived = [batch for name in second.tells for batch in self.nodes[name].tell()]
        arrived += [batch for name in sorted(second.late) for batch in self.nodes[name].tell_late()]
        self.clock.pass_s(1)
        now_us = self.clock.monotonic_us()
        self.timeline.read(now_us + self.offset_s * SECOND, now_us)
        for batch in arrived:
            placed = self.timeline.place(batch, self._shift)
            self.waiting.append(placed)
            if not second.together:
                self._book()
        self._book()
        self.state.settle(self.timeline.about_now_us())
        assert counted(self.state) <= self.sent
        self.offset_s += second.step_s

    def _book(self) -> None:
        waiting, self.waiting = self.waiting, []
        self.state.apply(*waiting)

    def _shift(self, step_us: int) -> None:
        self._book()
        self.state.shift(step_us)


def play(script: list[Second], directory: Directory) -> tuple[Totals, dict[str, Node], int]:
    """The totals after `script`; at the end all agents live and report, and nobody is waited for."""
    one = Play(directory)
    for at, second in enumerate([*script, *[Second(Counter(), BOTH, BOTH, ["a", "b"], BOTH)] * 2]):
        one.second(at, second)
    one.state.settle(one.timeline.about_now_us() + HOLD_US)
    assert one.state.pending_bytes == 0
    return one.state, one.nodes, one.sent


def counted(state: Totals) -> int:
    """Bytes in the cluster's totals."""
    return sum(counts[_TX] + counts[_RX] for counts in state.cluster.values())


def as_the_interfaces_counted(state: Totals, nodes: dict[str, Node]) -> bool:
    """Whether each pod has what its interface counted since the first report, and so have its peers together."""
    for node in nodes.values():
        for pod, now in node.counters.items():
            row = state.rows.by_number[state.rows.by_uid[PODS[pod]]]
            began = node.began[pod]
            truth = now.tx_bytes - began.tx_bytes, now.rx_bytes - began.rx_bytes
            peers = [peer.counts for peer in state.peers.of(row.number)]
            for counts in (list(row.totals.values()), peers):
                if tuple(sum(one[at] for one in counts) for at in (_TX, _RX)) != truth:
                    return False
    return True
