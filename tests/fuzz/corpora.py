"""Kept inputs: one line of base64 each, in one file per target."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The inputs that are kept of a target."""
    path = FOLDER / f"{target}.b64"
    return [base64.b64decode(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Keep these, the smallest first."""
    lines = sorted({base64.b64encode(one).decode() for one in inputs}, key=lambda line: (len(line), line))
    (FOLDER / f"{target}.b64").write_text("".join(f"{line}\n" for line in lines))
