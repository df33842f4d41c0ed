"""Both ends of the delivery protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.flows import address
from services.flows.delivery import Frozen, Inbox, Outbox, Verdict, merge
from services.flows.delta import FLOW, Attachment, InterfaceCounters, Kind, Window
from services.flows.keys import FROZEN_BATCHES, SUB_WINDOW_US, SUB_WINDOWS


def window(start: int, end: int, tx_bytes: int, peer: int = 0, loss: int = 0) -> Window:
    """A window with one row and some loss."""
    rows = np.zeros(1, FLOW)
    rows["attachment"], rows["tx_bytes"], rows["peer_lo"] = 1, tx_bytes, peer
    return Window(start, end, (Attachment(1, "veth0", 3, "socket", 0),), rows, {"kernel-drop": loss})


def outbox(batch_rows: int = 100) -> tuple[Outbox, dict[int, tuple[Window, ...]]]:
    """An outbox and what was encoded under which number."""
    encoded: dict[int, tuple[Window, ...]] = {}

    def encode(seq: int, windows: tuple[Window, ...]) -> bytes:
        assert seq not in encoded
        encoded[seq] = windows
        return b"batch %d" % seq

    return Outbox(encode, batch_rows), encoded


def test_batches_are_numbered_from_one_and_frozen() -> None:
    box, _ = outbox()
    box.add(window(0, 1, 5))
    assert box.freeze() == Frozen(1, b"batch 1")
    assert box.freeze() is None
    assert list(box.frozen) == [Frozen(1, b"batch 1")]


def test_no_more_than_w_are_frozen_and_confirmation_makes_room() -> None:
    box, _ = outbox()
    for at in range(FROZEN_BATCHES):
        box.add(window(at, at + 1, 1))
        assert box.freeze()
    box.add(window(9, 10, 1))
    assert box.freeze() is None
    box.confirm(2)
    assert [batch.seq for batch in box.frozen] == [3, 4]
    assert box.freeze() == Frozen(5, b"batch 5")


def test_an_older_confirmation_changes_nothing() -> None:
    box, _ = outbox()
    box.confirm(7)
    box.confirm(3)
    assert box.confirmed == 7


@given(st.lists(st.tuples(st.integers(1, 3_000_000), st.integers(0, 10_000), st.integers(0, 50)), max_size=120))
def test_an_outage_is_bounded_and_loses_nothing(seen: list[tuple[int, int, int]]) -> None:
    box, encoded = outbox(batch_rows=20)
    now = 0
    for length, sent, peer in seen:
        box.add(window(now, now + length, sent, peer, loss=1))
        now += length
        box.freeze()
        assert len(box.frozen) <= FROZEN_BATCHES
        assert len(box.waiting) <= SUB_WINDOWS
        assert sum(len(one.flows) for one in box.waiting) <= 2 * 20 + 1
    every = [one for windows in encoded.values() for one in windows] + box.waiting
    assert sum(int(one.flows["tx_bytes"].sum()) for one in every) == sum(sent for _, sent, _ in seen)
    assert sum(one.loss["kernel-drop"] for one in every) == len(seen)
    assert [one.start_us for one in every] == sorted(one.start_us for one in every)


def test_while_frozen_windows_merge_up_to_five_seconds() -> None:
    box, _ = outbox()
    for at in range(FROZEN_BATCHES):
        box.add(window(at, at + 1, 1))
        box.freeze()
    second = 1_000_000
    for at in range(12):
        box.add(window(at * second, (at + 1) * second, 1))
    assert [one.end_us - one.start_us for one in box.waiting] == [5 * second, 5 * second, 2 * second]
    assert all(one.end_us - one.start_us <= SUB_WINDOW_US for one in box.waiting)


def test_a_batch_takes_no_more_rows_than_it_may() -> None:
    box, encoded = outbox(batch_rows=3)
    for at in range(4):
        rows = np.zeros(2, FLOW)
        rows["attachment"], rows["peer_lo"], rows["kind"] = 1, [at, at + 100], Kind.IP
        box.waiting.append(Window(at, at + 1, (Attachment(1, "veth0", 3, "socket", 0),), rows))
    box.freeze()
    assert [len(one.flows) for one in encoded[1]] == [2]


def test_merging_keeps_the_latest_state_and_every_address() -> None:
    one, two = address.parse("10.0.0.1"), address.parse("10.0.0.2")
    first = Attachment(1, "a", 3, "socket", 0, None, (one,), passed=InterfaceCounters(100, 1, 0, 0))
    second = replace(first, detached_us=8, addresses=(two,), passed=InterfaceCounters(700, 7, 0, 0))
    early = Window(0, 5, (first,), np.zeros(0, FLOW))
    late = Window(5, 9, (second, Attachment(2, "b", 4, "socket", 6)), np.zeros(0, FLOW))
    merged = merge(early, late)
    assert (merged.start_us, merged.end_us) == (0, 9)
    assert merged.attachments[0].detached_us == 8
    assert merged.attachments[0].addresses == (one, two)
    # Before both of them nothing else had passed than before the first.
    assert merged.attachments[0].passed == first.passed
    assert merged.attachments[1].id == 2


def test_merging_windows_of_a_file_whose_time_steps_back_covers_both() -> None:
    merged = merge(window(100, 110, 1), window(40, 50, 2))
    assert (merged.start_us, merged.end_us) == (40, 110)


def test_the_inbox_applies_strictly_in_order() -> None:
    inbox = Inbox()
    assert inbox.judge("b", 1, 0) is Verdict.APPLY
    inbox.apply("b", 1)
    assert inbox.judge("b", 1, 0) is Verdict.DUPLICATE
    assert inbox.judge("b", 3, 1) is Verdict.AHEAD
    assert inbox.judge("b", 2, 1) is Verdict.APPLY


def test_an_unknown_boot_starts_where_its_agent_saw_confirmation() -> None:
    inbox = Inbox()
    assert inbox.judge("b", 101, 100) is Verdict.APPLY
    assert inbox.judge("c", 103, 100) is Verdict.AHEAD
    assert inbox.judge("c", 101, 100) is Verdict.APPLY


def test_what_an_agent_saw_confirmed_and_these_totals_do_not_have_is_passed_over() -> None:
    box = Inbox({"a": 3})
    assert box.skip("a", 2) == 0
    assert box.skip("unknown", 5) == 0
    assert box.applied == {"a": 3}
    assert box.skip("a", 7) == 4
    assert box.judge("a", 7, 7) is Verdict.DUPLICATE
    assert box.judge("a", 8, 7) is Verdict.APPLY
