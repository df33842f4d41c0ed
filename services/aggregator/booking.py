"""Turns the flows of a window into entries: whose, with whom, which verdict, how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.aggregator.attachments import Points
from services.aggregator.verdicts import Verdicts
from services.flows.address import Address, from_words
from services.flows.delta import COUNTERS, Batch, Kind, Rows
from services.flows.protocols import TCP, UDP
from services.flows.scope import Pod, Verdict
from services.flows.table import group, key_of, sum_by
from services.flows.traffic import ROW_COUNTERS, Counts

PCAP: Final = "pcap"
"""The source whose attachments carry many pods' traffic: the local address tells which."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one row exchanged with one peer over one service in one window."""

    row: int
    kind: Kind
    protocol: int
    port: int
    server: int
    address: str
    local: str
    verdict: Verdict
    counts: Counts


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose a flow is."""

    row: int
    pod: Pod
    own: frozenset[Address]


def entries(flows: Rows, batch: Batch, points: Points, verdicts: Verdicts) -> Iterator[Entry]:
    """The entries of a window's flows; their counters add up to those of the flows."""
    keys, sums = _folded(flows, batch, points)
    subjects: dict[tuple[int, int, int], _Subject] = {}
    texts: dict[tuple[int, int], str] = {}
    columns = [keys[name].tolist() for name in _KEY]
    for (attachment, kind, protocol, server, port, l_hi, l_lo, p_hi, p_lo), counts in zip(
        zip(*columns, strict=True), sums, strict=True
    ):
        subject = subjects.get((attachment, l_hi, l_lo))
        if subject is None:
            subject = subjects[attachment, l_hi, l_lo] = _subject(batch, attachment, l_hi, l_lo, points)
        what = Kind(kind)
        text = ""
        if what is Kind.IP:
            text = texts.get((p_hi, p_lo)) or texts.setdefault((p_hi, p_lo), str(from_words(p_hi, p_lo)))
        local = ""
        if l_hi or l_lo:
            local = texts.get((l_hi, l_lo)) or texts.setdefault((l_hi, l_lo), str(from_words(l_hi, l_lo)))
        verdict = verdicts.of(subject.pod, subject.own, what, p_hi, p_lo)
        yield Entry(subject.row, what, protocol, port, server, text, local, verdict, counts)


_KEY: Final = ("attachment", "kind", "protocol", "server", "port", "local_hi", "local_lo", "peer_hi", "peer_lo")


def _folded(flows: Rows, batch: Batch, points: Points) -> tuple[npt.NDArray[np.void], list[Counts]]:
    """Keys and sums; the local address stays only where it tells whose a flow is."""
    keys = key_of(flows)
    by_address = [
        number for (boot, number), point in points.known.items() if boot == batch.boot and point.source == PCAP
    ]
    tells = np.isin(keys["attachment"], by_address)
    for word in ("local_hi", "local_lo"):
        keys[word] = np.where(tells, keys[word], np.uint64(0))
    first, inverse = group(keys)
    table = np.zeros((len(first), len(ROW_COUNTERS)), np.uint64)
    for at, name in enumerate(COUNTERS):
        table[:, at] = sum_by(inverse, flows[name], len(first))
    kept = keys[first]
    other = (kept["kind"] != Kind.IP) | ~np.isin(kept["protocol"], (TCP, UDP))
    for name in ("tx", "rx"):
        table[:, ROW_COUNTERS.index(f"{name}_other_bytes")] = np.where(
            other, table[:, ROW_COUNTERS.index(f"{name}_bytes")], np.uint64(0)
        )
    return kept, table.tolist()


def _subject(batch: Batch, attachment: int, hi: int, lo: int, points: Points) -> _Subject:
    point = points.known[batch.boot, attachment]
    if point.source == PCAP:
        row, pod = points.by_address(point, from_words(hi, lo) if hi or lo else None)
        return _Subject(row, pod, points.directory.addresses(pod) or frozenset((from_words(hi, lo),)))
    pod = points.pod_of(point)
    return _Subject(point.row, pod, points.directory.addresses(pod) | frozenset(point.addresses))
