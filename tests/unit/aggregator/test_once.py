"""Which end of a pair of pods counts for the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from services.aggregator import once as module
from services.aggregator.attachments import Sight
from services.aggregator.once import HOLD_US, Amount, Once, Receipt
from services.flows.scope import Scope
from services.flows.traffic import ROW_COUNTERS, no_counts
from tests.support.agents import SECOND

NOTHING = Amount(0, 0, 0)


@dataclass
class Told:
    """What agents are said to have told."""

    seen: dict[str, Sight] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    gaps: set[str] = field(default_factory=set)

    def sight(self, uid: str, start_us: int, end_us: int) -> Sight:
        assert start_us <= end_us
        return self.seen.get(uid, Sight.NOTHING)

    def expected(self, uid: str, end_us: int) -> bool:
        assert end_us
        return uid in self.awaited

    def in_gap(self, uid: str, start_us: int, end_us: int) -> bool:
        assert start_us <= end_us
        return uid in self.gaps


def receipt(size: int = 900, *, second: int = 0, sender: str = "db", receiver: str = "web") -> Receipt:
    """`receiver` got `size` bytes from `sender` in one second."""
    counts = no_counts()
    counts[ROW_COUNTERS.index("rx_bytes")], counts[ROW_COUNTERS.index("rx_packets")] = size, size // 100
    return Receipt(sender, receiver, second * SECOND, (second + 1) * SECOND, Scope.SAME_ZONE, counts)


def settled(once: Once, now_us: int = SECOND) -> int:
    """Bytes that are counted at the receiver now."""
    return sum(counts[1] for counts in once.settle(now_us).values())


def send(once: Once, size: int = 900, *, second: int = 0, sender: str = "db", receiver: str = "web") -> bool:
    """Whether what `sender` sent in one second is counted."""
    return once.send(sender, receiver, (second * SECOND, (second + 1) * SECOND), (size, size // 100))


@pytest.mark.parametrize(
    ("seen", "awaited", "counted", "overlap", "held"),
    [
        (Sight.WHOLE, False, 0, 0, 0),
        (Sight.WHOLE, True, 0, 0, 0),
        (Sight.PART, False, 0, 900, 0),
        (Sight.PART, True, 0, 0, 1),
        (Sight.NOTHING, False, 900, 0, 0),
        (Sight.NOTHING, True, 0, 0, 1),
    ],
)
def test_a_receipt_is_counted_only_where_its_sender_was_not_seen(
    seen: Sight, awaited: bool, counted: int, overlap: int, held: int
) -> None:
    once = Once(Told({"db": seen}, {"db"} if awaited else set()))
    once.receive(receipt())
    assert (settled(once), once.overlap_bytes, len(once.held)) == (counted, overlap, held)


def test_nobody_is_waited_for_longer_than_the_hold() -> None:
    once = Once(Told(awaited={"db"}))
    once.receive(receipt())
    assert settled(once, SECOND + HOLD_US - 1) == 0
    assert settled(once, SECOND + HOLD_US) == 900


def test_what_was_counted_at_the_receiver_is_not_counted_when_its_sender_tells_it() -> None:
    once = Once(Told())
    for second in (0, 1, 5):
        once.receive(receipt(second=second))
        settled(once)
    assert not send(once, 800, second=1)
    assert not send(once, 70, second=5)
    assert once.overlap_bytes == 870
    assert send(once, second=2)
    assert send(once, second=1, receiver="api")
    assert send(once, second=1, sender="web", receiver="db")
    assert len(once.settled["db", "web"]) == 2


def test_beyond_the_bound_the_oldest_receipts_wait_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_HELD", 2)
    once = Once(Told(awaited={"db"}))
    for size in (1, 10, 100, 1000):
        once.receive(receipt(size))
    assert settled(once) == 11
    assert [one.counts[1] for one in once.held] == [100, 1000]


def test_beyond_the_bound_the_oldest_spans_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SETTLED", 4)
    once = Once(Told())
    for second in range(5):
        once.receive(receipt(second=second, receiver=f"pod-{second}"))
    settled(once)
    assert list(once.settled) == [("db", "pod-3"), ("db", "pod-4")]


def test_a_gap_is_less_what_receivers_counted_of_it() -> None:
    once = Once(Told())
    for second, receiver in ((0, "web"), (3, "web"), (4, "api")):
        once.receive(receipt(second=second, receiver=receiver))
    once.receive(receipt(second=3, sender="other"))
    settled(once)
    assert once.counted_elsewhere("db", 2 * SECOND) == (Amount(5 * SECOND, 1800, 18), NOTHING)


def test_a_gap_is_less_what_senders_counted_of_it() -> None:
    told = Told(awaited={"web"})
    once = Once(told)
    assert send(once, 100, second=3)
    assert send(once, 700, second=3, sender="api")
    assert send(once, 500, second=4)
    assert send(once, 300, second=4, receiver="elsewhere")
    assert once.counted_elsewhere("web", 3 * SECOND) == (NOTHING, Amount(5 * SECOND, 1300, 13))
    assert once.deliveries == {}
    told.gaps = {"web"}
    assert not send(once, 40, second=4)
    assert once.overlap_bytes == 40


def test_deliveries_that_their_receiver_reported_are_forgotten() -> None:
    told = Told(awaited={"web"})
    once = Once(told)
    send(once)
    settled(once)
    assert "web" in once.deliveries
    told.awaited.clear()
    settled(once)
    assert once.deliveries == {}


def test_deliveries_beyond_the_bound_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_DELIVERIES", 2)
    once = Once(Told(awaited={"web"}))
    for second in range(4):
        send(once, 100, second=second)
    assert once.deliveries["web"] == [Amount(SECOND, 100, 1), Amount(4 * SECOND, 300, 3)]


def test_a_pod_to_itself_is_never_a_delivery() -> None:
    once = Once(Told(awaited={"web"}))
    assert send(once, sender="web")
    assert once.deliveries == {}


def test_everything_follows_a_pod_that_gets_its_name() -> None:
    told = Told(awaited={"interface", "db"})
    once = Once(told)
    once.receive(receipt(sender="interface"))
    once.receive(receipt(sender="unseen", receiver="interface"))
    send(once, receiver="interface")
    settled(once)
    once.rename("interface", "pod")
    assert [(one.sender, one.receiver) for one in once.held] == [("pod", "web")]
    assert list(once.settled) == [("unseen", "pod")]
    assert list(once.deliveries) == ["pod"]


def test_it_survives_the_store() -> None:
    told = Told(awaited={"held", "got"})
    once = Once(told)
    once.receive(receipt(sender="held"))
    once.receive(receipt(sender="unseen"))
    send(once, receiver="got")
    settled(once)
    again = Once(told)
    again.restore(once.stored())
    assert (again.held, again.settled, again.deliveries) == (once.held, once.settled, once.deliveries)
    assert again.held
    assert again.settled
    assert again.deliveries
