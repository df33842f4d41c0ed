"""Log lines for people and for machines."""

from __future__ import annotations

import io
import json
import sys

import pytest

from services.runtime import log


def test_json_where_no_terminal_reads(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("capture", "info", "auto")
    log.get_logger("a.b").info("attached", interface="veth1")
    line = json.loads(capsys.readouterr().err)
    assert (
        line.items()
        >= {"event": "attached", "interface": "veth1", "service": "capture", "level": "info", "module": "a.b"}.items()
    )


def test_pretty_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("capture", "info", "pretty")
    log.get_logger("a.b").info("attached", interface="veth1")
    text = capsys.readouterr().err
    assert "attached" in text
    assert not text.startswith("{")


def test_less_severe_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("capture", "warning", "json")
    log.get_logger("a.b").info("attached")
    assert capsys.readouterr().err == ""


def test_an_exception_is_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("capture", "info", "json")
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        log.get_logger("a.b").exception("failed")
    assert "ZeroDivisionError" in json.loads(capsys.readouterr().err)["exception"]


def test_lines_go_to_where_stderr_is_now(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure("capture", "info", "json")
    logger = log.get_logger("a.b")
    logger.info("before")
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    logger.info("after")
    assert "after" in replaced.getvalue()
    assert "after" not in capsys.readouterr().err
