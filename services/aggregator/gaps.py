"""Tells how much must have passed, at least, where several pods had no agent at the same time.

Whom a gap's bytes came from or went to is not known. What one pod received in its gap may be what
another one sent in its own, for example between two pods of a node whose agent died: added up they
would be in the cluster's totals twice. Sure is only that at least as much passed as all of them
sent, as all of them received, and as each of them alone sent and received.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_MOST: Final = 256
"""Times with gaps that are remembered: those of one agent that died are found together."""


@dataclass(slots=True)
class Group:
    """Gaps whose times overlap."""

    start_us: int
    end_us: int
    sent: int = 0
    received: int = 0
    most: int = 0
    """What the largest of them sent and received."""
    counted: int = 0

    @property
    def least(self) -> int:
        """How much must have passed."""
        return max(self.sent, self.received, self.most)


@dataclass(slots=True)
class Gaps:
    """The gaps found so far, in bytes or in packets."""

    groups: list[Group] = field(default_factory=list)

    def add(self, start_us: int, end_us: int, sent: int, received: int) -> tuple[int, int]:
        """Take a gap; how much of what was sent and received in it is new for the cluster."""
        one = Group(start_us, end_us, sent, received, sent + received)
        apart = []
        for group in self.groups:
            if group.start_us >= one.end_us or one.start_us >= group.end_us:
                apart.append(group)
                continue
            one.start_us, one.end_us = min(one.start_us, group.start_us), max(one.end_us, group.end_us)
            one.sent, one.received = one.sent + group.sent, one.received + group.received
            one.most, one.counted = max(one.most, group.most), one.counted + group.counted
        new = max(0, one.least - one.counted)
        one.counted += new
        self.groups = [*apart, one][-_MOST:]
        return min(new, sent), new - min(new, sent)

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        for group in self.groups:
            group.start_us += step_us
            group.end_us += step_us

    def stored(self) -> list[list[int]]:
        """Everything as plain values, for the store."""
        return [[one.start_us, one.end_us, one.sent, one.received, one.most, one.counted] for one in self.groups]

    def restore(self, stored: list[list[int]]) -> None:
        """Take what `stored` gave."""
        self.groups = [Group(*one) for one in stored]
