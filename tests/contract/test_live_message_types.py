"""The dashboard's types of the live messages are those of `services/flows/live_message.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TYPES = ROOT / "frontend/src/lib/live-message.ts"


def written() -> str:
    command = [sys.executable, "scripts/live_message_types.py"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=30).stdout


def test_the_committed_types_are_what_the_generator_writes() -> None:
    assert TYPES.read_text() == written(), "run `make types-ts` and commit what it writes"


def test_every_message_and_field_is_there() -> None:
    text = written()
    for part in (
        "export interface Snapshot extends Whole {",
        "export interface Delta extends Whole {",
        "export interface WatchedPod {",
        'export const COLUMNS = ["tx", "rx", ',
        "  nodes: NodeColumns | null;",
        "  labels: Word[][];",
        "  hz?: number;",
    ):
        assert part in text
