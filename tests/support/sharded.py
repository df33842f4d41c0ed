"""The small cluster of `exactly_once`, with each node in a shard of its own, whose letters a ledger reads."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from services.aggregator import letter
from services.aggregator.cluster_ledger import ClusterLedger
from services.aggregator.decisions import LEAD_US, Decided
from services.aggregator.directory import Directory
from services.aggregator.letters import Letters, Sender
from services.aggregator.once import HOLD_US
from services.aggregator.timeline import Timeline
from services.aggregator.totals import Totals
from services.flows.delta import Batch, InterfaceCounters
from services.flows.traffic import ByScope, add_scopes
from tests.support.agents import SECOND
from tests.support.clocks import HandClock
from tests.support.exactly_once import BOTH, ON, Node, Second


@dataclass
class One:
    """An aggregator of a shard, or of the ledger, by a clock of its machine."""

    state: Totals
    clock: HandClock
    offset_s: int
    timeline: Timeline = field(init=False)

    def __post_init__(self) -> None:
        self.timeline = Timeline(self.clock)

    def read_clock(self, offset_s: int) -> None:
        """It asks Redis for the time."""
        now_us = self.clock.monotonic_us()
        self.timeline.read(now_us + offset_s * SECOND, now_us)


@dataclass
class Shards:
    """The totals of such a cluster; `behind` says by how many seconds a shard's letters are late."""

    directories: Callable[[], Directory]
    offset_s: int = 1_000_000
    sent: int = 0
    outage: frozenset[int] = frozenset()
    """The seconds in which the ledger is away."""
    began_us: int = 0

    def __post_init__(self) -> None:
        self.clock = HandClock(0)
        self.ledger = One(ClusterLedger(self.directories(), 0, shards=len(ON)), self.clock, self.offset_s)
        self.shards = {
            name: One(Totals(self.directories(), 1000, shards=len(ON)), self.clock, self.offset_s) for name in ON
        }
        self.nodes = {
            name: Node(name, {pod: InterfaceCounters(0, 0, 0, 0) for pod in pods}) for name, pods in ON.items()
        }
        self.post: deque[bytes] = deque()
        # What was decided before is in force.
        self.book.decisions.refresh(self.offset_s * SECOND - 2 * LEAD_US)

    @property
    def book(self) -> ClusterLedger:
        """The ledger."""
        assert isinstance(self.ledger.state, ClusterLedger)
        return self.ledger.state

    @property
    def cluster(self) -> ByScope:
        """The cluster's totals: the ledger's and what the shards counted alone."""
        summed: ByScope = {}
        for one in (self.ledger, *self.shards.values()):
            add_scopes(summed, one.state.cluster)
        return summed

    @property
    def overlap_bytes(self) -> int:
        """Bytes that they had from the other end already."""
        return sum(one.state.overlap_bytes for one in (self.ledger, *self.shards.values()))

    @property
    def pending_bytes(self) -> int:
        """Bytes that are not decided yet."""
        return sum(one.state.pending_bytes for one in (self.ledger, *self.shards.values()))

    def second(self, at: int, second: Second) -> None:
        """What happens in one second, and a commit of all at its end."""
        self.sent += sum(second.traffic.values())
        for name, node in self.nodes.items():
            node.pass_by(at, self.offset_s, second.traffic, alive=name in second.alive, cut=name in second.cuts)
        arrived = [(name, batch) for name in second.tells for batch in self.nodes[name].tell()]
        arrived += [(name, batch) for name in sorted(second.late) for batch in self.nodes[name].tell_late()]
        self.clock.pass_s(1)
        for one in (self.ledger, *self.shards.values()):
            one.read_clock(self.offset_s)
        for name, shard in self.shards.items():
            self._shard(name, shard, [batch for told, batch in arrived if told == name], together=second.together)
        if at not in self.outage:
            self.read_letters()
        assert counted(self.cluster) <= self.sent
        self.offset_s += second.step_s

    def read_letters(self) -> None:
        """The ledger reads what was written, and commits."""
        while self.post:
            opened = letter.decode(self.book.names, self.post.popleft())
            self.book.apply(self.ledger.timeline.place(opened, self.book.shift))
            for shard in self.shards.values():
                accounts = _letters(shard)
                if accounts.boot == opened.boot:
                    accounts.confirm(opened.seq)
        self.book.settle(self.ledger.timeline.about_now_us())
        self.book.committed()

    def commit(self, shard: One, number: int) -> None:
        """A shard's commit; what was sealed is written."""
        accounts = _letters(shard)
        shard.state.settle(shard.timeline.about_now_us())
        written = {one.seq for one in accounts.sent.frozen}
        accounts.seal(Sender(number, "machine", shard.timeline.offset, shard.timeline.about_now_us()))
        shard.state.committed()
        self.post += [one.payload for one in accounts.due() if one.seq not in written]

    def _shard(self, name: str, shard: One, batches: list[Batch], *, together: bool) -> None:
        decided = shard.state.backing
        assert isinstance(decided, Decided)
        decided.changes = {service: tuple(at) for service, at in self.book.decisions.changes.items()}
        _letters(shard).told_by(self.book.session)
        waiting: list[Batch] = []

        def book() -> None:
            shard.state.apply(*waiting)
            waiting.clear()

        def shift(step_us: int) -> None:
            book()
            shard.state.shift(step_us)

        for batch in batches:
            waiting.append(shard.timeline.place(batch, shift))
            if not together:
                book()
        book()
        self.commit(shard, [*ON].index(name))


def play(script: list[Second], directories: Callable[[], Directory], outage: frozenset[int] = frozenset()) -> Shards:
    """The totals after `script`; at the end all agents live and report, and nobody is waited for."""
    one = Shards(directories, outage=outage)
    seconds = [*script, *[Second(Counter(), BOTH, BOTH, ["a", "b"], BOTH)] * 2]
    for at, second in enumerate(seconds):
        one.second(at, second)
    for _ in range(2):
        for number, shard in enumerate(one.shards.values()):
            one.commit(shard, number)
        one.read_letters()
    one.book.settle(one.ledger.timeline.about_now_us() + HOLD_US)
    assert one.pending_bytes == 0
    return one


def counted(cluster: ByScope) -> int:
    """Bytes in the cluster's totals."""
    return sum(counts[0] + counts[1] for counts in cluster.values())


def _letters(one: One) -> Letters:
    assert isinstance(one.state.accounts, Letters)
    return one.state.accounts
