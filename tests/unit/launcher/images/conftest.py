"""Programs that write down how they were called: no kind, k3d or minikube can be had where these tests run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Recorder = Callable[..., Callable[[], list[str]]]


@pytest.fixture
def recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Makes a program the only one on the PATH, beside those made before; what is returned lists its calls.

    `script` is what else it does, in sh.
    """
    programs = folder / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def make(name: str, script: str = "") -> Callable[[], list[str]]:
        log = folder / f"{name}.log"
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "$*" >>{log}\n{script}\n')
        program.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    return make
