"""The paths that are served."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import orjson
from aiohttp import web

from services.api import metrics, views
from services.api.guard import problem
from services.api.live import MESSAGE_BYTES, Hub
from services.api.mirror import CursorError, Mirror
from services.api.reader import Reader
from services.flows import live_message
from services.flows.traffic import TrafficError, parse_tick_id

_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Routes:
    """Handlers over one reader and its hub."""

    def __init__(self, reader: Reader, hub: Hub, flow_window_s: float) -> None:
        self._reader = reader
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
            web.get("/traffic/ws", self.websocket),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/", self.page),
            web.get("/podloxx", self.page),
            web.get("/page/{name}", self.asset),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        """Sums over all pods."""
        return _json(request, views.overview(self._mirror()))

    async def total(self, request: web.Request) -> web.Response:
        """Every pod since the session began."""
        mirror = self._mirror()
        return _json(request, views.total(mirror, await self._reader.all_peers(list(mirror.rows))))

    async def flow(self, request: web.Request) -> web.Response:
        """Increments: of the last seconds, or since a tick."""
        mirror = self._mirror()
        since = request.query.get("since")
        if since is None:
            ticks = mirror.within(int(_seconds(request, self._flow_window_s) * 1e6))
        else:
            try:
                ticks = mirror.since(*parse_tick_id(since))
            except TrafficError as error:
                return problem(400, "Bad Request", str(error))
            except CursorError:
                detail = f"increments since {since} are not kept any more: read /traffic/total and go on from {mirror.tick_id}"
                return problem(410, "Gone", detail)
        response = _json(request, views.flow(mirror, ticks))
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
        return _json(request, views.peers_of(row, await self._reader.peers(row.number)))

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Live rows."""
        if request.query.get("v", "1") != str(live_message.PROTOCOL):
            return problem(400, "Bad Request", f"this API speaks version {live_message.PROTOCOL} of the live protocol")
        if self._hub.full:
            return problem(503, "Service Unavailable", "too many live clients: see --max-clients")
        resume = None
        if text := request.query.get("resume"):
            try:
                resume = parse_tick_id(text.replace(":", "-", 1))
            except TrafficError:
                return problem(400, "Bad Request", f"resume={text!r} is not of the form <epoch>:<seq>")
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=MESSAGE_BYTES, compress=True)
        await socket.prepare(request)
        await self._hub.serve(socket, resume)
        return socket

    async def healthz(self, _: web.Request) -> web.Response:
        """The process lives."""
        return web.json_response({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """What is served is current."""
        why = self._reader.problem
        return problem(503, "Service Unavailable", why) if why else web.json_response({"status": "ok"})

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        text = metrics.exposition(self._mirror(), self._hub.clients)
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE + "; charset=utf-8"})

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
            return problem(404, "Not Found", f"there is no {name!r}")
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
    if not 0 < seconds <= 120:
        raise web.HTTPBadRequest(text=f"window={text!r} is not a number of seconds up to 120")
    return seconds
