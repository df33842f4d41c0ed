"""`doctor`'s programs, when nobody waits for them any longer."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from services.launcher import doctor, store
from tests.support.launched import alive
from tests.support.wait import until


async def look_at_capture() -> None:
    await doctor._capture({})


async def look_at_the_store() -> None:
    await doctor._store()


@pytest.mark.parametrize("look", [look_at_capture, look_at_the_store])
async def test_a_program_ends_with_who_waits_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    program, told = folder / "program", folder / "pid"
    program.write_text(f"#!/bin/sh\necho $$ > {told}.new\nmv {told}.new {told}\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(store, "program", lambda: str(program))
    # Without setpriv the check runs as we do.
    monkeypatch.setattr(shutil, "which", lambda _: None)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look())
        await until(told.exists, "it runs")
        looking.cancel()
    assert not alive(int(told.read_text()))
    # What is left of its pipes is an error.
    gc.collect()


async def test_a_store_that_does_not_answer_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(store, "program", lambda: str(program))
    monkeypatch.setattr(doctor, "_CHECK_S", 0.1)
    assert "does not say its version" in (await doctor._store()).text
