"""A cluster of many nodes as an aggregator meets it: a directory of pods, and the batches that agents send each second."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from services.aggregator.directory.cluster import ClusterDirectory
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import NodeObject, PodObject
from services.aggregator.directory.ranges import UserRanges
from services.flows import address
from services.flows.delta import FLOW, Attachment, Batch, InterfaceCounters, Kind, Rows, Side, Window
from services.flows.protocols import TCP
from tests.support.agents import SECOND, attachment

BEGAN: Final = 100
_INTERNET: Final = (0xFFFF << 32) | (8 << 24)
"""The low word of 8.0.0.0."""
_COUNTED: Final = ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")


@dataclass(frozen=True)
class ManyNodes:
    """`pods` on each of `nodes` talk with `friends` other pods each, and send as many further flows to the internet.

    Each second every pod has the same `flows`, as pods do: connections stay, and services are asked again.
    """

    nodes: int
    pods: int
    flows: int
    friends: int = 10
    internet: int = 20_000
    """Addresses in the internet that anybody talks with."""
    seed: int = 1
    began: int = BEGAN
    """The second at which they begin to talk."""
    _flows: dict[int, Rows] = field(default_factory=dict)
    _points: dict[int, list[tuple[Attachment, tuple[int, ...]]]] = field(default_factory=dict)

    def directory(self) -> ClusterDirectory:
        """Who has which address."""
        directory = ClusterDirectory(lambda: BEGAN * SECOND, UserRanges(), Ingress())
        for node in range(self.nodes):
            network = ipaddress.ip_network(f"10.{node >> 8}.{node & 255}.0/24")
            directory.nodes.put(f"node-{node}", NodeObject(f"node-{node}", (), (network,), f"zone-{node % 3}", "r"))
            for pod in range(self.pods):
                directory.pods.put(f"{node}-{pod}", self._object(node, pod))
        return directory

    def second(self, at: int) -> Iterator[Batch]:
        """What all agents send of one second."""
        start = (self.began + at) * SECOND
        for node in range(self.nodes):
            window = Window(start, start + SECOND, self._attachments(node, at + 1), self._of(node), {})
            yield Batch(f"node-{node}", f"boot-{node}", at + 1, 0, 0, (window,), {})

    def address(self, node: int, pod: int) -> str:
        """The address of a pod."""
        return f"10.{node >> 8}.{node & 255}.{pod + 2}"

    def _object(self, node: int, pod: int) -> PodObject:
        return PodObject(
            uid=f"{node}-{pod}",
            namespace=f"team-{pod % 20}",
            name=f"pod-{node}-{pod}",
            node=f"node-{node}",
            addresses=(address.parse(self.address(node, pod)),),
            host_network=False,
            ended=False,
            started_us=SECOND,
            began_us=SECOND,
            ended_us=0,
            owner_kind="Deployment",
            owner_name=f"app-{pod}",
            container_id="",
            labels=(),
        )

    def _attachments(self, node: int, seconds: int) -> tuple[Attachment, ...]:
        """The interfaces of a node, which counted all of so many seconds."""
        if node not in self._points:
            flows = self._of(node)
            each = [flows[name].reshape(self.pods, -1).sum(axis=1).tolist() for name in _COUNTED]
            points = [attachment(pod + 1, self.address(node, pod)) for pod in range(self.pods)]
            self._points[node] = list(zip(points, zip(*each, strict=True), strict=True))
        return tuple(
            replace(point, counters=InterfaceCounters(*(seconds * count for count in counts)))
            for point, counts in self._points[node]
        )

    @cached_property
    def _words(self) -> npt.NDArray[np.uint64]:
        """The low word of each pod's address, by node and pod."""
        every = [
            address.to_words(address.parse(self.address(node, pod)))[1]
            for node in range(self.nodes)
            for pod in range(self.pods)
        ]
        return np.array(every, np.uint64).reshape(self.nodes, self.pods)

    def _of(self, node: int) -> Rows:
        if node not in self._flows:
            self._flows[node] = self._made(node)
        return self._flows[node]

    def _made(self, node: int) -> Rows:
        random = np.random.default_rng((self.seed, node))
        flows = np.zeros(self.pods * self.flows, FLOW)
        whose = np.repeat(np.arange(self.pods), self.flows)
        flows["attachment"] = whose + 1
        flows["kind"], flows["protocol"], flows["server"] = Kind.IP, TCP, Side.PEER
        flows["port"] = random.integers(1, 65536, len(flows))
        flows["local_lo"] = self._words[node][whose]
        friends = self._words.reshape(-1)[random.integers(0, self._words.size, (self.pods, self.friends))]
        peers = friends[whose, random.integers(0, self.friends, len(flows))]
        outside = random.random(len(flows)) < 0.5
        strangers = random.integers(0, self.internet, len(flows)).astype(np.uint64) + np.uint64(_INTERNET)
        flows["peer_lo"] = np.where(outside, strangers, peers)
        for way in ("tx", "rx"):
            flows[f"{way}_bytes"] = random.integers(100, 100_000, len(flows))
            flows[f"{way}_packets"] = flows[f"{way}_bytes"] // 100
        return flows
