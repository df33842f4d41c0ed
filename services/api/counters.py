"""Sums of a row's counters: the original's six, and those of the dashboard's columns."""

from __future__ import annotations

from typing import Final

from services.flows.scope import COLUMN_OF, Column, Scope
from services.flows.traffic import ROW_COUNTERS, ByScope

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


def column_bytes(scopes: ByScope) -> dict[Column, int]:
    """Bytes of both directions by column."""
    sums = dict.fromkeys(Column, 0)
    for scope, counts in scopes.items():
        sums[COLUMN_OF[scope]] += counts[TX] + counts[RX]
    return sums


def total_bytes(scopes: ByScope) -> int:
    """Bytes of both directions."""
    return sum(counts[TX] + counts[RX] for counts in scopes.values())


def syns(scopes: ByScope) -> int:
    """Connection attempts of both directions."""
    return sum(counts[_TX_SYNS] + counts[_RX_SYNS] for counts in scopes.values())
