"""The ways to see packets, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.capture.links import Link
from services.capture.raw_flow import RawRows
from services.flows.address import Address


@dataclass(frozen=True, slots=True)
class Drained:
    """What a source saw since it was last drained.

    `loss` counts packets which the source was given and could not count, by reason (`kernel-drop`
    …); `senders` are addresses from which frames left the pod, per attachment (bounded).
    """

    rows: RawRows
    loss: Mapping[str, int] = field(default_factory=dict)
    senders: Mapping[int, frozenset[Address]] = field(default_factory=dict)


class Source(Protocol):
    """Counts the packets of attached links until it is closed."""

    name: str

    async def attach(self, link: Link, attachment: int) -> None:
        """Start to count a link's packets under this id; raises OSError where the link is gone."""

    async def detach(self, attachment: int) -> None:
        """Stop; what was counted comes with the next drain."""

    async def drain(self) -> Drained:
        """All that was counted since the previous drain."""

    async def close(self) -> None:
        """Release every socket, program and map."""
