"""The paths that are served."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import orjson
from aiohttp import web

from services.api import metrics, views
from services.api.guard import problem
from services.api.increments import CursorError
from services.api.live import Hub, farewell, new_socket
from services.api.mirror import Mirror
from services.api.peers import PeerReader
from services.api.reader import Reader
from services.flows import live_message
from services.flows.keys import TICKS_KEPT_S
from services.flows.traffic import TrafficError, parse_tick_id

_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_OK: Final = {"status": "ok"}


class Routes:
    """Handlers over one reader, its peers and its hub."""

    def __init__(self, reader: Reader, peers: PeerReader, hub: Hub, flow_window_s: float) -> None:
        self._reader = reader
        self._peers = peers
        self._hub = hub
        self._flow_window_s = flow_window_s
        page = files("services.api").joinpath("page")
        self._page = {entry.name: entry.read_bytes() for entry in page.iterdir() if entry.is_file()}

    def table(self) -> list[web.RouteDef]:
        """All routes."""
        return [
            web.get("/traffic/overview", self.overview),
            web.get("/traffic/total", self.total),
            web.get("/traffic/flow", self.flow),
            web.get("/traffic/peers", self.peers),
            web.get("/traffic/ws", self.websocket, allow_head=False),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/", self.page),
            web.get("/podloxx", self.page),
            web.get("/page/{name}", self.asset),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        """Sums over all pods."""
        return _json(request, views.overview(self._mirror(), self._reader.problem))

    async def total(self, request: web.Request) -> web.Response:
        """Every pod since the session began."""
        mirror = self._mirror()
        peers = await self._peers.of([row.number for row in mirror.shown().values()])
        return _json(request, views.total(mirror, peers))

    async def flow(self, request: web.Request) -> web.Response:
        """Increments: of the last seconds, or since a tick."""
        mirror = self._mirror()
        since = request.query.get("since")
        if since is None:
            added = mirror.within(int(_seconds(request, self._flow_window_s) * 1e6))
        else:
            try:
                added = mirror.since(*parse_tick_id(since))
            except TrafficError as error:
                return problem(400, "Bad Request", str(error))
            except CursorError:
                detail = (
                    f"increments since {since} cannot be added up: they are kept for {TICKS_KEPT_S} s of one session. "
                    f"Read /traffic/total and go on from {mirror.tick_id}"
                )
                return problem(410, "Gone", detail)
        response = _json(request, views.flow(mirror, added))
        response.headers["X-Podloxx-Tick"] = mirror.tick_id
        return response

    async def peers(self, request: web.Request) -> web.Response:
        """One pod's peers."""
        key = request.query.get("pod")
        if not key:
            return problem(400, "Bad Request", "say which pod: ?pod=namespace/name")
        row = self._mirror().shown().get(key)
        if row is None:
            return problem(404, "Not Found", f"no pod {key!r} has been seen")
        found = await self._peers.of([row.number])
        return _json(request, views.peers_of(row, found[row.number]))

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Live rows."""
        if self._hub.full:
            return problem(503, "Service Unavailable", "too many live clients: see --max-clients")
        resume = None
        if text := request.query.get("resume"):
            try:
                resume = parse_tick_id(text.replace(":", "-", 1))
            except TrafficError:
                return problem(400, "Bad Request", f"resume={text!r} is not of the form <epoch>:<seq>")
        socket = new_socket()
        if request.query.get("v", "1") != str(live_message.PROTOCOL):
            # A browser shows its page nothing of a refused handshake, but close codes it does.
            await socket.prepare(request)
            reason = f"this API speaks version {live_message.PROTOCOL} of the live protocol"
            await farewell(request, socket, live_message.CLOSE_VERSION, reason)
        else:
            await self._hub.serve(request, socket, resume)
        return socket

    async def healthz(self, request: web.Request) -> web.Response:
        """The process lives."""
        return _json(request, _OK)

    async def readyz(self, request: web.Request) -> web.Response:
        """What is served is current."""
        why = self._reader.problem
        return problem(503, "Service Unavailable", why) if why else _json(request, _OK)

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus; also where there are no totals yet."""
        text = metrics.exposition(self._reader.mirror, clients=self._hub.clients, ready=not self._reader.problem)
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def page(self, _: web.Request) -> web.Response:
        """The page."""
        return self._file("index.html")

    async def asset(self, request: web.Request) -> web.Response:
        """What the page loads."""
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        body = self._page.get(name)
        kind = _TYPES.get(name[name.rfind(".") :])
        if body is None or kind is None:
            raise web.HTTPNotFound
        return web.Response(body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"})

    def _mirror(self) -> Mirror:
        mirror = self._reader.mirror
        if mirror is None:
            raise web.HTTPServiceUnavailable(text=self._reader.problem)
        return mirror


def _json(request: web.Request, value: dict[str, Any]) -> web.Response:
    if request.query.get("exact") == "1":
        value = views.exact(value)
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _seconds(request: web.Request, default: float) -> float:
    text = request.query.get("window")
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= TICKS_KEPT_S:
        raise web.HTTPBadRequest(text=f"window={text!r} is not a number of seconds up to {TICKS_KEPT_S}")
    return seconds
