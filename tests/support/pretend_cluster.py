"""A cluster that is only pretended: its live messages and REST answers, of any size, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.flows import live_message as lm

NAMESPACES = (
    *("shop", "payments", "search", "data", "kube-system", "monitoring", "ingress", "auth"),
    *("mail", "batch", "media", "ci", "logging", "ml-serving", "edge", "backoffice"),
)
WORKLOADS = ("web", "api", "worker", "cache", "database", "gateway", "indexer", "scheduler", "proxy", "exporter")
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
START_S = 1_790_000_000.0
_STEP_S = lm.TIMELINE_STEP_S


@dataclass(slots=True)
class PretendCluster:
    """Pods with rates that wander; each `tick` is a second."""

    pods_wanted: int
    nodes_wanted: int = 42
    seed: int = 1
    epoch: int = 7
    changing: float = 0.5
    """The part of all rows that changes in a tick."""
    seq: int = 100
    ts: float = START_S
    silent_nodes: int = 1
    problem: str = ""
    talks_with: int = 6
    """Pods that are peers of a watched one."""
    more_peers: int = 0
    """Peers of it that the message leaves out."""
    pods: dict[int, lm.Pod] = field(default_factory=dict)
    numbers: dict[int, lm.Numbers] = field(default_factory=dict)
    timeline: list[list[int]] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)
    _scale: dict[int, tuple[float, ...]] = field(default_factory=dict)
    _gone: list[int] = field(default_factory=list)
    _added: list[int] = field(default_factory=list)
    _next: int = 1

    def __post_init__(self) -> None:
        self._random.seed(self.seed)
        for _ in range(self.pods_wanted):
            self.add_pod()
        self._added.clear()
        for at in range(lm.TIMELINE_STEPS):
            second = int(self.ts // _STEP_S - lm.TIMELINE_STEPS + 1 + at) * _STEP_S
            swell = 1 + 0.5 * ((at % 60) / 60) + (1.5 if 90 < at < 104 else 0) + self._random.random() * 0.2
            self.timeline.append([second, *(int(size * swell * _STEP_S) for size in self._mix())])

    def add_pod(self, name: str = "", namespace: str = "", **fields: Any) -> int:
        """One more pod; its id."""
        number, draw = self._next, self._random
        self._next += 1
        ns = namespace or NAMESPACES[min(int(draw.expovariate(0.25)), len(NAMESPACES) - 1)]
        node = draw.randrange(self.nodes_wanted)
        owner = f"{draw.choice(WORKLOADS)}-{''.join(draw.choices(_LETTERS, k=9))}"
        pod = lm.Pod(
            id=number,
            ns=ns,
            name=name or f"{owner}-{''.join(draw.choices(_LETTERS, k=5))}",
            node=f"node-{node + 1:02}",
            zone=f"eu-1{'abc'[node % 3]}",
            region="eu-1",
            owner_kind="" if name else "ReplicaSet",
            owner="" if name else owner,
            labels=(f"app={owner.partition('-')[0]}", f"tier={'front' if number % 3 else 'back'}"),
            ips=(f"10.{42 + number // 65536}.{number // 256 % 256}.{number % 256}", f"fd42:706c::{number:x}"),
            iface=f"veth{number:06x}",
            coverage="full",
            scopes=0b100000001110,
            started=self.ts - 3600 * draw.random() * 40,
            ended=None,
        )._replace(**fields)
        scale = draw.lognormvariate(11, 2.2)
        shares = [draw.random() ** power for power in (1, 3, 5, 8, 8, 12)]
        self._scale[number] = tuple(scale * share / sum(shares) for share in shares)
        self.pods[number] = pod
        self.numbers[number] = self._drawn(number)
        self._added.append(number)
        return number

    def remove_pod(self, number: int) -> None:
        """A pod that is shown no more."""
        del self.pods[number], self.numbers[number], self._scale[number]
        self._gone.append(number)

    def change_pod(self, number: int, **fields: Any) -> None:
        """A pod that is called otherwise, or ended."""
        self.pods[number] = self.pods[number]._replace(**fields)
        self._added.append(number)

    def set_numbers(self, number: int, **rates: int | None) -> None:
        """What a row says from the next tick on that leaves it alone."""
        now = dict(zip(lm.COLUMNS, self.numbers[number], strict=True)) | rates
        self.numbers[number] = tuple(now[name] for name in lm.COLUMNS)

    def snapshot(self) -> dict[str, Any]:
        """Everything."""
        words = lm.Words()
        pods = lm.pod_columns(list(self.pods.values()), words)
        ids = list(self.pods)
        rates = [(self.numbers[number][0] or 0) + (self.numbers[number][1] or 0) for number in ids]
        sparks = [[int(rate * _STEP_S * (0.6 + 0.8 * self._random.random())) for _ in range(12)] for rate in rates]
        return {
            "t": "snapshot",
            "v": lm.PROTOCOL,
            **self._whole(),
            "columns": lm.COLUMNS,
            "words": words.listed,
            "nodes": self._nodes(),
            "pods": pods,
            "i": ids,
            "rows": lm.row_columns([self.numbers[number] for number in ids]),
            "timeline": self.timeline,
            "sparks": {"until": (self.ts // _STEP_S + 1) * _STEP_S, "of": sparks},
        }

    def tick(self, *, base: int | None = None) -> dict[str, Any]:
        """A second later: what changed since `base`, which is the last message if not said."""
        before = self.seq if base is None else base
        self.seq, self.ts = self.seq + 1, self.ts + 1
        changed = [number for number in self.pods if self._random.random() < self.changing]
        for number in changed:
            self.numbers[number] = self._drawn(number)
        return self.delta(before, changed)

    def delta(self, base: int, changed: Iterable[int]) -> dict[str, Any]:
        """A message of rows that changed, and of pods that came and went since the last one."""
        words, ids = lm.Words(), list(dict.fromkeys((*changed, *self._added)))
        entry = [int(self.ts // _STEP_S) * _STEP_S, *(int(size * _STEP_S) for size in self._mix())]
        if entry[0] == self.timeline[-1][0]:
            entry[1:] = [int(size * (self.ts - entry[0]) / _STEP_S) for size in entry[1:]]
            self.timeline[-1] = entry
        else:
            self.timeline = [*self.timeline[1:], entry]
        message = {
            "t": "delta",
            "base": base,
            **self._whole(),
            "words": words.listed,
            "nodes": None,
            "i": ids,
            "rows": lm.row_columns([self.numbers[number] for number in ids]),
            "add": lm.pod_columns([self.pods[number] for number in dict.fromkeys(self._added)], words),
            "gone": list(self._gone),
            "timeline": [entry],
        }
        message["words"] = words.listed
        self._added.clear()
        self._gone.clear()
        return message

    def watched(self, key: str) -> dict[str, Any]:
        """A pod's scopes and peers: some of the other pods, a Service and hosts outside."""
        words, found = lm.Words(), next((pod for pod in self.pods.values() if f"{pod.ns}/{pod.name}" == key), None)
        whole = {"t": "pod", "pod": key, "epoch": self.epoch, "seq": self.seq, "ts": self.ts}
        names = ("scope", "tx", "rx", "packets", "tx_rate", "rx_rate")
        nobody = {"uid": "", "container": "", "words": [""], "scopes": {name: [] for name in names}}
        if found is None:
            return {**whole, **nobody, "peers": None, "more": 0}
        scale = int(self.ts - START_S + 600)
        scopes = [("same-node", 900, 1200), ("cross-zone", 400, 90), ("internet", 300, 20), ("private", 40, 60)]
        peers = self._peers(found, scale, words)
        return {
            **whole,
            "uid": f"uid-{found.id}",
            "container": "",
            "scopes": lm.by_column(
                names, [(name, tx * scale, rx * scale, tx + rx, tx * 10, rx * 10) for name, tx, rx in scopes]
            ),
            "peers": peers,
            "words": words.listed,
            "more": self.more_peers,
        }

    def _peers(self, pod: lm.Pod, scale: int, words: lm.Words) -> dict[str, Any]:
        names = ("address", "local", "name", "namespace", "kind", "protocol", "port", "server", "scope", "rule", "via")
        others = [one for one in self.pods.values() if one.id != pod.id][: self.talks_with]
        w = words.place
        rows: list[tuple[Any, ...]] = []
        for at, one in enumerate(others):
            near, port = at % 2, (443, 5432, 6379, 8080, 9090, 53)[at % 6]
            why = ("peer", "same-node", "pod-same-node") if near else ("pod", "cross-zone", "pod-cross-zone")
            told = (one.ips[0], "", one.name, w(one.ns), w("pod"), w("tcp"), port)
            rows.append((*told, *map(w, why), w("")))
        dns, outside, vpc = (10, "kube-dns", 53), (20, "", 443), (15, "vpc", 5432)
        for (host, name, port), ns, kind, protocol, scope, rule in (
            (dns, "kube-system", "service", "udp", "service", "service"),
            (outside, "", "", "tcp", "internet", "public"),
            (vpc, "", "cidr", "tcp", "private", "user-cidr"),
        ):
            told = (f"203.0.113.{host}", "", name, w(ns), w(kind), w(protocol), port)
            rows.append((*told, *map(w, ("peer", scope, rule)), w("")))
        columns = lm.by_column(names, rows)
        columns["candidates"] = [["kube-system/coredns-1"] if row[2] == "kube-dns" else [] for row in rows]
        columns["candidate_count"] = [len(listed) for listed in columns["candidates"]]
        columns["tx"] = [scale * 400 // (at + 1) for at in range(len(rows))]
        columns["rx"] = [scale * 900 // (at + 2) for at in range(len(rows))]
        columns["packets"] = [scale] * len(rows)
        columns["first"] = [START_S - 500] * len(rows)
        columns["last"] = [self.ts] * len(rows)
        return columns

    def _drawn(self, number: int) -> lm.Numbers:
        if int(self.pods[number].node[-2:]) <= self.silent_nodes:
            return (*([None] * (len(lm.COLUMNS) - 1)), 1000)
        local, up, down, cross, private, other = (
            int(size * (0.7 + 0.6 * self._random.random())) for size in self._scale[number]
        )
        all_ = local + up + down + cross + private + other
        tx = int(all_ * 0.4)
        return (tx, all_ - tx, local, cross, private, up, down, other, all_ % 17, int(all_ * (self.ts - START_S + 600)))

    def _mix(self) -> list[int]:
        sums = self._sums()
        return [sums[2], sums[3], sums[4], sums[5] + sums[6], sums[7]]

    def _sums(self) -> Sequence[int]:
        return [sum(value or 0 for value in column) for column in zip(*self.numbers.values(), strict=True)] or [0] * 10

    def _whole(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "seq": self.seq,
            "ts": self.ts,
            "started": START_S - 600,
            "reporting": [self.nodes_wanted - self.silent_nodes, self.nodes_wanted],
            "tot": self._sums(),
            "problem": self.problem,
        }

    def _nodes(self) -> lm.NodeColumns:
        return lm.node_columns(
            [
                lm.Node(
                    name=f"node-{at + 1:02}",
                    zone=f"eu-1{'abc'[at % 3]}",
                    region="eu-1",
                    live=at >= self.silent_nodes,
                    reported=None if at >= self.silent_nodes else self.ts - 40,
                    source="tcx",
                    interfaces=self.pods_wanted // self.nodes_wanted,
                )
                for at in range(self.nodes_wanted)
            ]
        )
