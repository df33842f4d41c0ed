"""What the aggregator tells the API, and the API everyone: rows, ticks and their codec.

A row is one pod's totals under a number that stays the same for the session's epoch. A tick is
one commit: increments of the rows that changed. Totals are the sum of all ticks, so who has read
the totals at tick n and every tick since then has the totals of now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import msgpack

from services.flows.delta import FOUR, InterfaceCounters
from services.flows.scope import SCOPES, Scope

VERSION: Final = 1

ROW_COUNTERS: Final = (
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
    "tx_other_bytes",
    "rx_other_bytes",
    "tx_ingress_bytes",
    "rx_ingress_bytes",
)
"""Counters of a pod and scope, from the pod's view. `other_bytes` are the part of `bytes` that is neither TCP nor UDP;
`ingress_bytes` the TCP and UDP part that came through an ingress controller or load balancer (`via: ingress`)."""

VIA_INGRESS: Final = "ingress"
Counts = list[int]
"""One number per entry of `ROW_COUNTERS`."""
ByScope = dict[Scope, Counts]


def counts_of(counters: InterfaceCounters) -> Counts:
    """Counters of an interface as those of a row; nothing else is known of them."""
    counts = no_counts()
    for name, value in zip(FOUR, counters.four, strict=True):
        counts[ROW_COUNTERS.index(name)] = value
    return counts


def unseen_counts(counters: InterfaceCounters) -> Counts:
    """Counters of what no source saw: of no protocol that is known. An agent's gap is told apart by having no `other_bytes`."""
    counts = counts_of(counters)
    for way in ("tx", "rx"):
        counts[ROW_COUNTERS.index(f"{way}_other_bytes")] = counts[ROW_COUNTERS.index(f"{way}_bytes")]
    return counts


class TrafficError(ValueError):
    """Bytes that are no tick, row or history of this version."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a row is; empty strings where nobody knows. Times are Unix microseconds, 0 = not known."""

    uid: str
    namespace: str
    pod: str
    node: str = ""
    zone: str = ""
    region: str = ""
    ip: str = ""
    ips: tuple[str, ...] = ()
    interface: str = ""
    owner_kind: str = ""
    owner_name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    container_id: str = ""
    started_us: int = 0
    gone_us: int = 0
    coverage: str = "full"
    transmit_start_bytes: int = 0
    received_start_bytes: int = 0

    @property
    def key(self) -> str:
        """`namespace/pod`, as the API's maps are keyed."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node's agent last said of itself; times in Redis microseconds."""

    node: str
    boot: str
    source: str
    window_start_us: int
    window_end_us: int
    attachments: int
    loss: Mapping[str, int] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """The life of one set of totals."""

    epoch: int
    n: int
    started_us: int
    cluster: ByScope = field(default_factory=dict)
    """Every byte once: at the sender's interface, else at the receiver's."""
    nodes: Mapping[str, NodeReport] = field(default_factory=dict)
    pending_bytes: int = 0
    overlap_bytes: int = 0
    loss: Mapping[str, int] = field(default_factory=dict)
    shards: int = 1
    """Over how many shards nodes are divided; each one's totals have its own alone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pod's totals."""

    number: int
    identity: Identity
    totals: ByScope
    window_us: int = 0
    """Length of the window in which the row last changed."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row's increments in one tick, seen over `window_us` microseconds."""

    number: int
    window_us: int
    added: ByScope


@dataclass(frozen=True, slots=True)
class Tick:
    """One commit: what changed between n - 1 and n. `at_us` is Redis time."""

    epoch: int
    n: int
    at_us: int
    changes: tuple[RowChange, ...]
    identities: Mapping[int, Identity] = field(default_factory=dict)
    """New rows and rows whose identity changed."""
    removed: tuple[int, ...] = ()
    """Rows that were merged into another one or forgotten."""
    nodes: tuple[NodeReport, ...] = ()
    """Reports of the agents whose batches this tick applied."""
    cluster: ByScope = field(default_factory=dict)
    pending_bytes: int = 0
    """A gauge: bytes that wait for a verdict."""
    overlap_bytes: int = 0
    loss: Mapping[str, int] = field(default_factory=dict)
    """Increments of batches and packets that were not counted, by reason."""

    @property
    def id(self) -> str:
        """The cursor `<epoch>-<n>`, which is also the tick's id in the stream."""
        return f"{self.epoch}-{self.n}"


