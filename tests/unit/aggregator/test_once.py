"""Which end of a pair of pods counts for the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from services.aggregator import once as module
from services.aggregator.names import Names
from services.aggregator.once import HOLD_US, Amount, Once
from services.aggregator.pairs import Pairs
from services.aggregator.sights import NOTHING, PART, WHOLE
from services.aggregator.sums import Mask, Numbers, table_of
from services.flows.scope import SCOPES, Scope
from services.flows.traffic import ROW_COUNTERS, no_counts
from tests.support.agents import SECOND

NAMES = Names()
NONE = Amount(0, 0, 0, 0)


@dataclass
class Told:
    """What agents are said to have told."""

    seen: dict[str, int] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    gaps: set[str] = field(default_factory=set)
    never: set[str] = field(default_factory=set)

    def sights(self, uids: Sequence[str]) -> Any:
        return Asked(self, list(uids))


@dataclass
class Asked:
    """The same, as it is asked."""

    told: Told
    uids: list[str]

    def seen(self, which: Numbers, starts: Numbers, ends: Numbers, sent: Mask) -> Numbers:
        assert (starts <= ends).all()
        assert sent.all()
        return np.array([self.told.seen.get(self.uids[at], NOTHING) for at in which])

    def expected(self, which: Numbers, ends: Numbers) -> Mask:
        assert (ends > 0).all()
        return self._among(which, self.told.awaited)

    def unheard(self, which: Numbers) -> Mask:
        return self._among(which, self.told.never)

    def in_gap(self, which: Numbers, starts: Numbers, ends: Numbers) -> Mask:
        assert (starts <= ends).all()
        return self._among(which, self.told.gaps)

    def _among(self, which: Numbers, some: set[str]) -> Mask:
        return np.array([self.uids[at] in some for at in which], np.bool_)


def told(mine: str, other: str, size: int, packets: int, *, sent: bool, times: tuple[int, int]) -> Pairs:
    """What the pod `mine` sent to another one, or received from it."""
    counts, way = no_counts(), "tx" if sent else "rx"
    counts[ROW_COUNTERS.index(f"{way}_bytes")], counts[ROW_COUNTERS.index(f"{way}_packets")] = size, packets
    numbers = [NAMES.number(mine), NAMES.number(other), SCOPES.index(Scope.SAME_ZONE)]
    start, end, me, them, scope = (np.array([number], np.int64) for number in (*times, *numbers))
    return Pairs(NAMES, start, end, me, them, scope, table_of([counts]))


def once_of(told: Told) -> Once:
    """Once, over what agents told."""
    return Once(told, NAMES)


def held(once: Once) -> list[tuple[str, str, Scope, list[int]]]:
    """What waits."""
    return list(once.held.entries())


def receipt(size: int = 900, *, second: int = 0, sender: str = "db", receiver: str = "web") -> Pairs:
    """`receiver` got `size` bytes from `sender` in one second."""
    times = second * SECOND, (second + 1) * SECOND
    return told(receiver, sender, size, size // 100, sent=False, times=times)


def settled(once: Once, now_us: int = SECOND) -> int:
    """Bytes that are counted at the receiver now."""
    return sum(counts[1] for counts in once.settle(now_us).values())


def send(once: Once, size: int = 900, *, second: int = 0, sender: str = "db", receiver: str = "web") -> bool:
    """Whether what `sender` sent in one second is counted."""
    times = second * SECOND, (second + 1) * SECOND
    return sends(once, sender, receiver, times, (size, size // 100))


def sends(once: Once, sender: str, receiver: str, times: tuple[int, int], size: tuple[int, int]) -> bool:
    """The same for any window, and any bytes and packets."""
    return bool(once.send(told(sender, receiver, *size, sent=True, times=times))[0])


@pytest.mark.parametrize(
    ("seen", "awaited", "counted", "overlap", "waiting"),
    [
        (WHOLE, False, 0, 0, 0),
        (WHOLE, True, 0, 0, 0),
        (PART, False, 0, 900, 0),
        (PART, True, 0, 0, 1),
        (NOTHING, False, 900, 0, 0),
        (NOTHING, True, 0, 0, 1),
    ],
)
def test_a_receipt_is_counted_only_where_its_sender_was_not_seen(
    seen: int, awaited: bool, counted: int, overlap: int, waiting: int
) -> None:
    once = once_of(Told({"db": seen}, {"db"} if awaited else set()))
    once.receive(receipt())
    assert (settled(once), once.overlap_bytes, len(held(once))) == (counted, overlap, waiting)


def test_nobody_is_waited_for_longer_than_the_hold() -> None:
    once = once_of(Told(awaited={"db"}))
    once.receive(receipt())
    assert settled(once, SECOND + HOLD_US - 1) == 0
    assert settled(once, SECOND + HOLD_US) == 900


def test_what_was_counted_at_the_receiver_is_not_counted_when_its_sender_tells_it() -> None:
    once = once_of(Told())
    for second in (0, 1, 5):
        once.receive(receipt(second=second))
        settled(once)
    assert not send(once, 800, second=1)
    assert not send(once, 70, second=5)
    assert once.overlap_bytes == 870
    assert send(once, second=2)
    assert send(once, second=1, receiver="api")
    assert send(once, second=1, sender="web", receiver="db")
    assert len(once.settled["db", "web", False]) == 2


def test_beyond_the_bound_the_oldest_receipts_wait_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_HELD", 2)
    once = once_of(Told(awaited={"db"}))
    for size in (1, 10, 100, 1000):
        once.receive(receipt(size))
    assert settled(once) == 11
    assert [counts[1] for *_, counts in held(once)] == [100, 1000]


def test_beyond_the_bound_the_oldest_spans_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SETTLED", 4)
    once = once_of(Told())
    for second in range(5):
        once.receive(receipt(second=second, receiver=f"pod-{second}"))
    settled(once)
    assert list(once.settled) == [("db", "pod-3", False), ("db", "pod-4", False)]


def test_a_gap_is_less_what_receivers_counted_of_it() -> None:
    once = once_of(Told())
    for second, receiver in ((0, "web"), (3, "web"), (4, "api")):
        once.receive(receipt(second=second, receiver=receiver))
    once.receive(receipt(second=3, sender="other"))
    settled(once)
    assert once.counted_elsewhere("db", 2 * SECOND, 9 * SECOND) == (Amount(3 * SECOND, 5 * SECOND, 1800, 18), NONE)
    assert once.counted_elsewhere("db", 2 * SECOND, 4 * SECOND)[0] == Amount(3 * SECOND, 4 * SECOND, 900, 9)


def test_a_gap_is_less_what_senders_counted_of_it() -> None:
    agents = Told(awaited={"web"})
    once = once_of(agents)
    assert send(once, 100, second=3)
    assert send(once, 700, second=3, sender="api")
    assert send(once, 500, second=4)
    assert send(once, 300, second=4, receiver="elsewhere")
    assert once.counted_elsewhere("web", 3 * SECOND, 9 * SECOND) == (NONE, Amount(3 * SECOND, 5 * SECOND, 1300, 13))
    assert once.deliveries == {}
    agents.gaps = {"web"}
    assert not send(once, 40, second=4)
    assert once.overlap_bytes == 40


def test_what_was_delivered_after_a_gap_is_left_for_the_next_one() -> None:
    once = once_of(Told(awaited={"web"}))
    assert send(once, 100, second=1)
    assert send(once, 700, second=3)
    assert once.counted_elsewhere("web", SECOND, 3 * SECOND) == (NONE, Amount(SECOND, 2 * SECOND, 100, 1))
    assert once.counted_elsewhere("web", 3 * SECOND, 4 * SECOND)[1].bytes == 700


def test_deliveries_that_their_receiver_reported_are_forgotten() -> None:
    agents = Told(awaited={"web"})
    once = once_of(agents)
    send(once)
    settled(once)
    assert "web" in once.deliveries
    agents.awaited.clear()
    settled(once, 2 * SECOND)
    assert once.deliveries == {}


def test_deliveries_beyond_the_bound_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_DELIVERIES", 2)
    once = once_of(Told(awaited={"web"}))
    for second in range(4):
        send(once, 100, second=second)
    assert once.deliveries["web"] == [Amount(0, SECOND, 100, 1), Amount(SECOND, 4 * SECOND, 300, 3)]


def test_a_pod_to_itself_is_never_a_delivery() -> None:
    once = once_of(Told(awaited={"web"}))
    assert send(once, sender="web")
    assert once.deliveries == {}


def test_everything_follows_a_pod_that_gets_its_name() -> None:
    agents = Told(awaited={"interface", "db"})
    once = once_of(agents)
    once.receive(receipt(sender="interface"))
    once.receive(receipt(sender="unseen", receiver="interface"))
    send(once, receiver="interface")
    settled(once)
    once.rename("interface", "pod")
    assert [entry[:2] for entry in held(once)] == [("web", "pod")]
    assert list(once.settled) == [("unseen", "pod", False)]
    assert list(once.deliveries) == ["pod"]


def test_it_survives_the_store() -> None:
    agents = Told(awaited={"held", "got"})
    once = once_of(agents)
    once.receive(receipt(sender="held"))
    once.receive(receipt(sender="unseen"))
    send(once, receiver="got")
    settled(once)
    again = once_of(agents)
    again.restore(once.stored())
    assert again.stored() == once.stored()
    assert (again.settled, again.deliveries) == (once.settled, once.deliveries)
    assert held(again) == held(once) != []
    assert again.settled
    assert again.deliveries


def test_what_reached_a_pod_that_was_never_heard_of_is_known_when_its_gap_is_found() -> None:
    agents = Told(never={"web"})
    once = once_of(agents)
    assert sends(once, "db", "web", (0, SECOND), (100, 1))
    assert sends(once, "api", "web", (0, 2 * SECOND), (200, 2))
    # One sum, for as long as a first report may be on its way.
    assert once.deliveries == {"web": [Amount(0, 2 * SECOND, 300, 3)]}
    once.settle(2 * SECOND + module._UNHEARD_US - 1)
    assert once.counted_elsewhere("web", SECOND, 2 * SECOND) == (NONE, Amount(0, 2 * SECOND, 300, 3))
    assert sends(once, "db", "web", (0, SECOND), (100, 1))
    once.settle(3 * SECOND + module._UNHEARD_US)
    assert not once.deliveries


def test_what_an_agent_reported_first_is_not_its_gap() -> None:
    agents = Told(never={"web"})
    once = once_of(agents)
    assert sends(once, "db", "web", (0, SECOND), (100, 1))
    agents.never.clear()
    once.settle(SECOND)
    assert not once.deliveries


def test_a_clock_that_was_set_back_keeps_nothing_for_longer() -> None:
    agents = Told(awaited={"web"})
    once = once_of(agents)
    settled(once, 9000 * SECOND)
    send(once)
    agents.awaited.clear()
    settled(once, 2 * SECOND)
    assert once.deliveries == {}
