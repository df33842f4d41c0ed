"""Scripted agents: batches whose sums are known."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from services.flows import address, keys, wire
from services.flows.delta import FLOW, Attachment, Batch, InterfaceCounters, Kind, Rows, Side, Window

SECOND = 1_000_000
SHARDS = int(os.environ.get("PODLOXX_TEST_SHARDS", "1"))  # noqa: TID251  # so that the same tests run on several
"""Over how many shards nodes are divided in tests of one agent."""
NAMES = keys.Keys(keys.shard_of("node-a", SHARDS))


def flow(
    attachment: int,
    peer: str,
    *,
    tx: int = 0,
    rx: int = 0,
    port: int = 80,
    protocol: int = 6,
    kind: Kind = Kind.IP,
    local: str = "10.1.0.2",
) -> Rows:
    """One row; one packet per 100 bytes."""
    row = np.zeros(1, FLOW)
    row["attachment"], row["kind"], row["protocol"], row["port"] = attachment, kind, protocol, port
    row["server"] = Side.PEER if kind is Kind.IP and protocol in {6, 17} else Side.NONE
    if kind is Kind.IP:
        row["local_hi"], row["local_lo"] = address.to_words(address.parse(local))
        row["peer_hi"], row["peer_lo"] = address.to_words(address.parse(peer))
    row["tx_bytes"], row["rx_bytes"] = tx, rx
    row["tx_packets"], row["rx_packets"] = tx // 100, rx // 100
    return row


def attachment(number: int, *addresses: str, interface: str = "", first: int | None = 0, since: int = 0) -> Attachment:
    """An attachment with these pod addresses; `first` are its interface's bytes each way when it began."""
    return Attachment(
        id=number,
        interface=interface or f"veth{number}",
        index=number + 2,
        source="socket",
        attached_us=since,
        addresses=tuple(map(address.parse, addresses)),
        first_counters=None if first is None else InterfaceCounters(first, first // 100, first, first // 100),
    )


def window(attachments: Sequence[Attachment], *flows: Rows, second: int = 0, loss: int = 0) -> Window:
    """The window of one second; times are in Redis time already."""
    rows = np.concatenate(flows) if flows else np.zeros(0, FLOW)
    return Window(
        second * SECOND, (second + 1) * SECOND, tuple(attachments), rows, {"kernel-drop": loss} if loss else {}
    )


@dataclass
class ScriptedAgent:
    """Numbers windows as batches of one boot id."""

    node: str = "node-a"
    boot: str = "boot-a"
    seq: int = 0
    machine: str = ""
    sent: list[Batch] = field(default_factory=list)

    def batch(self, *windows: Window) -> Batch:
        """The next batch."""
        self.seq += 1
        batch = Batch(self.node, self.boot, self.seq, 0, 0, windows, {"attachments": 1}, self.machine)
        self.sent.append(batch)
        return batch

    async def send(self, redis: Any, batch: Batch, *, confirmed: int = 0) -> None:
        """Append a batch to the stream."""
        await redis.xadd(NAMES.flows, fields(batch, confirmed))


def fields(batch: Batch, confirmed: int = 0) -> dict[Any, Any]:
    """The entry of a batch."""
    return {
        keys.FIELD_BOOT: batch.boot,
        keys.FIELD_SEQ: batch.seq,
        keys.FIELD_CONFIRMED: confirmed,
        keys.FIELD_BATCH: wire.encode(batch),
    }


def nodes(count: int) -> list[str]:
    """Names of so many nodes of the shard of `NAMES`."""
    names = (f"node-{number}" for number in itertools.count())
    return list(itertools.islice((one for one in names if keys.Keys(keys.shard_of(one, SHARDS)) == NAMES), count))


def detached(one: Attachment, at_us: int) -> Attachment:
    """An attachment as its last window reports it."""
    return replace(one, detached_us=at_us)