class Counted(IntEnum):
    """Where a row's traffic with a peer counts for the cluster; it keeps peers of one name apart."""

    AT_SENDER = 0
    """Each direction where it is sent, as far as that is seen."""
    HERE = 1
    """Both directions at this row."""
    THERE = 2
    """Both directions at the other end, as far as it is seen."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer of one row; counters as `ROW_COUNTERS`."""

    address: str
    protocol: int
    port: int
    server: int
    kind: int
    scope: Scope
    rule: str
    counts: Counts
    first_us: int
    last_us: int
    name: str = ""
    namespace: str = ""
    what: str = ""
    """`pod`, `service`, `node`, `cidr` or empty."""
    via: str = ""
    """`ingress` where the pod was reached through an ingress controller or gateway."""
    counted: Counted = Counted.AT_SENDER
    local: str = ""
    """The row's own address, where a source (a capture file) tells several of them apart."""


_LONGEST_TICK_ID: Final = 40
"""Of two numbers of 63 bits, 39."""


def parse_tick_id(text: str) -> tuple[int, int]:
    """(epoch, n) of a cursor; raises TrafficError where it is none."""
    epoch, dash, number = text.partition("-")
    # Longer ones are no numbers of ours, and with thousands of digits Python refuses to read them.
    short = len(text) <= _LONGEST_TICK_ID
    if not (short and dash and epoch.isascii() and epoch.isdigit() and number.isascii() and number.isdigit()):
        raise TrafficError(f"{text[:_LONGEST_TICK_ID]!r} is no tick id of the form <epoch>-<n>")
    return int(epoch), int(number)


def encode_tick(tick: Tick) -> bytes:
    """The bytes of a tick."""
    flat = [(row.number, SCOPES.index(scope), row.window_us) for row in tick.changes for scope in row.added]
    lines = [counts for row in tick.changes for counts in row.added.values()]
    rows, scopes, windows = ([one[at] for one in flat] for at in range(3))
    return encode_changes(tick, rows, scopes, windows, [[counts[at] for counts in lines] for at in _COLUMNS])


def encode_changes(
    tick: Tick, rows: list[int], scopes: list[int], windows: list[int], counts: Iterable[Sequence[int]]
) -> bytes:
    """The bytes of a tick with changes by column, one entry per row and scope; `counts` has a column per counter."""
    return pack(
        {
            "v": VERSION,
            "epoch": tick.epoch,
            "n": tick.n,
            "at": tick.at_us,
            "rows": rows,
            "scopes": scopes,
            "windows": windows,
            "columns": {name: values for name, values in zip(ROW_COUNTERS, counts, strict=True) if any(values)},
            "identities": {str(number): _plain(entry) for number, entry in tick.identities.items()},
            "removed": list(tick.removed),
            "nodes": [_plain(node) for node in tick.nodes],
            "cluster": _scopes_out(tick.cluster),
            "pending": tick.pending_bytes,
            "overlap": tick.overlap_bytes,
            "loss": dict(tick.loss),
        }
    )


