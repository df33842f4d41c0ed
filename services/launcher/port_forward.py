"""Our own port-forward: a local listener whose connections reach a pod, proven by real answers and mended by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi

PROBE_S: Final = 5.0
"""How often the whole way is tried; half of it passes on average until somebody notices that it is broken."""
_ANSWER_S: Final = 3.0
"""What an answer may take through the way: continents are 0.3 s apart, and a new tunnel takes four round trips."""
_AGAIN_S: Final = 0.5
_FAILURES: Final = 2
"""One answer that does not come may be bad luck."""
_HEARTBEAT_S: Final = 4.0
"""A kubelet or a line that is gone says nothing: a ping that is not answered for half of this breaks the tunnel."""
_OPEN_S: Final = 5.0
_CHUNK: Final = 64 << 10
_PROTOCOL: Final = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
BROKEN: Final = (ApiError, BrokenAnswer, OSError, TimeoutError, ConnectionError)
"""What a way that is broken raises."""


class TunnelError(OSError):
    """The cluster's end says why nothing comes through."""


@dataclass(frozen=True, slots=True)
class Target:
    """The pods of a namespace that may be reached, by their labels, and the port in them."""

    namespace: str
    labels: Mapping[str, str]
    port: int

    @property
    def path(self) -> str:
        """Where their pods are."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def selector(self) -> str:
        """The labels as a query takes them."""
        return ",".join(f"{name}={value}" for name, value in self.labels.items())


class PortForward:
    """Connections to `port` of this machine reach a pod of `target`; made by `forwarding`.

    `answers` asks for a real answer through that port, and raises where none comes.
    """

    def __init__(
        self,
        api: KubernetesApi,
        target: Target,
        answers: Callable[[int], Awaitable[None]],
        on_change: Callable[[str], None],
    ) -> None:
        self._api = api
        self._target = target
        self._answers = answers
        self._on_change = on_change
        self._tunnels: set[asyncio.Task[Any]] = set()
        self._pod = ""
        self._why = ""
        self._ready = asyncio.Event()
        self._said: str | None = None
        self.port = 0

    @property
    def problem(self) -> str:
        """Why nothing comes through; empty where answers come."""
        return "" if self._ready.is_set() else f"the way into the cluster is interrupted: {self._why}"

    async def ready_within(self, seconds: float, end_requested: asyncio.Event) -> bool:
        """Whether an answer comes through in time; True as well as soon as the end is requested."""
        async with asyncio.TaskGroup() as tasks:
            either = [tasks.create_task(self._ready.wait()), tasks.create_task(end_requested.wait())]
            done, _ = await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for one in either:
                one.cancel()
        return bool(done)

    async def watch(self) -> None:
        """Try the way again and again, and choose another pod where it is broken; never returns."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self._answers(self.port)
            except Exception as error:  # noqa: BLE001  # whatever it is, no answer came
                failures += 1
                if not self._why:
                    self._why = str(error) or f"no answer within {_ANSWER_S:.0f} s"
                if failures >= _FAILURES:
                    self._ready.clear()
                    self._begin_anew()
                    self._tell()
                await asyncio.sleep(_AGAIN_S)
            else:
                failures, self._why = 0, ""
                self._ready.set()
                self._tell()
                await asyncio.sleep(PROBE_S)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._tunnels.add(task)
        try:
            await self._carry(reader, writer)
        except BROKEN as error:
            self._why = _sentence(error, self._pod)
            if isinstance(error, ApiError | TunnelError):
                # That pod is gone, or nothing listens in it.
                self._pod = ""
        except asyncio.CancelledError:
            # The way begins anew, or ends.
            pass
        finally:
            self._tunnels.discard(task)
            # Whoever reads is to notice at once.
            writer.transport.abort()

    async def end(self) -> None:
        """Break all connections."""
        for tunnel in self._tunnels:
            tunnel.cancel()
        if self._tunnels:
            await asyncio.wait(self._tunnels)

    def _begin_anew(self) -> None:
        self._pod = ""
        for tunnel in self._tunnels:
            tunnel.cancel()

    def _tell(self) -> None:
        if self.problem != self._said:
            self._said = self.problem
            self._on_change(self._said)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_OPEN_S) as opening:
            self._pod = self._pod or await self._choose()
            path = f"{self._target.path}/{self._pod}/portforward"
            query = {"ports": str(self._target.port)}
            async with self._api.websocket(path, query, [_PROTOCOL], heartbeat_s=_HEARTBEAT_S) as socket:
                opening.reschedule(None)
                if socket.protocol != _PROTOCOL:
                    raise TunnelError(
                        f"the API server speaks {socket.protocol or 'no protocol'} instead of {_PROTOCOL}"
                    )
                async with asyncio.TaskGroup() as tasks:
                    up = tasks.create_task(_send(reader, socket))
                    down = tasks.create_task(self._receive(socket, writer))
                    await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
                    up.cancel()
                    down.cancel()

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
        """Write what the pod sends; returns when it, the cluster or the local end closes."""
        opened: set[int] = set()
        async for message in socket:
            if message.type != aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, content = message.data[0], message.data[1:]
            if channel not in opened:
                # The first one of each channel repeats the port, whether anybody listens there or not.
                opened.add(channel)
            elif channel == _DATA:
                try:
                    writer.write(content)
                    await writer.drain()
                except OSError:
                    return
            elif channel == _ERROR and content:
                self._why = f"pod {self._pod}: {' '.join(content.decode(errors='replace').split())}"
                self._pod = ""
                return
        if (error := socket.exception()) is not None:
            self._why = _sentence(error, self._pod)

    async def _choose(self) -> str:
        """The name of a pod that is Ready and stays; raises TunnelError where there is none."""
        found = await self._api.get(self._target.path, {"labelSelector": self._target.selector})
        seen = []
        for one in found.get("items", []):
            status = one.get("status", {})
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
            if ready and "deletionTimestamp" not in one["metadata"]:
                return str(one["metadata"]["name"])
            state = (
                "ends" if "deletionTimestamp" in one["metadata"] else f"is {status.get('phase', 'Unknown')}, not Ready"
            )
            seen.append(f"{one['metadata']['name']} {state}")
        what = self._target.labels.get("app.kubernetes.io/component", self._target.selector)
        raise TunnelError(
            f"no pod of {what} in namespace {self._target.namespace} is Ready"
            + (f": {', '.join(seen)}" if seen else "")
        )


