from __future__ import annotations

import io
from typing import Any

from services.launcher.status_line import StatusLine, summary


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


OVERVIEW: dict[str, Any] = {
    "totalPods": 8,
    "packetsPerSec": 3432,
    "internalBandwidthPerSec": "13.5 MB",
    "externalBandwidthPerSec": "7.5 MB",
    "loss": {"kernel-drop": 2, "folded": 3},
}


def test_the_line_tells_how_it_goes() -> None:
    assert summary(OVERVIEW, "http://127.0.0.1:1337", 75.9) == (
        "1:15 | 8 pods | 3432 packets/s | inside 13.5 MB/s | outside 7.5 MB/s | 5 lost | http://127.0.0.1:1337"
    )


def test_hours_are_told_and_one_pod_is_one() -> None:
    assert summary({**OVERVIEW, "totalPods": 1, "loss": {}}, "", 3725).startswith("1:02:05 | 1 pod | ")


def test_on_a_terminal_it_is_replaced_and_never_wraps() -> None:
    stream = Terminal()
    line = StatusLine(stream, columns=lambda: 5)
    line.show("one")
    line.show("twenty")
    line.end()
    assert stream.getvalue() == "\r\x1b[2Kone\r\x1b[2Ktwen\n"


def test_what_does_not_fit_whole_is_left_out() -> None:
    stream = Terminal()
    for columns in (9, 10, 14):
        StatusLine(stream, columns=lambda: columns).show("1 | two | 3456")  # noqa: B023
    assert stream.getvalue().split("\r\x1b[2K")[1:] == ["1 | two", "1 | two", "1 | two"]
    StatusLine(stream, columns=lambda: 15).show("1 | two | 3456")
    assert stream.getvalue().endswith("1 | two | 3456")


def test_elsewhere_it_comes_now_and_then() -> None:
    stream, times = io.StringIO(), iter([100.0, 100.0, 101.0, 109.9, 110.0, 110.0])
    line = StatusLine(stream, now=lambda: next(times))
    for text in ("one", "two", "three", "four"):
        line.show(text)
    line.end()
    assert stream.getvalue() == "one\nfour\n"
