"""The messages that the WebSocket sends: fields, units and how "not known" is written, in one place.

The API sends JSON objects with a type `t`:

`snapshot`  everything; replaces what the client has
`delta`     what changed since the message `base`, which the client has acknowledged
`pod`       the watched pod: its scopes and peers

All numbers are absolute, never increments, so a message that was skipped does no harm. `epoch` and
`seq` are the two halves of a tick id; several messages may have the same `seq`, since rates fade and
agents fall silent without any tick.

Units: bytes, packets and attempts, or those per second where a field says that it is a rate; times are
Unix seconds. Not known: null among numbers and times, "" among texts, an empty list among lists. A rate
is null where the agent of the row's node does not report; 0 always means that nothing passed.

Rows travel by column: every list in `rows` has one number per id in `i`, every list in `pods`, `add`,
`nodes`, `scopes` and `peers` one value per entry. Texts that many entries share are numbers: places in
the list `words` of the same message, of which the first one is "".

The TypeScript of the dashboard is written from this file by `make types-ts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, TypedDict, cast

from services.flows.keys import HISTORY_BUCKET_S, HISTORY_BUCKETS
from services.flows.scope import SCOPES, Column

PROTOCOL: Final = 1
"""The version that a client asks for with `v=`; another one is closed with `CLOSE_VERSION`."""
CLOSE_VERSION: Final = 4001
"""Close code for a client that asked for another version of the protocol: it must be loaded anew."""
CLOSE_SILENT: Final = 4002
"""Close code for a client that acknowledged nothing for too long; it may come back."""
CLOSE_WRONG: Final = 1008
"""Close code for a client whose message was not understood; the reason says why."""

COLUMNS: Final = (
    "tx",
    "rx",
    "local",
    "cross",
    "private",
    "internet_tx",
    "internet_rx",
    "other",
    "syn",
    "total",
)
"""Numbers of a row, and of all rows together in `tot`, in this order.

Rates in bytes per second from the pod's view, the columns of the dashboard with both directions unless
they say which; `syn` are connection attempts per second, `total` the bytes since the session began, never null.
"""
TIMELINE_COLUMNS: Final = tuple(column.value for column in Column)
"""What an entry of the timeline counts after its time, in this order."""
TIMELINE_STEP_S: Final = HISTORY_BUCKET_S
"""Seconds that an entry of the timeline lasts."""
TIMELINE_STEPS: Final = HISTORY_BUCKETS
"""Entries that the timeline has at most: 15 minutes."""
SPARK_STEPS: Final = 12
"""Entries of a spark, each as long as one of the timeline: the last minute."""
SCOPE_NAMES: Final = tuple(scope.value for scope in SCOPES)
"""Names of scopes; bit n of a pod's `scopes` stands for the nth."""

Numbers = tuple[int | None, ...]
"""One number per entry of `COLUMNS`."""
Word = int
"""A place in the list `words` of the same message."""
Seconds = float
"""A Unix time."""


class PodColumns(TypedDict):
    """What rows are called and where they run, one value per pod."""

    id: list[int]
    """The row's number, which stays the same for the session's epoch."""
    ns: list[Word]
    name: list[str]
    node: list[Word]
    zone: list[Word]
    region: list[Word]
    owner_kind: list[Word]
    """Such as `Deployment`."""
    owner: list[Word]
    """The owner's name, in the pod's namespace."""
    labels: list[list[Word]]
    """Each is `key=value`."""
    ips: list[list[str]]
    """The pod's addresses, its first one first."""
    iface: list[str]
    """The interface on the node that is watched."""
    coverage: list[Word]
    """How much is seen of its traffic: `full`, `egress-only`, `ingress-only` or `none`."""
    scopes: list[int]
    """Scopes in which it had traffic since the session began, as bits; see `SCOPE_NAMES`."""
    started: list[Seconds | None]
    ended: list[Seconds | None]
    """When it went; null while it runs."""


class NodeColumns(TypedDict):
    """The nodes whose agents ever reported, one value per node, by name."""

    name: list[str]
    zone: list[str]
    region: list[str]
    live: list[bool]
    """Whether its agent reported within the last seconds."""
    reported: list[Seconds | None]
    """The last report of an agent that is not live; null where it is, and where that was minutes ago."""
    source: list[str]
    """How its agent captures, such as `tcx`."""
    interfaces: list[int]
    """How many interfaces its agent watches."""


class RowColumns(TypedDict):
    """One number per row; see `COLUMNS`."""

    tx: list[int | None]
    rx: list[int | None]
    local: list[int | None]
    cross: list[int | None]
    private: list[int | None]
    internet_tx: list[int | None]
    internet_rx: list[int | None]
    other: list[int | None]
    syn: list[int | None]
    total: list[int]


class Sparks(TypedDict):
    """Bytes of each row in the last minute, both directions."""

    until: Seconds
    """The end of the last step of all; they last `TIMELINE_STEP_S`, and the last one is not over yet."""
    of: list[list[int]]
    """`SPARK_STEPS` numbers, or none for a row without traffic; one list per id in `i`."""


class Whole(TypedDict):
    """What every snapshot and delta says of the whole."""

    epoch: int
    seq: int
    ts: Seconds
    """When the last tick was committed."""
    started: Seconds
    """When the session's totals began."""
    reporting: tuple[int, int]
    """Nodes whose agents report, and all nodes."""
    tot: Numbers
    """Sums over all rows, those that are not shown among them; see `COLUMNS`."""
    problem: str
    """Why what is shown is not current, and what to do; "" where it is."""


