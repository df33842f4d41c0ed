"""What stands in the entries of a shard's stream: agents' batches, and in the ledger's the shards' letters."""

from __future__ import annotations

from services.aggregator import letter
from services.aggregator.cluster_ledger import ClusterLedger
from services.aggregator.letter import Letter
from services.aggregator.letters import Letters
from services.aggregator.plausible import implausible
from services.aggregator.totals import Totals
from services.flows import keys, wire
from services.flows.delta import Batch


class RefusedError(Exception):
    """An entry that can never be applied; the message says why."""


def opened(totals: Totals, payload: bytes) -> Batch | Letter:
    """What is to be booked in these totals; raises RefusedError."""
    try:
        if isinstance(totals, ClusterLedger):
            return letter.decode(totals.names, payload)
        batch = wire.decode(payload)
    except (letter.LetterError, wire.WireError, OverflowError) as error:
        raise RefusedError(str(error)) from error
    if why := implausible(batch):
        raise RefusedError(why)
    if keys.shard_of(batch.node, totals.shards) != totals.shard:
        raise RefusedError(
            f"node {batch.node!r} does not belong to shard {totals.shard} of {totals.shards}: "
            "--shards must be the same for agents and aggregators"
        )
    return batch


def rows_of(message: Batch | Letter) -> int:
    """How many rows a message counts as, of those that are booked together."""
    if isinstance(message, Batch):
        return sum(len(window.flows) + len(window.attachments) for window in message.windows)
    return sum(len(one.points) + (len(one.exchanged.pairs) if one.exchanged else 0) for one in message.rounds)


def letters_of(totals: Totals) -> Letters | None:
    """What these totals have for the ledger; None where there is none, or they are it."""
    return totals.accounts if isinstance(totals.accounts, Letters) else None
