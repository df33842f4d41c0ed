"""The ledger: keeps the cluster's totals of several shards, by what their aggregators write.

It is a shard like the others, with letters in place of batches, and without rows. What decides there where a byte counts is
what decides in the only shard of a small cluster.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from services.aggregator import decisions
from services.aggregator.cluster_totals import ClusterTotals
from services.aggregator.decisions import Decisions
from services.aggregator.letter import Letter, Round
from services.aggregator.sightings import Sightings
from services.aggregator.totals import Totals
from services.flows import keys

_SIGHTS: Final = "sights:"


@dataclass
class ClusterLedger(Totals):
    """The session's totals of the cluster, apart from what shards count alone."""

    sightings: Sightings = field(init=False)
    decisions: Decisions = field(init=False)
    shards_known: dict[int, str] = field(default_factory=dict)
    """The session of each shard of which all points are known."""
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    """By which shards see that another one has begun, which knows nothing of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sightings = Sightings(self.names)
        self.accounts = ClusterTotals(self.sightings, self.names)
        self.decisions = Decisions(self.directory, self.sightings)

    @property
    def dirty(self) -> bool:
        """Whether anything changed since the last commit."""
        return bool(self.accounts.changed or self.loss_changed or self.sightings.changed or self.decisions.changed)

    def apply(self, *letters: Letter) -> None:  # type: ignore[override]  # what is handed in was opened as such
        """Book letters; each must be the next one of its shard."""
        for one in letters:
            if one.whole:
                for key in self.sightings.of_shard(one.shard):
                    self.sightings.drop(key)
                self.shards_known[one.shard] = one.boot
            elif self.shards_known.get(one.shard) != one.boot:
                # It was written for another session of ours, and its shard will tell all anew.
                self.lose("letter-early")
                continue
            for round_ in one.rounds:
                self._take(one.shard, round_)

    def settle(self, now_us: int) -> None:
        """Book what need not wait any longer, and decide where Services count."""
        self.accounts.settle(now_us)
        self.decisions.refresh(now_us)

    def shift(self, step_us: int) -> None:
        """Redis's clock was set: all that is known of moments moves with it."""
        self.directory.shift(step_us)
        for part in (self.accounts, self.sightings, self.decisions):
            part.shift(step_us)

    def committed(self) -> None:
        """Forget what changed: it is in the store."""
        super().committed()
        self.sightings.changed.clear()
        self.decisions.changed = False

    def stored_fields(self, *, every: bool) -> dict[str, bytes]:
        """Points by agent, those that must be stored or all."""
        boots = self.sightings.boots()
        found: dict[str, bytes] = {
            f"{_SIGHTS}{boot}": msgpack.packb(self.sightings.of_boot(boot))
            for boot in (boots if every else self.sightings.changed)
            if boot in boots
        }
        if every or self.decisions.changed:
            found[keys.DECISIONS] = decisions.encode(self.session, self.decisions.changes)
        return found

    def gone_fields(self) -> list[str]:
        """What must not be stored any more."""
        return [f"{_SIGHTS}{boot}" for boot in self.sightings.changed - set(self.sightings.boots())]

    def books(self) -> dict[str, Any]:
        """What must be known besides to go on, as plain values, for the store."""
        return super().books() | {"shards": [*self.shards_known.items()]}

    def restore(self, books: dict[str, Any], fields: Mapping[bytes, bytes]) -> None:
        """Take what `books` and `stored_fields` gave."""
        super().restore(books, fields)
        self.shards_known = dict(books["shards"])
        self.session, changes = decisions.decode(fields[keys.DECISIONS.encode()])
        self.decisions.changes = {service: list(at) for service, at in changes.items()}
        head = _SIGHTS.encode()
        for name, value in fields.items():
            if name.startswith(head):
                self.sightings.restore(name[len(head) :].decode(), msgpack.unpackb(value))

    def _take(self, shard: int, one: Round) -> None:
        for old, new in one.renamed:
            self.sightings.rename(old, new)
            self.accounts.rename(old, new)
        for key in one.gone:
            self.sightings.drop(key)
        for key, sighting in one.points.items():
            self.sightings.put(key, sighting, shard)
        for boot, (until_us, numbers) in one.reported.items():
            self.sightings.reported(boot, numbers, until_us)
        for missed in one.missed:
            self.accounts.miss(missed)
        for uid, (end_us, counters) in one.hidden.items():
            self.accounts.hide(uid, end_us, counters)
        for uid, attributed in one.attributed.items():
            self.accounts.attributed(uid, *attributed)
        if one.exchanged is not None:
            pairs, counted = one.exchanged.pairs, one.exchanged.counted
            with_pods = pairs.others != 0
            self.accounts.exchange(pairs.where(~with_pods), pairs.where(with_pods), counted[with_pods])
