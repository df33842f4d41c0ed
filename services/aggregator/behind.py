"""Which pods may be behind a peer that is a Service or a node: its address does not tell, so all are named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.aggregator.directory import Directory
from services.aggregator.verdicts import Labels
from services.flows.keys import BEHIND
from services.flows.scope import Named

_ASK_AGAIN_US: Final = 5_000_000

Key = tuple[str, Named]
"""What it is, and its name."""


@dataclass(slots=True)
class Behind:
    """The candidates of all Services and nodes that are anybody's peers."""

    directory: Directory
    labels: Labels
    known: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    """`namespace/pod` of each, in order."""
    changed: set[Key] = field(default_factory=set)
    _asked_us: int = 0
    _read: int = 0
    """Labels that were looked at."""

    def refresh(self, now_us: int) -> None:
        """Ask the directory again from time to time; `now_us` is Redis time."""
        if now_us - self._asked_us < _ASK_AGAIN_US:
            return
        self._asked_us = now_us
        for label in self.labels.known[self._read :]:
            if label.what in BEHIND:
                self.known.setdefault((label.what, Named(label.name, label.namespace)), ())
        self._read = len(self.labels.known)
        for key, before in self.known.items():
            found = tuple(sorted(self.directory.behind(*key)))
            if found != before:
                self.known[key] = found
                self.changed.add(key)

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self._asked_us += step_us

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        self.changed.clear()
