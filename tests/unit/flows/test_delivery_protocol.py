"""Both ends of the delivery protocol over a store that fails: each batch counts once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.flows.delivery import NOTHING_READ, Frozen, Inbox, Outbox, StreamId, Verdict
from services.flows.delta import FLOW, Attachment, Window

AGENTS: Final = st.integers(0, 1)
_MOST: Final = 1 << 40
"""Large enough that a window lost and another one counted twice never look like the truth."""


@dataclass(frozen=True)
class Entry:
    """An entry of the stream."""

    id: StreamId
    boot: str
    batch: Frozen
    confirmed: int


@dataclass
class Memory:
    """What a session is: sums by boot, numbers applied, and where the stream was read to."""

    session: int
    sums: dict[str, int] = field(default_factory=dict)
    inbox: Inbox = field(default_factory=Inbox)
    cursor: StreamId = NOTHING_READ
    booked: list[tuple[str, int]] = field(default_factory=list)

    def copy(self) -> Memory:
        applied = Inbox(dict(self.inbox.applied))
        return replace(self, sums=dict(self.sums), inbox=applied, booked=list(self.booked))


@dataclass
class Agent:
    """An agent, and what its pods sent."""

    boot: str
    values: random.Random
    sent: dict[int, int] = field(default_factory=dict)
    """By batch."""
    seen: int = 0
    box: Outbox = field(init=False)

    def __post_init__(self) -> None:
        self.box = Outbox(self._encode, batch_rows=3)

    def window(self) -> None:
        rows = np.zeros(1, FLOW)
        rows["attachment"], rows["tx_bytes"] = 1, self.values.randrange(1, _MOST)
        self.seen += int(rows["tx_bytes"][0])
        at = len(self.sent) * 1_000_000
        self.box.add(Window(at, at + 1_000_000, (Attachment(1, "veth0", 3, "socket", 0),), rows))

    def _encode(self, seq: int, windows: tuple[Window, ...]) -> bytes:
        assert seq not in self.sent, "a number is given once"
        self.sent[seq] = sum(int(one.flows["tx_bytes"].sum()) for one in windows)
        return f"{self.boot} {seq} {self.sent[seq]}".encode()


class Protocol(RuleBasedStateMachine):
    """Two agents, an aggregator and a store, each of which may lose its memory at any moment."""

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        self.values = random.Random(seed)
        self.now = self.latest = 1
        self.boots = 0
        self.sessions = 0
        self.stream: list[Entry] = []
        self.late: list[Callable[[], StreamId]] = []
        self.stored: Memory | None = None
        self.memory: Memory | None = None
        self.sleeper: Memory | None = None
        """A stopped aggregator, whose shard another one took over."""
        self.agents = [self._boot(), self._boot()]
        self.excused: dict[str, int] = {}
        """Up to which number an agent had seen confirmed what was lost together with its session."""

    def _boot(self) -> Agent:
        self.boots += 1
        return Agent(f"boot{self.boots}", self.values)

    # The agents.

    @rule(at=AGENTS)
    def a_window_ends(self, at: int) -> None:
        self.agents[at].window()

    @rule(at=AGENTS, fate=st.sampled_from(["arrives", "no reply", "lost", "late"]), data=st.data())
    def an_agent_flushes(self, at: int, fate: str, data: st.DataObject) -> None:
        """One round; at a batch that the draw chooses, the connection breaks in this way."""
        agent = self.agents[at]
        self._confirm(agent)
        breaks_at = data.draw(st.integers(0, 3))
        sent = 0
        for batch in agent.box.due():
            if not self._send(agent, batch, fate if sent == breaks_at else "arrives"):
                return
            sent += 1
        while (frozen := agent.box.freeze()) is not None:
            if not self._send(agent, frozen, fate if sent == breaks_at else "arrives"):
                return
            sent += 1

    @rule(at=AGENTS)
    def an_agent_dies(self, at: int) -> None:
        self.agents[at] = self._boot()

    def _confirm(self, agent: Agent) -> None:
        applied = self.stored.inbox.applied.get(agent.boot) if self.stored else None
        if applied is not None:
            agent.box.confirm(applied)
        agent.box.read(self.stored.cursor if self.stored else NOTHING_READ)

    def _send(self, agent: Agent, batch: Frozen, fate: str) -> bool:
        """Whether the agent heard a reply."""
        agent.box.sending(batch)
        confirmed = agent.box.confirmed

        def arrive() -> StreamId:
            self.now += 1
            self.stream.append(Entry((self.now, 0), agent.boot, batch, confirmed))
            return self.now, 0

        if fate == "late":
            self.late.append(arrive)
        elif fate != "lost":
            entry = arrive()
            if fate == "arrives":
                agent.box.arrived(batch, entry)
                return True
        return False

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def what_was_long_on_its_way_arrives(self, data: st.DataObject) -> None:
        self.late.pop(data.draw(st.integers(0, len(self.late) - 1)))()

    # The aggregator.

    @precondition(lambda self: self.memory is None)
    @rule()
    def the_aggregator_starts(self) -> None:
        if self.stored is not None:
            self.memory = self.stored.copy()
            return
        self.sessions += 1
        self.memory = Memory(self.sessions)
        self._excuse()
        self._commit()

    @precondition(lambda self: self.memory is not None and not self._lost())
    @rule()
    def another_takes_over(self) -> None:
        assert self.stored is not None
        self.sleeper, self.memory = self.memory, self.stored.copy()

    @precondition(lambda self: self.sleeper is not None)
    @rule()
    def the_stopped_one_goes_on(self) -> None:
        """It ends where the shard has an owner or other totals; it knows no better where both are lost."""
        if self.memory is None and self.stored is None:
            self.memory = self.sleeper
            self._excuse()
            self._rewrite()
        self.sleeper = None

    def _excuse(self) -> None:
        """What these totals lost together with their store is all that agents saw confirmed."""
        for agent in self.agents:
            self.excused[agent.boot] = agent.box.confirmed

    @precondition(lambda self: self.memory is not None)
    @rule(count=st.integers(1, 6), commits=st.booleans())
    def it_reads(self, count: int, commits: bool) -> None:
        """And dies before it has committed, or its commit fails, unless `commits`."""
        memory = self._memory()
        if self._lost():
            self._rewrite()
        for entry in [one for one in self.stream if one.id > memory.cursor][:count]:
            memory.cursor = entry.id
            memory.inbox.skip(entry.boot, entry.confirmed)
            if memory.inbox.judge(entry.boot, entry.batch.seq, entry.confirmed) is Verdict.APPLY:
                memory.inbox.apply(entry.boot, entry.batch.seq)
                boot, seq, value = entry.batch.payload.decode().split()
                assert (boot, int(seq)) == (entry.boot, entry.batch.seq)
                memory.sums[boot] = memory.sums.get(boot, 0) + int(value)
                memory.booked.append((boot, int(seq)))
        if commits:
            self._commit()

    @precondition(lambda self: self.memory is not None)
    @rule()
    def it_finds_nothing_to_read(self) -> None:
        if self._lost():
            self._rewrite()
        memory = self._memory()
        if not any(one.id > memory.cursor for one in self.stream):
            self.now += 1
            memory.cursor = max(memory.cursor, (self.now - 1, 0))
            self._commit()

    @precondition(lambda self: self.memory is not None)
    @rule()
    def the_aggregator_dies(self) -> None:
        self.memory = None

    @rule(step_back=st.booleans())
    def the_store_is_lost(self, step_back: bool) -> None:
        """The next one's clock may be an earlier one."""
        self.stored = None
        self.stream = []
        self.latest = max(self.latest, self.now)
        if step_back:
            self.now = 1

    @rule(windows=st.integers(0, 3))
    def all_is_well_for_a_while(self, windows: int) -> None:
        for agent in self.agents:
            for _ in range(windows):
                agent.window()
            self._flush(agent)
        if self.memory is not None:
            self.it_reads(1000, commits=True)
            self.it_finds_nothing_to_read()
            for agent in self.agents:
                self._confirm(agent)

    @rule(both=st.booleans())
    def store_and_aggregator_are_lost(self, both: bool) -> None:
        """What is left is a stopped aggregator that knows older totals, or none."""
        self.memory = None
        self.stored, self.stream = None, []
        if both:
            self.sleeper = None

    @precondition(lambda self: self.stored is not None)
    @rule(data=st.data())
    def the_full_store_is_trimmed(self, data: st.DataObject) -> None:
        """What was read and not committed goes: agents still have it."""
        if self.memory is not None and data.draw(st.booleans()):
            cursor = self.memory.cursor
            self.stream = [one for one in self.stream if one.id > cursor]

    def _memory(self) -> Memory:
        assert self.memory is not None
        return self.memory

    def _lost(self) -> bool:
        return self.stored is None or self.stored.session != self._memory().session

    def _rewrite(self) -> None:
        self._memory().cursor = NOTHING_READ
        self._commit()

    def _commit(self) -> None:
        memory = self._memory()
        if self._lost() and memory.cursor != NOTHING_READ:
            memory.cursor = NOTHING_READ
        self.stored = memory.copy()
        self.stream = [one for one in self.stream if one.id > memory.cursor]

    # What holds.

    @invariant()
    def nothing_counts_twice(self) -> None:
        for one in (self.memory, self.stored):
            if one is not None:
                assert len(one.booked) == len(set(one.booked))

    @invariant()
    def agents_hold_no_more_than_they_may(self) -> None:
        for agent in self.agents:
            assert len(agent.box.frozen) <= 4
            assert len(agent.box.waiting) <= 16

    def teardown(self) -> None:
        """When everything works again all that living agents saw is in the totals."""
        if not hasattr(self, "agents"):
            return
        # An agent whose entry was lost before anybody had read anything cannot tell it from one
        # that is still to be read: it waits until the clock of the new store is where the old one's was.
        self.now = max(self.now, self.latest)
        for _ in range(8):
            if self.memory is None:
                self.the_aggregator_starts()
            for agent in self.agents:
                self._flush(agent)
            self.it_reads(1000, commits=True)
            self.it_finds_nothing_to_read()
        assert self.stored is not None
        for agent in self.agents:
            self._confirm(agent)
            assert not agent.box.frozen, (agent.box.frozen, self.stored.inbox.applied)
            assert not agent.box.waiting
            assert agent.seen == sum(agent.sent.values())
            booked = {seq for boot, seq in self.stored.booked if boot == agent.boot}
            gone = self.excused.get(agent.boot, 0)
            assert booked | set(range(1, gone + 1)) >= set(agent.sent)
            assert self.stored.sums.get(agent.boot, 0) == sum(agent.sent[seq] for seq in booked)

    def _flush(self, agent: Agent) -> None:
        self._confirm(agent)
        for batch in agent.box.due():
            self._send(agent, batch, "arrives")
        while (frozen := agent.box.freeze()) is not None:
            self._send(agent, frozen, "arrives")


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=250, stateful_step_count=60, deadline=None)
