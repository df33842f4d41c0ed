"""What clients see of the mirror, and since when each part of it looks as it does."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from services.api import live_rows
from services.api.mirror import Mirror, RowView
from services.api.web_socket_frames import Frames, text_frames
from services.flows.keys import HISTORY_BUCKET_S
from services.flows.live_message import (
    COLUMNS,
    PROTOCOL,
    Delta,
    Node,
    Numbers,
    Pod,
    Snapshot,
    Sparks,
    Whole,
    Words,
    node_columns,
    pod_columns,
    row_columns,
)
from services.flows.traffic import Identity

_REMEMBERED: Final = 1000
"""Sequence numbers that a client may resume from: more than ticks are kept."""
_GONE_KEPT: Final = 10_000
"""Rows that went, for clients that have not heard of it; older clients get a snapshot."""
_MESSAGES_KEPT: Final = 16
"""Encoded messages: clients that keep up share one, those that lag have bases of their own."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a client has: a revision of the board, which was sent under `seq`."""

    revision: int
    seq: int


class _Named(NamedTuple):
    """A pod as it was made of a row; while the row has the same of both, it is the same pod."""

    pod: Pod
    identity: Identity
    scopes: int


@dataclass(slots=True)
class Board:
    """The rows of one epoch as clients know them; a message is encoded once for all that have the same base."""

    epoch: int
    revision: int = 0
    """Changes whenever there is news."""
    _whole: Whole | None = None
    _mirror: Mirror | None = None
    _seen: int = -1
    _live: frozenset[str] = frozenset()
    _shown: dict[str, RowView] | None = None
    _first: int = 1
    _pods: dict[int, _Named] = field(default_factory=dict)
    _numbers: dict[int, Numbers] = field(default_factory=dict)
    _pod_since: dict[int, int] = field(default_factory=dict)
    _since: dict[int, int] = field(default_factory=dict)
    _nodes: tuple[Node, ...] = ()
    _nodes_since: int = 0
    _timeline: dict[int, list[int]] = field(default_factory=dict)
    _timeline_since: dict[int, int] = field(default_factory=dict)
    _gone: deque[tuple[int, int]] = field(default_factory=deque)
    _revision_of: OrderedDict[int, int] = field(default_factory=OrderedDict)
    _messages: OrderedDict[int, Frames] = field(default_factory=OrderedDict)

    def base_of(self, epoch: int, seq: int) -> Base | None:
        """What a client has that got no further than `seq`; None where it must begin anew."""
        revision = self._revision_of.get(seq, 0) if epoch == self.epoch else 0
        # What the first revision shows was read, not followed: who has its number from another API process may have
        # been told of silent agents, or of a problem, of which this one never heard.
        return Base(revision, seq) if revision >= max(2, self._first) else None

    def update(self, mirror: Mirror, problem: str) -> None:
        """Take the mirror as it is now."""
        live, shown = mirror.live_nodes(), mirror.shown()
        # A mirror that was read anew counts its revisions anew; liveness and namesakes change rows that no tick names.
        everything = mirror is not self._mirror or live != self._live or shown is not self._shown
        changed = self._take_rows(mirror, -1 if everything else self._seen)
        if everything:
            changed |= self._drop({row.number for row in shown.values()}, mirror)
        self._mirror, self._live, self._shown, self._seen = mirror, live, shown, mirror.revision
        changed |= self._take_nodes(mirror) | self._take_timeline(mirror)
        whole = Whole(
            epoch=self.epoch,
            seq=mirror.n,
            # The time of the last tick, not of now: it alone would be news to nobody.
            ts=mirror.at_us / 1e6,
            started=mirror.session.started_us / 1e6,
            reporting=(len(live), len(mirror.nodes)),
            tot=live_rows.summed(self._numbers.values(), known=bool(live)),
            problem=problem,
        )
        if not changed and whole == self._whole:
            return
        self._whole = whole
        self.revision += 1
        self._messages.clear()
        self._revision_of.setdefault(mirror.n, self.revision)
        while len(self._revision_of) > _REMEMBERED:
            self._revision_of.popitem(last=False)

    def news(self, base: Base | None) -> tuple[Base, Frames] | None:
        """What a client with `base` is to be sent, and what it has then; None where it has everything."""
        if self._whole is None or (base is not None and base.revision == self.revision):
            return None
        if base is not None and base.revision < self._first:
            base = None
        key = base.revision if base else 0
        frames = self._messages.get(key)
        if frames is None:
            message = self._snapshot(self._whole) if base is None else self._delta(self._whole, base)
            frames = self._messages[key] = text_frames(orjson.dumps(message))
            if len(self._messages) > _MESSAGES_KEPT:
                self._messages.popitem(last=False)
        return Base(self.revision, self._whole["seq"]), frames

    def _take_rows(self, mirror: Mirror, seen: int) -> bool:
        """Take rows that changed after the mirror's revision `seen`; whether anything is new."""
        revision, shown, news = self.revision + 1, mirror.shown(), False
        for row in mirror.rows.values():
            if row.revision <= seen:
                continue
            taken = live_rows.numbers(row, live=mirror.live_row(row))
            if self._numbers.get(row.number) != taken:
                self._numbers[row.number], self._since[row.number], news = taken, revision, True
            if shown[row.identity.key] is row and self._renamed(row):
                self._pod_since[row.number], news = revision, True
        return news

    def _renamed(self, row: RowView) -> bool:
        """Take what a row is called; whether that is new. Most rows change only their numbers."""
        before = self._pods.get(row.number)
        if before and before.identity is row.identity and before.scopes == len(row.totals):
            return False
        now = self._pods[row.number] = _Named(live_rows.pod(row), row.identity, len(row.totals))
        return before is None or before.pod != now.pod

    def _take_nodes(self, mirror: Mirror) -> bool:
        nodes = live_rows.nodes(mirror, live_rows.places(named.pod for named in self._pods.values()))
        if nodes == self._nodes:
            return False
        self._nodes, self._nodes_since = nodes, self.revision + 1
        return True

    def _take_timeline(self, mirror: Mirror) -> bool:
        changed = [number for number, columns in mirror.timeline.items() if self._timeline.get(number) != columns]
        for number in changed:
            self._timeline[number], self._timeline_since[number] = list(mirror.timeline[number]), self.revision + 1
        for number in self._timeline.keys() - mirror.timeline.keys():
            del self._timeline[number], self._timeline_since[number]
        return bool(changed)

    def _drop(self, shown: set[int], mirror: Mirror) -> bool:
        """Forget rows that are there no more, or shown no more; whether there are any."""
        for number in self._numbers.keys() - mirror.rows.keys():
            del self._numbers[number], self._since[number]
        gone = self._pods.keys() - shown
        for number in gone:
            del self._pods[number], self._pod_since[number]
            self._gone.append((self.revision + 1, number))
        while len(self._gone) > _GONE_KEPT:
            self._first = max(self._first, self._gone.popleft()[0])
        return bool(gone)

    def _snapshot(self, whole: Whole) -> Snapshot:
        words, ids = Words(), list(self._pods)
        pods = pod_columns([named.pod for named in self._pods.values()], words)
        return Snapshot(
            **whole,
            t="snapshot",
            v=PROTOCOL,
            columns=COLUMNS,
            words=words.listed,
            nodes=node_columns(self._nodes),
            pods=pods,
            i=ids,
            rows=row_columns([self._numbers[number] for number in ids]),
            timeline=self._buckets(self._timeline),
            sparks=self._sparks(ids),
        )

    def _delta(self, whole: Whole, base: Base) -> Delta:
        words, since = Words(), base.revision
        ids = [number for number in self._pods if self._since[number] > since or self._pod_since[number] > since]
        add = [named.pod for number, named in self._pods.items() if self._pod_since[number] > since]
        pods = pod_columns(add, words)
        return Delta(
            **whole,
            t="delta",
            base=base.seq,
            words=words.listed,
            nodes=node_columns(self._nodes) if self._nodes_since > since else None,
            i=ids,
            rows=row_columns([self._numbers[number] for number in ids]),
            add=pods,
            gone=[number for revision, number in self._gone if revision > since],
            timeline=self._buckets(number for number, revision in self._timeline_since.items() if revision > since),
        )

    def _buckets(self, chosen: Iterable[int]) -> list[list[int]]:
        return [[number * HISTORY_BUCKET_S, *self._timeline[number]] for number in sorted(chosen)]

    def _sparks(self, ids: Iterable[int]) -> Sparks:
        assert self._mirror is not None, "a board that has anything to say has a mirror"
        mirror = self._mirror
        return Sparks(until=mirror.spark_until_s, of=[mirror.spark(mirror.rows[number]) for number in ids])
