"""An API server that forwards ports of pods as a kubelet does, or misbehaves as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web

from services.runtime.kubernetes_api import KubernetesApi
from tests.support.certificates import Authority

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
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """The pods to which connections were asked for, in order."""
    refusal: int = 0
    """The status with which every upgrade is refused."""
    secrets: dict[str, str] | None = None
    """What is in the Secret `redis`; None where there is none."""
    tokens: set[str] | None = None
    """Those that it accepts; None: any."""
    heard: list[str] = field(default_factory=list)
    """The tokens of all requests, in order."""

    @web.middleware
    async def who(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Lets in who has a token that is accepted."""
        self.heard.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if self.tokens is not None and self.heard[-1] not in self.tokens:
            return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)
        return await handler(request)

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
async def served(
    fake: ForwardingApi, folder: Path, named: str = "", user: Mapping[str, Any] | None = None
) -> AsyncIterator[KubernetesApi]:
    """A client of it, while it runs, by the kubeconfig that is in `folder`, which has the credentials of `user`.

    With `named` it has TLS and is known as that name's port 6443, which no resolver knows.
    """
    async with listening(fake, folder, named, user) as path:
        api = await KubernetesApi.connect(str(path))
        try:
            yield api
        finally:
            await api.close()


@contextlib.asynccontextmanager
async def listening(
    fake: ForwardingApi, folder: Path, named: str = "", user: Mapping[str, Any] | None = None
) -> AsyncIterator[Path]:
    """The same without a client: the kubeconfig."""
    app = web.Application(middlewares=[fake.who])
    app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/pods", fake.list)
    app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/pods/{{pod}}/portforward", fake.forward)
    app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/secrets/redis", fake.secret)
    app.router.add_get("/version", fake.version)
    app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", fake.review)
    cluster: dict[str, str] = {}
    context = None
    if named:
        authority = Authority(folder)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.issue(named, names=f"DNS:{named}"))
        cluster["certificate-authority"] = str(authority.certificate)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    fake.port = runner.addresses[0][1]
    cluster["server"] = fake.url = f"https://{named}:6443" if named else f"http://127.0.0.1:{fake.port}"
    path = folder / "kubeconfig"
    path.write_text(json.dumps(_kubeconfig(cluster, user or {"token": "none"})))
    try:
        yield path
    finally:
        await runner.cleanup()


def _kubeconfig(cluster: Mapping[str, str], user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": cluster}],
        "users": [{"name": "one", "user": user}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "current-context": "one",
    }
