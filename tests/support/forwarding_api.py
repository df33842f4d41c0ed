"""An API server that forwards ports of pods as a kubelet does, or misbehaves as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web

from services.runtime.kubernetes_api import KubernetesApi

NAMESPACE: Final = "podloxx"
LABELS: Final = {"app.kubernetes.io/name": "podloxx", "app.kubernetes.io/component": "redis"}
_PROTOCOL: Final = "v4.channel.k8s.io"


@dataclass(slots=True)
class FakePod:
    """A pod that listens at a port of this machine, or (None) where nothing listens."""

    port: int | None
    ready: bool = True
    leaving: bool = False
    frozen: bool = False
    """Its kubelet takes connections, and never says anything again: no frame, no pong, no close."""


@dataclass(slots=True)
class ForwardingApi:
    """Serves `pods` and their port-forwards."""

    pods: dict[str, FakePod] = field(default_factory=dict)
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """The pods to which connections were asked for, in order."""
    refusal: int = 0
    """The status with which every upgrade is refused."""
    secrets: dict[str, str] | None = None
    """What is in the Secret `redis`; None where there is none."""

    async def version(self, _: web.Request) -> web.Response:
        """A version, as any asks for first."""
        return web.json_response({"gitVersion": "v1.37.2"})

    async def review(self, _: web.Request) -> web.Response:
        """Everything is allowed."""
        return web.json_response({"status": {"allowed": True}})

    async def secret(self, _: web.Request) -> web.Response:
        """The Secret."""
        if self.secrets is None:
            return web.json_response({"kind": "Status", "message": "not found"}, status=404)
        return web.json_response({"kind": "Secret", "data": self.secrets})

    async def list(self, request: web.Request) -> web.Response:
        """The pods, as a kubelet reports them."""
        assert request.query["labelSelector"] == ",".join(f"{name}={value}" for name, value in LABELS.items())
        items: list[dict[str, Any]] = []
        for name, pod in self.pods.items():
            metadata = {"name": name, "labels": LABELS} | ({"deletionTimestamp": "now"} if pod.leaving else {})
            conditions = [{"type": "Ready", "status": str(pod.ready)}]
            items.append({"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}})
        return web.json_response({"kind": "PodList", "items": items})

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """One connection."""
        name = request.match_info["pod"]
        self.asked.append(name)
        if "*/*" not in request.headers.get("Accept", "*/*"):
            # As a real one does where only JSON is taken.
            return web.json_response({"kind": "Status", "message": "not acceptable"}, status=406)
        if self.refusal or name not in self.pods:
            return web.json_response({"kind": "Status", "message": "on purpose"}, status=self.refusal or 404)
        pod = self.pods[name]
        socket = web.WebSocketResponse(protocols=[_PROTOCOL], autoping=not pod.frozen)
        await socket.prepare(request)
        port = int(request.query["ports"]).to_bytes(2, "little")
        # The upgrade succeeds and these frames come whether anything listens or not.
        await socket.send_bytes(b"\x00" + port)
        await socket.send_bytes(b"\x01" + port)
        if pod.frozen:
            await asyncio.Event().wait()
        if pod.port is None:
            await socket.send_bytes(b"\x01error forwarding port: connection refused")
            await socket.close()
            return socket
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                both = [tasks.create_task(_down(reader, socket, pod)), tasks.create_task(_up(socket, writer, pod))]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for one in both:
                    one.cancel()
        finally:
            writer.transport.abort()
        return socket


async def _down(reader: asyncio.StreamReader, socket: web.WebSocketResponse, pod: FakePod) -> None:
    while chunk := await reader.read(4096):
        await _while_frozen(pod)
        await socket.send_bytes(b"\x00" + chunk)


async def _up(socket: web.WebSocketResponse, writer: asyncio.StreamWriter, pod: FakePod) -> None:
    async for message in socket:
        await _while_frozen(pod)
        if message.type == WSMsgType.BINARY:
            assert message.data[0] == 0
            writer.write(message.data[1:])


async def _while_frozen(pod: FakePod) -> None:
    if pod.frozen:
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def served(fake: ForwardingApi, folder: Path) -> AsyncIterator[KubernetesApi]:
    """A client of it, while it runs."""
    app = web.Application()
    app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/pods", fake.list)
    app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/pods/{{pod}}/portforward", fake.forward)
    app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/secrets/redis", fake.secret)
    app.router.add_get("/version", fake.version)
    app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", fake.review)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    path = folder / "kubeconfig"
    path.write_text(json.dumps(_kubeconfig(fake.url)))
    api = await KubernetesApi.connect(str(path))
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": {"server": server}}],
        "users": [{"name": "one", "user": {"token": "none"}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "current-context": "one",
    }
