"""A cluster's directory as the aggregator keeps it, in the test's own process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.aggregator.cluster_watch import watching
from services.aggregator.directory.cluster import ClusterDirectory
from services.flows.address import parse
from services.flows.scope import Ambiguous, Pod
from services.runtime.settings import AggregatorSettings
from services.runtime.supervise import Stop
from tests.support.wait import until

SOON_S: Final = 20.0
"""Pauses after a failure grow, and the machine may be busy."""


def now_us() -> int:
    """Wall time in microseconds."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Watched:
    """Short questions to a directory."""

    directory: ClusterDirectory

    def pod(self, address: str, *, at_us: int = 0) -> Pod | None:
        """Who had an address in the microsecond `at_us` (0: has it now); raises Ambiguous."""
        start = at_us or now_us()
        self.directory.at(start, start + 1)
        return self.directory.pod(parse(address))

    def name(self, address: str, *, at_us: int = 0) -> str:
        """That pod's name; empty for none, `?` for several."""
        try:
            found = self.pod(address, at_us=at_us)
        except Ambiguous:
            return "?"
        return found.name if found else ""

    def service(self, address: str) -> str:
        """The name of the Service with an address; empty for none."""
        found = self.directory.service(parse(address))
        return found.name if found else ""

    def node(self, address: str) -> str:
        """The name of the node with an address or with it as its gateway; empty for none."""
        one = parse(address)
        found = self.directory.node(one) or self.directory.node_gateway(one)
        return found.name if found else ""

    def in_range(self, address: str) -> bool:
        """Whether it lies in a pod or Service range."""
        return self.directory.in_cluster_range(parse(address))

    async def knows(self, address: str, name: str) -> None:
        """Wait until that pod has an address; without a name, until no pod has it."""
        await until(lambda: self.name(address) == name, f"{address} belongs to {name or 'nobody'}", SOON_S)


@asynccontextmanager
async def watched(kubeconfig: Path, context: str = "") -> AsyncIterator[Watched]:
    """The directory of the cluster of a kubeconfig's `context`, kept while inside."""
    settings = AggregatorSettings(kubeconfig=str(kubeconfig), kube_context=context)
    async with watching(settings, now_us, Stop()) as directory:
        yield Watched(directory)
