"""Rows, windows and the words for what is wrong with a frame."""

from __future__ import annotations

from services.flows.delta import FLOW, Malformed, Window, no_rows


def test_reasons_are_written_as_metrics_write_them() -> None:
    assert Malformed.TRUNCATED_IPV4.label == "truncated-ipv4"
    assert len({reason.label for reason in Malformed}) == len(Malformed)


def test_an_empty_table_has_the_columns_of_any_other() -> None:
    assert (len(no_rows()), no_rows().dtype) == (0, FLOW)


def test_a_window_equals_windows_only() -> None:
    one = Window(0, 1, (), no_rows())
    assert one == Window(0, 1, (), no_rows())
    assert one != Window(0, 2, (), no_rows())
    assert one != "a window"
