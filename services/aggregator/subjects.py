"""Whose the flows of windows are, by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from services.aggregator.attachments import PCAP, Points
from services.aggregator.point import Subject
from services.aggregator.sums import Mask, Numbers
from services.aggregator.verdicts import Verdicts
from services.flows.address import from_words, to_words
from services.flows.delta import Batch, Rows, Window
from services.flows.scope import Pod
from services.flows.table import Words, group_columns

_NO_ADDRESS: Final = (1 << 64) - 1, (1 << 64) - 1
"""Multicast, which nobody has."""


class Subjects(NamedTuple):
    """One line per flow."""

    which: Numbers
    """The place in `pods`."""
    pods: list[Pod]
    rows: Numbers
    names: Numbers
    places: Numbers
    once: Mask
    """Whether the other end's agent may report the same bytes."""
    as_node: Mask
    """Whether the other end's agent takes it for its node."""
    own: list[tuple[Words, Words]]
    """The pod's own addresses: a pair of words for the first one, and so on."""


def subjects_of(
    windows: Sequence[tuple[Batch, Window]], keys: Rows, which_window: Numbers, points: Points, verdicts: Verdicts
) -> Subjects:
    """The subjects of flows by their keys; the local address stays only where it tells whose a flow is."""
    found: list[Subject] = []
    known: list[int] = []
    several: list[tuple[int, Batch, Window, int]] = []
    for at, (batch, window) in enumerate(windows):
        for attachment in window.attachments:
            point = points.known[batch.boot, attachment.id]
            known.append(at << 32 | attachment.id)
            if point.source == PCAP:
                several.append((len(found), batch, window, attachment.id))
            found.append(point.subject or points.subject(point))
    listed = np.array(known, np.int64)
    order = np.argsort(listed)
    wanted = which_window << 32 | keys["attachment"]
    which = order[np.searchsorted(listed[order], wanted)] if len(wanted) else np.zeros(0, np.int64)
    keep = np.zeros(len(keys), np.bool_)
    for at, batch, window, number in several:
        start, end = batch.times(window)
        points.directory.at(start - batch.error_us, end + batch.error_us)
        mine = np.flatnonzero(which == at)
        keep[mine] = True
        which[mine] = _by_address(keys[mine], (batch.boot, number), points, found)
    for word in ("local_hi", "local_lo"):
        keys[word] = np.where(keep, keys[word], np.uint64(0))
    columns = [(one.row, one.name, one.once, one.as_node) for one in found]
    rows, names, once, as_node = np.array(columns, np.int64).reshape(-1, 4).T
    places = np.array([verdicts.places.number(one.pod.place) for one in found], np.int64)
    return Subjects(
        which=which,
        pods=[one.pod for one in found],
        rows=rows[which],
        names=names[which],
        places=places[which],
        once=once.astype(np.bool_)[which],
        as_node=as_node.astype(np.bool_)[which],
        own=_own(found, which),
    )


def _own(found: list[Subject], which: Numbers) -> list[tuple[Words, Words]]:
    most = max((len(one.own) for one in found), default=0)
    columns = []
    for at in range(most):
        words = np.array([one.own[at] if at < len(one.own) else _NO_ADDRESS for one in found], np.uint64)
        columns.append((words[which, 0], words[which, 1]))
    return columns


def _by_address(keys: Rows, key: tuple[str, int], points: Points, found: list[Subject]) -> Numbers:
    """The subjects of flows of a point behind which many pods are; new ones are added to `found`."""
    point = points.known[key]
    words = [keys["local_lo"].copy(), keys["local_hi"].copy()]
    first, inverse = group_columns(words)
    numbers = []
    for lo, hi in zip(*(column[first].tolist() for column in words), strict=True):
        address = from_words(hi, lo) if hi or lo else None
        row, pod = points.by_address(point, address)
        own = points.directory.addresses(pod) or frozenset(() if address is None else (address,))
        numbers.append(len(found))
        # A file holds each packet once, whoever's it is.
        name = points.names.number(points.rows.by_number[row].identity.uid)
        found.append(Subject(row, name, pod, tuple(map(to_words, own)), once=False))
    return np.array(numbers, np.int64)[inverse]
