"""Flows with addresses that somebody may have got just now: they wait until it is known who.

A pod talks as soon as it has its address, and the API server tells of it a moment later. A verdict
is final, so such flows are booked a little later instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.aggregator.booking import Told
from services.aggregator.directory import Directory
from services.aggregator.point import Key
from services.aggregator.verdicts import Verdicts
from services.flows import wire
from services.flows.address import Address, from_words
from services.flows.delta import Attachment, Batch, Kind, Rows, Window
from services.flows.table import group_columns

HOLD_US: Final = 5_000_000
"""Watches are behind by less than a second; who is not known by then is nobody's."""
_MOST_ROWS: Final = 100_000
"""Flows that wait at a time; what exceeds them is booked as it is."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch with one window of nothing but flows that wait, until when, and for whom."""

    batch: Batch
    until_us: int
    addresses: frozenset[Address]

    @property
    def flows(self) -> Rows:
        """The flows."""
        return self.batch.windows[0].flows


@dataclass(slots=True)
class Awaited:
    """All flows that wait."""

    directory: Directory
    verdicts: Verdicts
    held: list[Waiting] = field(default_factory=list)

    @property
    def held_bytes(self) -> int:
        """What waits, in bytes of both directions."""
        return sum(int(one.flows["tx_bytes"].sum() + one.flows["rx_bytes"].sum()) for one in self.held)

    def points(self) -> set[Key]:
        """The observation points whose flows wait."""
        return {(one.batch.boot, point.id) for one in self.held for point in one.batch.windows[0].attachments}

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        self.held = [
            replace(
                one, batch=replace(one.batch, offset_us=one.batch.offset_us + step_us), until_us=one.until_us + step_us
            )
            for one in self.held
        ]

    def hold(self, told: Sequence[Told]) -> list[Told]:
        """Keep the flows of windows that are to wait; the others."""
        if not told:
            return []
        flows = np.concatenate([one.flows for one in told])
        asked = (flows["kind"] == Kind.IP) & ~self.verdicts.known(flows["peer_hi"], flows["peer_lo"])
        rest, end = [], 0
        for one in told:
            start, end = end, end + len(one.flows)
            new = asked[start:end]
            rest.append(self._hold(one, np.flatnonzero(new)) if new.any() else one)
        return rest

    def _hold(self, told: Told, asked: npt.NDArray[np.intp]) -> Told:
        """Keep some of the flows of a window, of those that have no verdict yet."""
        batch, window, flows = told
        first, last = batch.times(window)
        self.directory.at(first - batch.error_us, last + batch.error_us)
        pairs, inverse = _peers(flows[asked])
        found = [one if self.directory.is_awaited(one) else None for one in (from_words(hi, lo) for hi, lo in pairs)]
        addresses = frozenset(one for one in found if one is not None)
        waits = np.zeros(len(flows), np.bool_)
        waits[asked] = np.array([one is not None for one in found], np.bool_)[inverse]
        if not addresses or int(waits.sum()) > _MOST_ROWS - sum(len(one.flows) for one in self.held):
            return told
        kept = flows[waits]
        points = tuple(Attachment(number, "", 0, "", 0) for number in np.unique(kept["attachment"]).tolist())
        alone = Window(window.start_us, window.end_us, points, kept)
        held = Batch(batch.node, batch.boot, batch.seq, batch.offset_us, batch.error_us, (alone,), {})
        self.held.append(Waiting(held, last + HOLD_US, addresses))
        return Told(batch, window, flows[~waits])

    def release(self, now_us: int) -> list[Batch]:
        """What need not wait any longer; `now_us` is Redis time."""
        ready: list[Waiting] = []
        waiting: list[Waiting] = []
        for one in self.held:
            start, end = one.batch.times(one.batch.windows[0])
            self.directory.at(start - one.batch.error_us, end + one.batch.error_us)
            over = now_us >= one.until_us or not any(map(self.directory.is_awaited, one.addresses))
            (ready if over else waiting).append(one)
        self.held = waiting
        return [one.batch for one in ready]

    def stored(self) -> list[tuple[int, bytes]]:
        """Everything, as `restore` takes it."""
        return [(one.until_us, wire.encode(one.batch)) for one in self.held]

    def restore(self, stored: Iterable[tuple[int, bytes]]) -> None:
        """Take what `stored` gave; raises WireError."""
        for until, raw in stored:
            batch = wire.decode(raw)
            flows = batch.windows[0].flows
            pairs, _ = _peers(flows[flows["kind"] == Kind.IP])
            self.held.append(Waiting(batch, until, frozenset(from_words(hi, lo) for hi, lo in pairs)))


def _peers(flows: Rows) -> tuple[list[tuple[int, int]], npt.NDArray[np.intp]]:
    """The words of all peers of some flows, and the place of each flow's."""
    hi, lo = (np.ascontiguousarray(flows[name]) for name in ("peer_hi", "peer_lo"))
    first, inverse = group_columns([lo, hi])
    return list(zip(hi[first].tolist(), lo[first].tolist(), strict=True)), inverse
