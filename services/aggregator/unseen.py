"""How much of what passed pods unseen is new for the cluster: what the other ends told of it is there already.

A pod whose interface counted what no source saw may have got that from another watched pod, which counted it. So
what passed unseen waits until all agents have told of its time; then that part is new which the other ends did not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from services.aggregator.names import Names
from services.aggregator.pairs import Pairs
from services.aggregator.sums import Mask
from services.flows.delta import InterfaceCounters
from services.flows.traffic import ROW_COUNTERS

_WAYS: Final = {way: [ROW_COUNTERS.index(f"{way}_{name}") for name in ("bytes", "packets")] for way in ("tx", "rx")}


@dataclass(slots=True)
class Pod:
    """A pod that something passed unseen; both lists are as `InterfaceCounters`.

    `elsewhere` is what the other ends told, less what of that is known to be a part of what passed unseen.
    """

    waiting: list[tuple[int, InterfaceCounters]] = field(default_factory=list)
    """With the times until which it passed."""
    elsewhere: list[int] = field(default_factory=lambda: [0] * 4)


@dataclass(slots=True)
class Unseen:
    """All pods that something passed unseen."""

    names: Names
    pods: dict[str, Pod] = field(default_factory=dict)
    waiting_bytes: int = 0

    def hide(self, uid: str, end_us: int, counters: InterfaceCounters) -> None:
        """Something passed a pod unseen."""
        self.pods.setdefault(uid, Pod()).waiting.append((end_us, counters))
        self.waiting_bytes += counters.tx_bytes + counters.rx_bytes

    def attributed(self, uid: str, bytes_: int, packets: int) -> None:
        """So much of what others told to have sent to a pod is not among what passed it unseen any more."""
        elsewhere = self.pods.setdefault(uid, Pod()).elsewhere
        elsewhere[2] -= bytes_
        elsewhere[3] -= packets

    def told(self, pairs: Pairs, *, by_sender: bool) -> None:
        """What is in the cluster's totals as one end told it."""
        if not self.pods or not len(pairs):
            return
        numbers = {self.names.number(uid): uid for uid in self.pods}
        some: Mask = np.isin(pairs.others, list(numbers))
        first, columns = (2, _WAYS["tx"]) if by_sender else (0, _WAYS["rx"])
        for other, (bytes_, packets) in zip(
            pairs.others[some].tolist(), pairs.counts[some][:, columns].tolist(), strict=True
        ):
            elsewhere = self.pods[numbers[other]].elsewhere
            elsewhere[first] += bytes_
            elsewhere[first + 1] += packets

    def settle(self, until_us: int) -> tuple[InterfaceCounters, int]:
        """What of that which passed until then is new for the cluster, and how many bytes are not."""
        new, known = [0] * 4, 0
        for pod in self.pods.values():
            due = [counters for end_us, counters in pod.waiting if end_us <= until_us]
            if not due:
                continue
            pod.waiting = [one for one in pod.waiting if one[0] > until_us]
            for at in range(4):
                whole = sum(counters.four[at] for counters in due)
                taken = min(whole, max(0, pod.elsewhere[at]))
                pod.elsewhere[at] -= taken
                new[at] += whole - taken
                if at in {0, 2}:
                    known += taken
                    self.waiting_bytes -= whole
        return InterfaceCounters(*new), known

    def rename(self, old: str, new: str) -> None:
        """Follow a pod that turned out to have another uid."""
        pod = self.pods.pop(old, None)
        if pod is not None:
            into = self.pods.setdefault(new, Pod())
            into.waiting += pod.waiting
            into.elsewhere = [a + b for a, b in zip(into.elsewhere, pod.elsewhere, strict=True)]

    def shift(self, step_us: int) -> None:
        """Redis's clock was set."""
        for pod in self.pods.values():
            pod.waiting = [(end_us + step_us, counters) for end_us, counters in pod.waiting]

    def stored(self) -> list[Any]:
        """Everything as plain values, for the store."""
        return [
            [uid, [[end_us, *counters.four] for end_us, counters in pod.waiting], pod.elsewhere]
            for uid, pod in self.pods.items()
        ]

    def restore(self, stored: list[Any]) -> None:
        """Take what `stored` gave."""
        for uid, waiting, elsewhere in stored:
            for end_us, *four in waiting:
                self.hide(uid, end_us, InterfaceCounters(*four))
            self.pods.setdefault(uid, Pod()).elsewhere = elsewhere
