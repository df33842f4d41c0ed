"""What one agent saw of its flows in one window, as rows of NumPy tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.flows.address import Address

Rows = npt.NDArray[np.void]
"""A one-dimensional structured array of `FLOW`."""


class Kind(IntEnum):
    """What a row counts; the meaning of `port` follows from it."""

    IP = 0
    """Whole IP header: `port` is the service's port, 0 where the protocol has none or it is unseen."""
    NOT_IP = 1
    """No IP inside: `port` is the EtherType (below 1536: an 802.3 length, stored as 0)."""
    MALFORMED = 2
    """Cut or contradictory before the IP header ended: `port` is the number of a `Malformed`."""
    FOLDED = 3
    """Flows that a full table could not keep apart; neither addresses nor port."""
    HIDDEN = 4
    """What the pod's own interface counted and the node's end of its link did not; neither addresses nor port."""
    NO_SOCKET = 5
    """What the pod's own interface counted and no socket had; neither addresses nor port."""


BESIDE: Final = Kind.HIDDEN
"""From this kind on rows tell what no source saw."""


class Side(IntEnum):
    """Which end of a flow offers the service, so which end `port` belongs to."""

    NONE = 0
    LOCAL = 1
    PEER = 2


class Malformed(IntEnum):
    """Why a frame's IP header could not be read."""

    TRUNCATED_LINK = 1
    TRUNCATED_VLAN = 2
    TRUNCATED_IPV4 = 3
    TRUNCATED_IPV6 = 4
    IPV4_VERSION = 5
    IPV4_HEADER_LENGTH = 6
    IPV6_VERSION = 7
    VLAN_DEPTH = 8

    @property
    def label(self) -> str:
        """The reason as metrics and JSON write it, for example `truncated-ipv4`."""
        return self.name.lower().replace("_", "-")


KEY_FIELDS: Final[list[tuple[str, str]]] = [
    ("attachment", "<u4"),
    ("kind", "u1"),
    ("protocol", "u1"),
    ("server", "u1"),
    ("reserved", "u1"),
    ("port", "<u2"),
    ("reserved2", "<u2"),
    ("reserved3", "<u4"),
    ("local_hi", "<u8"),
    ("local_lo", "<u8"),
    ("peer_hi", "<u8"),
    ("peer_lo", "<u8"),
]
"""48 bytes without padding, so that six words of 64 bits compare equal exactly where the keys do."""

COUNTERS: Final = (
    "tx_bytes",
    "rx_bytes",
    "tx_packets",
    "rx_packets",
    "tx_segments",
    "rx_segments",
    "tx_wire_bytes",
    "rx_wire_bytes",
    "tx_syns",
    "rx_syns",
)
"""What is counted per flow, from the pod's view: tx leaves the pod, rx reaches it.

`bytes` and `packets` are the kernel's own (skb lengths with link header, number of skbs);
`segments` are packets after segmentation; `wire_bytes` adds the headers which segmentation
repeats; `syns` are TCP segments with SYN and without ACK.
"""

FLOW_KEY: Final = np.dtype(KEY_FIELDS)
FLOW: Final = np.dtype([*KEY_FIELDS, *((name, "<u8") for name in COUNTERS)])
assert FLOW_KEY.itemsize == 48


def no_rows() -> Rows:
    """An empty table of flows."""
    return np.zeros(0, FLOW)


FOUR: Final = ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")
"""What `InterfaceCounters` counts, in its order; columns of `FLOW` have the same names."""


def beside(kind: Kind, found: Mapping[int, InterfaceCounters]) -> Rows:
    """Rows of what no source saw, by attachment."""
    rows = np.zeros(len(found), FLOW)
    rows["kind"], rows["attachment"] = kind, [*found]
    for at, name in enumerate(FOUR):
        rows[name] = [counters.four[at] for counters in found.values()]
    return rows


class Coverage(StrEnum):
    """How much of a pod's traffic its observation point can see."""

    FULL = "full"
    EGRESS_ONLY = "egress-only"
    INGRESS_ONLY = "ingress-only"
    NONE = "none"

    @property
    def sees_egress(self) -> bool:
        """Whether what the pod sends is seen."""
        return self in {Coverage.FULL, Coverage.EGRESS_ONLY}

    @property
    def sees_ingress(self) -> bool:
        """Whether what reaches the pod is seen."""
        return self in {Coverage.FULL, Coverage.INGRESS_ONLY}


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """The kernel's counters of an observation point, from the pod's view (cumulative).

    Where they can be read, they are those of the pod's own end, which also counts what passes by the node's.
    """

    tx_bytes: int
    tx_packets: int
    rx_bytes: int
    rx_packets: int

    @property
    def four(self) -> tuple[int, int, int, int]:
        """All of them, in this order."""
        return self.tx_bytes, self.tx_packets, self.rx_bytes, self.rx_packets


NOTHING: Final = InterfaceCounters(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One observation point (an interface) as it was during one window.

    `id` is the agent's own and never used twice within a boot id. Times are the agent's
    monotonic microseconds. `addresses` are those of the pod, as far as routes or frames from
    its side showed them. `passed` is what its agent captured of it before this window, with
    what passed between `first_counters` and the attachment as far as that is known. `pod_uid` is
    that of the pod, where the agent knows it (by its control group), else empty. `hidden` is what of the counters had
    not passed the node's end of the link before this window; None where the counters are that end's own.
    """

    id: int
    interface: str
    index: int
    source: str
    attached_us: int
    detached_us: int | None = None
    addresses: tuple[Address, ...] = ()
    counters: InterfaceCounters | None = None
    first_counters: InterfaceCounters | None = None
    coverage: Coverage = Coverage.FULL
    passed: InterfaceCounters = NOTHING
    pod_uid: str = ""
    hidden: InterfaceCounters | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """All that one agent saw between two instants of its monotonic clock.

    `flows` is a `FLOW` table; `loss` counts packets that were not counted by reason since the
    previous window.
    """

    start_us: int
    end_us: int
    attachments: tuple[Attachment, ...]
    flows: Rows
    loss: Mapping[str, int] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Window):
            return NotImplemented
        return self._identity() == other._identity()

    def _identity(self) -> tuple[Any, ...]:
        rows = np.sort(self.flows, order=[name for name, _ in KEY_FIELDS])
        return self.start_us, self.end_us, self.attachments, rows.tobytes(), dict(self.loss)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Batch:
    """What an agent publishes under one number; immutable from its first send attempt on.

    Add `offset_us` to an agent's monotonic time to get Redis time; the offset is known to
    within `error_us`. `gauges` are the agent's own metrics at the time of freezing. `machine` names the
    run of the node's kernel: the monotonic times of all agents with the same one are of one clock.
    """

    node: str
    boot: str
    seq: int
    offset_us: int
    error_us: int
    windows: tuple[Window, ...]
    gauges: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""

    @property
    def last_us(self) -> int:
        """The end of its last window in Redis time."""
        return self.times(self.windows[-1])[1]

    def moved(self, step_us: int) -> Batch:
        """The same by a clock that was set."""
        return replace(self, offset_us=self.offset_us + step_us)

    def times(self, window: Window) -> tuple[int, int]:
        """Start and end of one of its windows in Redis time."""
        return window.start_us + self.offset_us, window.end_us + self.offset_us