class Snapshot(Whole):
    """Everything; replaces what the client has."""

    t: Literal["snapshot"]
    v: int
    columns: tuple[str, ...]
    """`COLUMNS` as the server has them."""
    words: list[str]
    nodes: NodeColumns
    pods: PodColumns
    i: list[int]
    rows: RowColumns
    timeline: list[list[int]]
    """The last 15 minutes, the oldest first: `[Unix second, bytes per entry of TIMELINE_COLUMNS …]`.

    In a step that is missing nothing was reported.
    """
    sparks: Sparks


class Delta(Whole):
    """What changed since `base`."""

    t: Literal["delta"]
    base: int
    words: list[str]
    nodes: NodeColumns | None
    """All nodes anew; null where nothing of them changed."""
    i: list[int]
    rows: RowColumns
    add: PodColumns
    """Pods that came, and all fields of those of which any changed."""
    gone: list[int]
    """Ids of rows that are shown no more; those in `add` are to be taken after them."""
    timeline: list[list[int]]
    """Entries that changed or began, with all their numbers; the oldest ones of more than `TIMELINE_STEPS` go."""


class ScopeColumns(TypedDict):
    """The scopes of one pod's traffic, one value per scope that had any."""

    scope: list[str]
    tx: list[int]
    """Bytes since the session began."""
    rx: list[int]
    packets: list[int]
    """Of both directions, since the session began."""
    tx_rate: list[int | None]
    """Bytes per second."""
    rx_rate: list[int | None]


class PeerColumns(TypedDict):
    """One pod's peers, one value per peer, protocol, port and rule; those with the most bytes first."""

    address: list[str]
    """"" for what has none: frames that are not IP, and peers beyond the limit added up."""
    local: list[str]
    """The pod's own address, where it is known to have several."""
    name: list[str]
    namespace: list[Word]
    kind: list[Word]
    """`pod`, `service`, `node`, `cidr`, or ""."""
    protocol: list[Word]
    port: list[int | None]
    """The server's port; null where there is none."""
    server: list[Word]
    """Who has that port: `pod`, `peer`, or "" where nobody knows."""
    scope: list[Word]
    rule: list[Word]
    """Which rule of the ladder gave the scope."""
    via: list[Word]
    """`ingress` for what came through an ingress controller or gateway, else ""."""
    candidates: list[list[str]]
    """Pods (`namespace/pod`) that may be behind a Service or node, at most 100."""
    candidate_count: list[int]
    tx: list[int]
    """Bytes since the session began."""
    rx: list[int]
    packets: list[int]
    first: list[Seconds | None]
    last: list[Seconds | None]


class WatchedPod(TypedDict):
    """The watched pod."""

    t: Literal["pod"]
    pod: str
    """`namespace/pod`, as it was asked for."""
    epoch: int
    seq: int
    ts: Seconds
    uid: str
    """"" where no such pod is known."""
    container: str
    words: list[str]
    scopes: ScopeColumns
    peers: PeerColumns | None
    """null where they cannot be read; the next message may have them."""
    more: int
    """Peers beyond those in `peers`."""


Message = Snapshot | Delta | WatchedPod
"""What the server sends."""


class ClientMessage(TypedDict, total=False):
    """What a client may send, one field or more.

    A client answers every snapshot and delta with its `seq` as `ack`, and gets the next one only then.
    """

    ack: int
    hz: float
    """Messages a second, 1 unless it says otherwise; 0 pauses."""
    watch: str | None
    """A pod as `namespace/pod`; null ends watching."""
    snapshot: bool
    """True begins anew: what came does not fit to what is there."""


class Pod(NamedTuple):
    """A pod, its fields in the order of `PodColumns`; words are texts here."""

    id: int
    ns: str
    name: str
    node: str
    zone: str
    region: str
    owner_kind: str
    owner: str
    labels: tuple[str, ...]
    ips: tuple[str, ...]
    iface: str
    coverage: str
    scopes: int
    started: float | None
    ended: float | None


class Node(NamedTuple):
    """A node, its fields in the order of `NodeColumns`."""

    name: str
    zone: str
    region: str
    live: bool
    reported: float | None
    source: str
    interfaces: int


_WORDS: Final = ("ns", "node", "zone", "region", "owner_kind", "owner", "coverage")


class Words:
    """The list `words` of one message."""

    def __init__(self) -> None:
        self._places: dict[str, Word] = {"": 0}

    def place(self, text: str) -> Word:
        """Where a text stands in the list."""
        return self._places.setdefault(text, len(self._places))

    @property
    def listed(self) -> list[str]:
        """The list."""
        return list(self._places)


def pod_columns(pods: Sequence[Pod], words: Words) -> PodColumns:
    """Pods by column."""
    columns = by_column(Pod._fields, pods)
    for name in _WORDS:
        columns[name] = list(map(words.place, columns[name]))
    columns["labels"] = [list(map(words.place, labels)) for labels in columns["labels"]]
    return cast("PodColumns", columns)


def node_columns(nodes: Sequence[Node]) -> NodeColumns:
    """Nodes by column."""
    return cast("NodeColumns", by_column(Node._fields, nodes))


def row_columns(numbers: Sequence[Numbers]) -> RowColumns:
    """Rows' numbers by column."""
    return cast("RowColumns", by_column(COLUMNS, numbers))


def by_column(names: Sequence[str], entries: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """Entries of one value per name, turned around."""
    columns = list(zip(*entries, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}
