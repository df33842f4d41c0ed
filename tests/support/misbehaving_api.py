"""An API server of one kind of object that answers as it is told: late, wrong, cut, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

PATH: Final = "/api/v1/pods"
FAULTS: Final = ("410", "429", "500", "garbage", "cut", "half-open", "huge", "empty", "error-410", "error-500", "stale")
"""What the next request may meet with: a status, or a stream that breaks in this way."""


@dataclass(slots=True)
class MisbehavingApi:
    """Serves `objects` by list and watch; `faults` are used up one by one, by whatever is asked next."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: deque[str] = field(default_factory=deque)
    version: int = 1000
    oldest: int = 0
    """Events before are compacted away."""
    lists: int = 0
    watches: int = 0
    url: str = ""
    _events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    _snapshots: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _hanging: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: bool = False

    async def put(self, uid: str, **content: Any) -> None:
        """An object is new or changed; `content` are its parts besides the metadata."""
        self.version += 1
        kind = "MODIFIED" if uid in self.objects else "ADDED"
        metadata = {"uid": uid, "name": uid, "namespace": "shop", "resourceVersion": str(self.version)}
        self.objects[uid] = {"metadata": metadata, **content}
        await self._tell(kind, self.objects[uid])

    async def delete(self, uid: str) -> None:
        """An object is gone."""
        self.version += 1
        last = json.loads(json.dumps(self.objects.pop(uid)))
        last["metadata"]["resourceVersion"] = str(self.version)
        await self._tell("DELETED", last)

    def compact(self) -> None:
        """Whoever asks from now on for what came before gets a 410; a watch that goes on already misses nothing."""
        self.oldest = self.version

    async def end(self) -> None:
        """End every answer that is under way."""
        self._ended = True
        self._hanging.set()
        async with self._news:
            self._news.notify_all()

    async def _tell(self, kind: str, one: dict[str, Any]) -> None:
        async with self._news:
            self._events.append((self.version, {"type": kind, "object": json.loads(json.dumps(one))}))
            self._news.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A list or a watch."""
        watch = "watch" in request.query
        self.watches, self.lists = self.watches + watch, self.lists + (not watch)
        fault = self.faults.popleft() if self.faults else ""
        if fault in {"410", "429", "500"}:
            headers = {"Retry-After": "1"} if fault == "429" else {}
            return web.json_response({"kind": "Status", "message": "on purpose"}, status=int(fault), headers=headers)
        return await self._watch(request, fault) if watch else await self._list(request, fault)

    async def _list(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "half-open":
            await self._hanging.wait()
        if fault in {"garbage", "cut", "huge"}:
            return web.Response(body=b'{"items": [{"metadata"')
        limit = int(request.query["limit"])
        if token := request.query.get("continue"):
            version, start = map(int, token.split("."))
            if version < self.oldest:
                return web.json_response({"kind": "Status", "message": "the continue token is too old"}, status=410)
        else:
            version, start = self.version, 0
            self._snapshots[version] = [one for _, one in sorted(self.objects.items())]
        # All pages are of one moment, as those of a real server are.
        snapshot = self._snapshots[version]
        more = f"{version}.{start + limit}" if start + limit < len(snapshot) else ""
        metadata = {"resourceVersion": str(version), "continue": more}
        return web.json_response({"metadata": metadata, "items": snapshot[start : start + limit]})

    async def _watch(self, request: web.Request, fault: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        if since < self.oldest or fault == "error-410":
            await response.write(_line("ERROR", {"code": 410, "message": "too old resource version"}))
            return response
        if fault in _BROKEN:
            await response.write(_BROKEN[fault])
            return response
        if fault == "half-open":
            await self._hanging.wait()
            return response
        if fault == "stale":
            # What was told before is told again, in whatever order.
            for _, event in reversed(self._events[-5:]):
                await response.write(_encoded(event))
        with contextlib.suppress(ConnectionError):
            await self._stream(response, since, cut=fault == "cut")
        return response

    async def _stream(self, response: web.StreamResponse, since: int, *, cut: bool) -> None:
        while not self._ended:
            async with self._news:
                events = [(version, event) for version, event in self._events if version > since]
                if not events:
                    await self._news.wait()
                    continue
            for version, event in events:
                if cut:
                    await response.write(_encoded(event)[:40])
                    return
                await response.write(_encoded(event))
                since = version


_BROKEN: Final = {
    "garbage": b"<html>502 Bad Gateway</html>\n",
    "huge": b'{"type": "ADDED", "object": {"metadata": {"name": "' + bytes(3 << 20),
    "empty": b"",
    "error-500": b'{"type": "ERROR", "object": {"code": 500, "message": "on purpose"}}\n',
}


def _encoded(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _line(kind: str, one: dict[str, Any]) -> bytes:
    return _encoded({"type": kind, "object": one})


@contextlib.asynccontextmanager
async def misbehaving_api() -> AsyncIterator[MisbehavingApi]:
    """The server, on a free port of the loopback interface."""
    api = MisbehavingApi()
    app = web.Application()
    app.router.add_get(PATH, api.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        api.url = f"http://{host}:{port}"
        yield api
    finally:
        await api.end()
        await runner.cleanup()


def kubeconfig(folder: Path, url: str) -> str:
    """The path of a kubeconfig for the server at `url`."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    return str(path)


def addresses() -> Iterator[str]:
    """Addresses of pods, one after another."""
    for at in range(2, 1 << 16):
        yield f"10.{at >> 8}.{at & 255}.2"
