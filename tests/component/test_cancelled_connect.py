"""Whatever moment of its way to an API server a request is cancelled in, closing leaves no connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.runtime.kubernetes_api import KubernetesApi
from tests.support.certificates import Authority


@dataclass(frozen=True, slots=True)
class Server:
    """One that greets by TLS and then says nothing, not even goodbye."""

    port: int
    kubeconfig: str


def _greet(listening: socket.socket, context: ssl.SSLContext, ended: threading.Event) -> None:
    kept = []
    while not ended.is_set():
        with contextlib.suppress(OSError):
            one, _ = listening.accept()
            one.settimeout(1.0)
            # Without its own goodbye the other end waits for one.
            kept.append(context.wrap_socket(one, server_side=True, suppress_ragged_eofs=True))
    for one in kept:
        one.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server in a thread of its own, so that its answers come whatever the client's event loop does."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", names="IP:127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority.certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "one",
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "clusters": [{"name": "one", "cluster": cluster}],
            "users": [{"name": "one", "user": {"token": "any"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        thread = threading.Thread(target=_greet, args=(listening, context, ended))
        thread.start()
        try:
            yield Server(port, str(path))
        finally:
            ended.set()
            thread.join()


def connections(port: int) -> list[int]:
    """Our own ends, as descriptors, of what is connected to a port."""
    return [fd for one in Path("/proc/self/fd").iterdir() if _peer_port(fd := int(one.name)) == port]


def _peer_port(fd: int) -> int:
    """0 for what is no connection over IPv4."""
    try:
        one = socket.socket(fileno=fd)
    except OSError:
        return 0
    try:
        return int(one.getpeername()[1]) if one.family == socket.AF_INET else 0
    except OSError:
        return 0
    finally:
        one.detach()


async def cancelled_after(api: KubernetesApi, rounds: int, wait_s: float, port: int) -> None:
    """A request that ends so many rounds of the event loop and seconds after it was connected."""
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(api.get("/api"))
        due, seen = time.monotonic() + 10.0, False
        while time.monotonic() < due:
            if not seen and connections(port):
                due, seen = time.monotonic() + wait_s, True
            await asyncio.sleep(0)
        assert seen
        for _ in range(rounds):
            await asyncio.sleep(0)
        asking.cancel()


@pytest.mark.parametrize("rounds", range(4))
async def test_one_that_begins_its_handshake(server: Server, rounds: int) -> None:
    for _ in range(5):
        api = await KubernetesApi.connect(server.kubeconfig)
        await cancelled_after(api, rounds, 0.0, server.port)
        await api.close()
        assert not connections(server.port)


async def test_one_that_is_anywhere_in_it(server: Server) -> None:
    for step in range(150):
        api = await KubernetesApi.connect(server.kubeconfig)
        await cancelled_after(api, 0, step * 50e-6, server.port)
        await api.close()
        assert not connections(server.port), f"{step * 50} microseconds after it was connected"
