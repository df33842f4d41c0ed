"""Watches a Kubernetes cluster for as long as the aggregator works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from services.aggregator.directory.cluster import ClusterDirectory
from services.aggregator.directory.ingress import Ingress
from services.aggregator.directory.objects import ENDPOINTS, NODES, PODS, RANGES, SERVICES
from services.aggregator.directory.ranges import UserRanges
from services.aggregator.directory.reflector import Reflector
from services.runtime.kubernetes_api import KubernetesApi
from services.runtime.log import get_logger
from services.runtime.settings import AggregatorSettings
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_FIRST_LISTS_S: Final = 10.0
"""How long the first packets wait for the first lists: verdicts are final, and without lists they say little."""
_LOOK_S: Final = 0.05


@asynccontextmanager
async def watching(
    settings: AggregatorSettings, now_us: Callable[[], int], stop: Stop
) -> AsyncIterator[ClusterDirectory]:
    """The directory of the cluster of `settings`, kept up to date while inside; raises UsageError."""
    api = await KubernetesApi.connect(settings.kubeconfig, settings.kube_context)
    ranges = UserRanges(settings.cidr, settings.private_cidr)
    directory = ClusterDirectory(now_us, ranges, Ingress(settings.ingress_selector))
    reflectors: list[Reflector[Any]] = [
        Reflector(api, PODS, directory.pods, stop),
        Reflector(api, NODES, directory.nodes, stop),
        Reflector(api, SERVICES, directory.services, stop),
        Reflector(api, ENDPOINTS, directory.endpoints, stop),
        Reflector(api, RANGES, directory.ranges, stop),
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one.run(), name=f"reflector {one.resource.name}") for one in reflectors]
            try:
                await _first_lists(reflectors, stop)
                _log.info(
                    "cluster-watched", server=api.server, known=[r.resource.name for r in reflectors if r.state.synced]
                )
                yield directory
            finally:
                for task in running:
                    task.cancel()
    finally:
        await api.close()


async def _first_lists(reflectors: list[Reflector[Any]], stop: Stop) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _FIRST_LISTS_S
    while loop.time() < end and not all(one.state.synced or one.state.refusal for one in reflectors):
        if await stop.sleep(_LOOK_S):
            return
    late = [one.resource.name for one in reflectors if not one.state.synced and not one.state.refusal]
    if late:
        _log.warning(
            "cluster-not-listed", kinds=late, after_s=_FIRST_LISTS_S, consequence="addresses stay unresolved until then"
        )
