"""What a look at the machine found: each with its state, and what to do where it is not fine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

VERSION: Final = 1


class State(StrEnum):
    """Whether something works."""

    OK = "ok"
    WARNING = "warning"
    """It works, but less well than it could."""
    PROBLEM = "problem"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found `about` something; `mend` says what to do, and is empty only where the state is OK."""

    about: str
    state: State
    text: str
    mend: str = ""


def is_fine(findings: Iterable[Finding]) -> bool:
    """Whether nothing is a problem."""
    return all(one.state is not State.PROBLEM for one in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """The findings as one line that `from_json` reads."""
    return json.dumps({"version": VERSION, "fine": is_fine(findings), "findings": [asdict(one) for one in findings]})


def from_json(text: str) -> list[Finding]:
    """The findings that `as_json` wrote; raises ValueError."""
    try:
        listed = json.loads(text)["findings"]
        return [Finding(one["about"], State(one["state"]), one["text"], one["mend"]) for one in listed]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no findings: {text[:200]!r}") from error


def as_lines(findings: Sequence[Finding]) -> list[str]:
    """The findings for people, what to do under each that is not fine."""
    state = max((len(one.state) for one in findings), default=0)
    about = max((len(one.about) for one in findings), default=0)
    lines = []
    for one in findings:
        lines.append(f"{one.state:<{state}}  {one.about:<{about}}  {one.text}")
        if one.mend:
            lines.append(f"{'':<{state}}  {'':<{about}}  → {one.mend}")
    return lines
