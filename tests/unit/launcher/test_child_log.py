from __future__ import annotations

import asyncio
import os
from pathlib import Path

from services.launcher.child_log import FILE_BYTES, ChildLog, piped


async def test_what_is_written_is_kept_passed_on_and_told_at_the_end(folder: Path) -> None:
    lines: list[str] = []
    log = ChildLog(folder / "one.log", lines.append)
    write, _ = await piped(log)
    os.write(write, b"first\nsec")
    os.write(write, b"ond\nlast")
    os.close(write)
    await log.closed()
    assert lines == ["first", "second", "last"]
    assert log.lines == ["first", "second", "last"]
    assert (folder / "one.log").read_bytes() == b"first\nsecond\nlast"


async def test_nobody_needs_to_listen(folder: Path) -> None:
    log = ChildLog(folder / "one.log")
    write, _ = await piped(log)
    os.write(write, b"word\n")
    os.close(write)
    await log.closed()
    assert log.lines == ["word"]


def test_two_files_hold_the_newest_and_no_more(folder: Path) -> None:
    path = folder / "one.log"
    log = ChildLog(path)
    for number in range(40):
        log.data_received(b"%07d\n" % number * (FILE_BYTES // 80))
    log.connection_lost(None)
    kept = [file.stat().st_size for file in folder.iterdir()]
    assert len(kept) == 2
    assert max(kept) <= FILE_BYTES
    assert path.read_bytes().endswith(b"0000039\n")
    assert log.lines[-1] == "0000039"
    assert len("\n".join(log.lines)) <= 16 * 1024


def test_a_line_without_end_is_passed_on_in_pieces(folder: Path) -> None:
    pieces: list[str] = []
    log = ChildLog(folder / "one.log", pieces.append)
    for _ in range(10):
        log.data_received(b"x" * 50_000)
    assert len(pieces) >= 4
    log.connection_lost(None)
    assert len("".join(pieces)) == 500_000


def test_bytes_that_are_no_text_are_no_trouble(folder: Path) -> None:
    lines: list[str] = []
    log = ChildLog(folder / "one.log", lines.append)
    log.data_received(b"\xff\xfe\n")
    log.connection_lost(None)
    assert lines == ["��"]


def test_a_file_that_cannot_be_written_costs_nothing_but_itself() -> None:
    log = ChildLog(Path("/dev/full"))
    log.data_received(b"word\n")
    log.connection_lost(None)
    assert log.lines == ["word"]


async def test_closing_our_end_is_an_end(folder: Path) -> None:
    log = ChildLog(folder / "one.log")
    write, transport = await piped(log)
    transport.close()
    async with asyncio.timeout(5):
        await log.closed()
    os.close(write)