def decode_tick(data: bytes) -> Tick:
    """The tick behind `data`; raises TrafficError."""
    try:
        raw = unpack(data)
        added: dict[int, tuple[int, ByScope]] = {}
        columns = [raw["columns"].get(name) for name in ROW_COUNTERS]
        for at, (number, scope, window) in enumerate(zip(raw["rows"], raw["scopes"], raw["windows"], strict=True)):
            counts = [0 if column is None else column[at] for column in columns]
            added.setdefault(number, (window, {}))[1][SCOPES[scope]] = counts
        return Tick(
            epoch=raw["epoch"],
            n=raw["n"],
            at_us=raw["at"],
            changes=tuple(RowChange(number, window, scopes) for number, (window, scopes) in added.items()),
            identities={int(k): _identity_in(v) for k, v in raw["identities"].items()},
            removed=tuple(raw["removed"]),
            nodes=tuple(NodeReport(**node) for node in raw["nodes"]),
            cluster=_scopes_in(raw["cluster"]),
            pending_bytes=raw["pending"],
            overlap_bytes=raw["overlap"],
            loss=raw["loss"],
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TrafficError(f"not a tick of version {VERSION}: {error!r}") from error


def encode_row(row: Row) -> bytes:
    """The bytes of a row in the totals."""
    return join_row(encode_identity(row.identity), row.totals, row.window_us)


def encode_identity(identity: Identity) -> bytes:
    """The bytes of an identity, which changes far less often than its row."""
    return pack(_plain(identity))


def join_row(identity: bytes, totals: ByScope, window_us: int) -> bytes:
    """The bytes of a row whose identity is in bytes already: a map of version, identity, totals and window."""
    return b"".join((_ROW_HEAD, identity, _TOTALS, pack(_scopes_out(totals)), _WINDOW, pack(window_us)))


def decode_row(number: int, data: bytes) -> Row:
    """Row `number` behind `data`; raises TrafficError."""
    try:
        raw = unpack(data)
        return Row(number, _identity_in(raw["identity"]), _scopes_in(raw["totals"]), raw["window"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TrafficError(f"not a row of version {VERSION}: {error!r}") from error


def encode_session(session: Session) -> bytes:
    """The bytes of the session in the totals."""
    raw = {
        "v": VERSION,
        "epoch": session.epoch,
        "n": session.n,
        "started": session.started_us,
        "cluster": _scopes_out(session.cluster),
        "nodes": [_plain(node) for node in session.nodes.values()],
        "pending": session.pending_bytes,
        "overlap": session.overlap_bytes,
        "loss": dict(session.loss),
        "shards": session.shards,
    }
    return pack(raw)


def decode_session(data: bytes) -> Session:
    """The session behind `data`; raises TrafficError."""
    try:
        raw = unpack(data)
        return Session(
            epoch=raw["epoch"],
            n=raw["n"],
            started_us=raw["started"],
            cluster=_scopes_in(raw["cluster"]),
            nodes={node["node"]: NodeReport(**node) for node in raw["nodes"]},
            pending_bytes=raw["pending"],
            overlap_bytes=raw["overlap"],
            loss=raw["loss"],
            shards=raw.get("shards", 1),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TrafficError(f"not a session of version {VERSION}: {error!r}") from error


def add_scopes(into: ByScope, added: ByScope) -> None:
    """Add counters scope by scope, in place."""
    for scope, counts in added.items():
        before = into.get(scope)
        into[scope] = list(counts) if before is None else [a + b for a, b in zip(before, counts, strict=True)]


def no_counts() -> Counts:
    """A zero for every counter."""
    return [0] * len(ROW_COUNTERS)


def _plain(one: Identity | NodeReport) -> dict[str, Any]:
    """Its fields by name; `asdict` copies each one deeply, and takes twenty times as long."""
    return {name: getattr(one, name) for name in one.__slots__}


def _scopes_out(scopes: ByScope) -> dict[str, Counts]:
    return {scope.value: counts for scope, counts in scopes.items()}


def _scopes_in(raw: dict[str, Counts]) -> ByScope:
    scopes = {Scope(name): list(counts) for name, counts in raw.items()}
    if any(len(counts) != len(ROW_COUNTERS) for counts in scopes.values()):
        raise ValueError("a scope has not one number per counter")
    return scopes


def _identity_in(raw: dict[str, Any]) -> Identity:
    return Identity(
        **{
            **raw,
            "ips": tuple(raw["ips"]),
            "labels": tuple((name, value) for name, value in raw["labels"]),
        }
    )


def pack(raw: object) -> bytes:
    """The bytes of plain values with their version among them."""
    packed: bytes = msgpack.packb(raw)
    return packed


_COLUMNS: Final = range(len(ROW_COUNTERS))
_MAP_OF_FOUR: Final = b"\x84"
_ROW_HEAD: Final = b"".join((_MAP_OF_FOUR, pack("v"), pack(VERSION), pack("identity")))
_TOTALS: Final = pack("totals")
_WINDOW: Final = pack("window")


def unpack(data: bytes) -> dict[str, Any]:
    """The map behind `data`; raises ValueError where it is of another version."""
    raw = msgpack.unpackb(data)
    if not isinstance(raw, dict) or raw.get("v") != VERSION:
        raise ValueError("another version or no map")
    return raw
