"""Sums of a row's counters: the original's six, and those of the dashboard's columns."""

from __future__ import annotations

from typing import Final

from services.flows.history import Passed
from services.flows.scope import COLUMN_OF, Column, Scope
from services.flows.traffic import ROW_COUNTERS, ByScope, Counts

_AT: Final = {name: at for at, name in enumerate(ROW_COUNTERS)}
TX: Final = _AT["tx_bytes"]
RX: Final = _AT["rx_bytes"]
TX_PACKETS: Final = _AT["tx_packets"]
RX_PACKETS: Final = _AT["rx_packets"]
_TX_SYNS: Final = _AT["tx_syns"]
_RX_SYNS: Final = _AT["rx_syns"]
_TX_OTHER: Final = _AT["tx_other_bytes"]
_RX_OTHER: Final = _AT["rx_other_bytes"]
_TX_INGRESS: Final = _AT["tx_ingress_bytes"]
_RX_INGRESS: Final = _AT["rx_ingress_bytes"]
_NEAR: Final = frozenset(
    scope for scope, column in COLUMN_OF.items() if column in {Column.LOCAL, Column.CROSS} or scope is Scope.OTHER
)
"""What the original's local* fields count; the scope `other` is loopback, link-local and multicast."""

SIX: Final = (
    "packetsSum",
    "transmitBytes",
    "receivedBytes",
    "unknownBytes",
    "localTransmitBytes",
    "localReceivedBytes",
)
"""The original's counters; transmit and receive are TCP and UDP, unknown is all the rest."""
Six = tuple[int, int, int, int, int, int]
"""One number per entry of `SIX`."""


def six(scopes: ByScope) -> Six:
    """The original's counters; bytes that an agent missed (`gap_bytes`) are in none of them."""
    packets = sent = received = unknown = near_sent = near_received = 0
    for scope, counts in scopes.items():
        packets += counts[TX_PACKETS] + counts[RX_PACKETS]
        unknown += counts[_TX_OTHER] + counts[_RX_OTHER]
        if scope is Scope.UNKNOWN:
            continue
        out, into = counts[TX] - counts[_TX_OTHER], counts[RX] - counts[_RX_OTHER]
        sent += out
        received += into
        if scope in _NEAR:
            near_sent += out - counts[_TX_INGRESS]
            near_received += into - counts[_RX_INGRESS]
    return packets, sent, received, unknown, near_sent, near_received


def gap_bytes(scopes: ByScope) -> int:
    """Bytes that passed while the pod's agent was away (rule `agent-gap`).

    The scope `unknown` holds frames that are neither TCP nor UDP, and what has no protocol at all: the gap.
    """
    counts = scopes.get(Scope.UNKNOWN)
    if counts is None:
        return 0
    return counts[TX] - counts[_TX_OTHER] + counts[RX] - counts[_RX_OTHER]


def columns_of(scope: Scope, passed: Passed) -> tuple[tuple[Column, int, int], ...]:
    """The columns into which some of a pod's bytes go, with those that it sent and received.

    What came through an ingress controller is a pod's traffic with the outside.
    """
    out, into = passed.tx_ingress_bytes, passed.rx_ingress_bytes
    own = COLUMN_OF[scope], passed.tx_bytes - out, passed.rx_bytes - into
    return ((Column.INTERNET, out, into), own) if out or into else (own,)


def passed_of(counts: Counts) -> Passed:
    """The bytes among a row's counters."""
    return Passed(counts[TX], counts[RX], counts[_TX_INGRESS], counts[_RX_INGRESS])


def column_bytes(scopes: ByScope) -> dict[Column, int]:
    """A pod's bytes of both directions by column."""
    sums = dict.fromkeys(Column, 0)
    for scope, counts in scopes.items():
        for column, sent, received in columns_of(scope, passed_of(counts)):
            sums[column] += sent + received
    return sums


def internet_bytes(scopes: ByScope) -> tuple[int, int]:
    """What a pod sent to and received from the internet, through ingress controllers as well."""
    found = [
        (sent, received)
        for scope, counts in scopes.items()
        for column, sent, received in columns_of(scope, passed_of(counts))
        if column is Column.INTERNET
    ]
    return sum(sent for sent, _ in found), sum(received for _, received in found)


def total_bytes(scopes: ByScope) -> int:
    """Bytes of both directions."""
    return sum(counts[TX] + counts[RX] for counts in scopes.values())


def syns(scopes: ByScope) -> int:
    """Connection attempts of both directions."""
    return sum(counts[_TX_SYNS] + counts[_RX_SYNS] for counts in scopes.values())