@contextlib.asynccontextmanager
async def forwarding(
    api: KubernetesApi,
    target: Target,
    answers: Callable[[int], Awaitable[None]],
    on_change: Callable[[str], None],
) -> AsyncIterator[PortForward]:
    """A port-forward while inside; `on_change` is told the problem, or that there is none any more (empty)."""
    forward = PortForward(api, target, answers, on_change)
    server = await asyncio.start_server(forward.serve, "127.0.0.1", 0)
    forward.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(forward.watch(), name="port-forward")
            try:
                yield forward
            finally:
                watching.cancel()
    except BaseExceptionGroup as group:
        # The watcher raises nothing: it is what happened inside.
        raise group.exceptions[0] from None
    finally:
        server.close()
        await forward.end()


async def _send(reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse) -> None:
    """Send what the local end writes; returns when either end closes."""
    with contextlib.suppress(OSError, aiohttp.ClientError):
        while chunk := await reader.read(_CHUNK):
            await socket.send_bytes(bytes([_DATA]) + chunk)


def _sentence(error: BaseException, pod: str) -> str:
    if isinstance(error, ApiError):
        return f"pod {pod}: {error} (HTTP {error.status})"
    if isinstance(error, TimeoutError):
        return f"no answer within {_OPEN_S:.0f} s" + (f" from the node of pod {pod}" if pod else " from the API server")
    return " ".join(str(error).split()) or type(error).__name__
