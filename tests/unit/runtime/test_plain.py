"""What others call things does nothing to a terminal."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.launcher import cli, logs, top
from services.launcher.run import echo
from services.launcher.status_line import StatusLine
from services.runtime.errors import PodloxxError
from services.runtime.plain import plain

CLIPBOARD = "web\x1b]52;c;ZXZpbA==\x07"
"""Sets the clipboard of terminals that let it."""
SHOWN = r"web\x1b]52;c;ZXZpbA==\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1", "web-1"),
        ("bücher-日本", "bücher-日本"),
        (CLIPBOARD, SHOWN),
        ("a\rb\nc", r"a\rb\nc"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("\u2028", r"\u2028"),
        ("\udc9b", r"\udc9b"),
    ],
)
def test_controls_are_written_and_not_done(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text())
def test_whatever_it_is_nothing_in_it_is_a_control(text: str) -> None:
    shown = plain(text)
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
    assert plain(shown) == shown
    assert len(shown) >= len(text)


def test_a_table_shows_a_hostile_name() -> None:
    row = top.Row("shop", CLIPBOARD, CLIPBOARD, "", "", "", (), (), frozenset(), dict.fromkeys(RATES, 1), 0)
    message: Any = {"reporting": (1, 1), "pods": {"id": [0]}, "problem": CLIPBOARD}
    lines = top.table(message, [row], "total", 10)
    assert "\x1b" not in "".join(lines)
    assert SHOWN in lines[2]


RATES = ("total", "local", "cross", "private", "internet", "other", "syn")


def test_a_status_line_shows_a_hostile_text() -> None:
    stream = io.StringIO()
    StatusLine(stream).show(CLIPBOARD)
    assert stream.getvalue() == f"{SHOWN}\n"


def test_lines_of_logs_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pods = {"items": [{"metadata": {"name": "agent-1"}, "spec": {"nodeName": "n1"}}]}

    class Api:
        server = "https://cluster"

        async def get(self, *_: object) -> Any:
            return pods

        @asynccontextmanager
        async def stream(self, *_: object, **__: object) -> AsyncIterator[AsyncIterator[bytes]]:
            async def lines() -> AsyncIterator[bytes]:
                yield CLIPBOARD.encode() + b"\xff\n"

            yield lines()

    @asynccontextmanager
    async def connected(_: object) -> AsyncIterator[Api]:
        yield Api()

    monkeypatch.setattr(logs, "connected", connected)
    asyncio.run(logs.logs(cast("Any", SimpleNamespace(namespace="podloxx")), "", 10, follow=False))
    assert capsys.readouterr().out == f"agent-1 (n1): {SHOWN}\N{REPLACEMENT CHARACTER}\n"


def test_an_error_and_what_is_said_beside_it_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._say(PodloxxError(f"the cluster says {CLIPBOARD}\nand more")) == 1
    echo(CLIPBOARD)
    assert capsys.readouterr().err == f"podloxx: the cluster says {SHOWN}\nand more\n{SHOWN}\n"
