"""An address goes from pod to pod while the aggregator starts anew and batches are late: no second is the wrong pod's."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from services.aggregator.directory import objects
from services.aggregator.directory.cluster import ClusterDirectory
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import NodeObject
from services.aggregator.directory.ranges import UserRanges
from services.flows import address
from services.flows.scope import Ambiguous
from tests.support import kube_objects
from tests.support.agents import SECOND

IP: Final = "10.1.0.2"
BEGAN: Final = 1_795_428_000
"""When the first pod is made, in Unix seconds: so many that nothing is older than what is remembered."""
LAG_S: Final = 0.5
"""By how much a watch is behind."""
Pods = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Life:
    """One pod's time with the address."""

    pause: int
    """Seconds for which nobody has it before."""
    pull: int
    """Seconds for which the pod waits for its images before."""
    long: int
    kept: int
    """Seconds for which it stays when it has ended; 0 where it is deleted at once."""


@dataclass
class Cluster:
    """The API server's pods, and a directory that follows them."""

    now_s: float = BEGAN
    pods: Pods = field(default_factory=dict)
    directory: ClusterDirectory = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """An aggregator starts: it knows what a list tells."""
        self.directory = ClusterDirectory(lambda: int(self.now_s * SECOND), UserRanges(), Ingress())
        network = ipaddress.ip_network("10.1.0.0/24")
        self.directory.nodes.put("node-a", NodeObject("node-a", (), (network,), "z", "r"))
        for uid, one in self.pods.items():
            self.directory.pods.put(uid, objects.pod(one))

    def put(self, uid: str, status: dict[str, Any]) -> None:
        """The server tells of a pod."""
        one = kube_objects.pod("shop", uid, node="node-a") | {"status": status}
        one["metadata"]["uid"] = uid
        self.pods[uid] = one
        self.directory.pods.put(uid, objects.pod(one))

    def remove(self, uid: str) -> None:
        """The server tells that a pod is gone."""
        if self.pods.pop(uid, None) is not None:
            self.directory.pods.remove(uid)

    def owner(self, second: int) -> str | None:
        """Who had the address in a second; None where nobody can say."""
        self.directory.refresh()
        self.directory.at(second * SECOND, (second + 1) * SECOND)
        try:
            found = self.directory.pod(address.parse(IP))
        except Ambiguous:
            return None
        return found.uid if found else None


def moments(cluster: Cluster, lives: list[Life]) -> tuple[list[tuple[float, Callable[[], None]]], dict[int, str]]:
    """What the server tells and when, and who really had the address in each second."""
    at = BEGAN
    told: list[tuple[float, Callable[[], None]]] = []
    had: dict[int, str] = {}
    for number, life in enumerate(lives):
        uid = f"pod-{number}"
        begins = at + life.pause
        ends = begins + life.long
        runs = kube_objects.lived([IP], from_s=begins, container="containerd://1")
        runs["startTime"] = kube_objects.lived([IP], from_s=begins - life.pull)["startTime"]
        waits = {"phase": "Pending", "startTime": runs["startTime"]}
        over = kube_objects.lived([IP], from_s=begins, to_s=ends)
        told += [
            (begins - life.pull + LAG_S, partial(cluster.put, uid, waits)),
            (begins + LAG_S, partial(cluster.put, uid, runs)),
            (ends + life.kept + LAG_S, partial(cluster.remove, uid)),
        ]
        if life.kept:
            told.append((ends + LAG_S, partial(cluster.put, uid, over)))
        had |= dict.fromkeys(range(begins, ends), uid)
        at = ends
    return told, had


lives = st.lists(
    st.builds(Life, st.integers(1, 4), st.integers(0, 9), st.integers(1, 8), st.integers(0, 12)), min_size=1, max_size=5
)


@settings(max_examples=300)
@given(
    lives=lives,
    starts=st.sets(st.integers(0, 70), max_size=3),
    delays=st.lists(st.integers(0, 25), min_size=1, max_size=9),
)
def test_no_second_is_the_wrong_pods(lives: list[Life], starts: set[int], delays: list[int]) -> None:
    cluster = Cluster()
    happens, had = moments(cluster, lives)
    happens += [(BEGAN + start + 0.25, cluster.begin) for start in starts]
    told: dict[int, str | None] = {}

    def ask(second: int) -> None:
        told[second] = cluster.owner(second)

    for number, second in enumerate(had):
        # A window is closed a second after it began, and comes then or later.
        happens.append((second + 1 + LAG_S + delays[number % len(delays)], partial(ask, second)))
    for at, happen in sorted(happens, key=lambda one: one[0]):
        cluster.now_s = at
        happen()
    assert {second: who for second, who in told.items() if who not in {None, had[second]}} == {}
    if not starts:
        assert told == had, "who watches all the time knows each second"
