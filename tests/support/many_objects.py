"""The objects of a large cluster in a real API server, made and changed over connections that stay open."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp

from tests.support import kube_objects
from tests.support.kube_client import Object, path_of
from tests.support.many_nodes import ManyNodes

_AT_ONCE: Final = 16
_NAMESPACES: Final = 20
_TYPICAL: Final = 4000
"""What real pods have of environment, volumes, conditions and annotations, in bytes."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A cluster's objects in the API server at `url`."""

    session: aiohttp.ClientSession
    url: str
    cluster: ManyNodes
    services: int

    async def make(self) -> None:
        """All namespaces, nodes, pods, Services and their endpoints."""
        await self._all(kube_objects.namespace(self._namespace(at)) for at in range(_NAMESPACES))
        await self._all(map(self._node, range(self.cluster.nodes)))
        pairs = [(node, pod) for node in range(self.cluster.nodes) for pod in range(self.cluster.pods)]
        await self._all(self._pod(*pair) for pair in pairs)
        backends = random.Random(1)
        for at in range(0, self.services, 100):
            numbers = range(at, min(at + 100, self.services))
            await self._all(kube_objects.service(self._namespace(one), f"service-{one}") for one in numbers)
            await self._all(
                kube_objects.endpoint_slice(
                    self._namespace(one),
                    f"service-{one}-x",
                    service=f"service-{one}",
                    addresses=[self.cluster.address(*backends.choice(pairs)) for _ in range(3)],
                )
                for one in numbers
            )

    async def add_pod(self, name: str, address: str, node: int) -> None:
        """One more pod, which has its address when this returns."""
        await self._create(kube_objects.pod(self._namespace(0), name, node=f"node-{node}", ips=[address]))

    async def change(self, number: int) -> None:
        """Change a pod: its conditions, as kubelets do all the time."""
        node, pod = divmod(number % (self.cluster.nodes * self.cluster.pods), self.cluster.pods)
        one = self._pod(node, pod)
        await self._request(
            "PATCH", f"{path_of(one)}/{one['metadata']['name']}", {"metadata": {"labels": {"v": str(number)}}}
        )

    async def watches(self) -> dict[str, int]:
        """How many watches the API server has open, by kind of object."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        found: dict[str, int] = {}
        for line in text.splitlines():
            if line.startswith("apiserver_longrunning_requests{") and 'verb="WATCH"' in line:
                kind = line.split('resource="')[1].split('"')[0]
                found[kind] = found.get(kind, 0) + int(float(line.rpartition(" ")[2]))
        return found

    async def _all(self, objects: Iterable[Object]) -> None:
        waiting = iter(objects)

        async def work() -> None:
            for one in waiting:
                await self._create(one)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(work())

    async def _create(self, one: Object) -> None:
        await self._request("POST", path_of(one), one)
        if "status" in one:
            path = f"{path_of(one)}/{one['metadata']['name']}/status"
            await self._request("PATCH", path, {"status": one["status"]})

    async def _request(self, method: str, path: str, body: Object) -> None:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self.session.request(
            method, f"{self.url}{path}", json=body, headers={"Content-Type": kind}
        ) as answer:
            if answer.status >= 300:
                raise AssertionError(f"{method} {path}: {answer.status} {await answer.text()}")
            await answer.read()

    def _namespace(self, pod: int) -> str:
        return f"team-{pod % _NAMESPACES}"

    def _node(self, node: int) -> Object:
        return kube_objects.node(
            f"node-{node}",
            addresses=[f"192.168.{node >> 8}.{node & 255}"],
            pod_cidrs=[f"10.{node >> 8}.{node & 255}.0/24"],
            zone=f"zone-{node % 3}",
            region="r",
        )

    def _pod(self, node: int, pod: int) -> Object:
        one = kube_objects.pod(
            self._namespace(pod),
            f"pod-{node}-{pod}",
            node=f"node-{node}",
            ips=[self.cluster.address(node, pod)],
            labels={"app": f"app-{pod}"},
            owner=("ReplicaSet", f"app-{pod}-7d4b9"),
        )
        one["metadata"]["annotations"] = {"typical": "x" * _TYPICAL}
        return one


@asynccontextmanager
async def fleet(url: str, tls: ssl.SSLContext, cluster: ManyNodes, services: int) -> AsyncIterator[Fleet]:
    """Requests to an API server on behalf of a cluster."""
    connector = aiohttp.TCPConnector(ssl=tls, limit=_AT_ONCE + 4)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Fleet(session, url, cluster, services)
