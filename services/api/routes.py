"""The paths that are served."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from services.api import destinations, metrics, nodes, timeline, views
from services.api.bundle import INDEX, Bundle, NotBuiltError
from services.api.coverage import CoverageReader
from services.api.guard import problem
from services.api.increments import CursorError
from services.api.live import Hub, farewell, new_socket
from services.api.mirror import Mirror
from services.api.peers import PeerReader
from services.api.reader import Reader
from services.api.timeline import TimelineReader
from services.flows import live_message
from services.flows.keys import TICKS_KEPT_S
from services.flows.traffic import TrafficError, parse_tick_id
from services.runtime.redis_client import StoreError

_DESTINATIONS: Final = 1000
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_NO_TIME_S: Final = 253_402_300_799
_OK: Final = {"status": "ok"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is read from Redis only when somebody asks."""

    peers: PeerReader
    coverage: CoverageReader
    timeline: TimelineReader


class Routes:
    """Handlers over one reader, what is read when asked for, and the hub."""

    def __init__(self, reader: Reader, asked: Asked, hub: Hub, flow_window_s: float) -> None:
        self._reader = reader
        self._peers = asked.peers
        self._coverage = asked.coverage
        self._timeline = asked.timeline
        self._hub = hub
        self._flow_window_s = flow_window_s
        self._openapi = files("services.api").joinpath("openapi.json").read_bytes()
        self._bundle = Bundle(files("services.api").joinpath("static"))

    def table(self) -> list[web.RouteDef]:
        """All routes."""
        return [
            web.get("/traffic/overview", self.overview),
            web.get("/traffic/total", self.total),
            web.get("/traffic/flow", self.flow),
            web.get("/traffic/peers", self.peers),
            web.get("/traffic/nodes", self.nodes),
            web.get("/traffic/external", self.external),
            web.get("/traffic/map", self.map),
            web.get("/traffic/timeline", self.timeline),
            web.get("/traffic/range", self.range),
            web.get("/traffic/ports", self.ports),
            web.get("/traffic/ws", self.websocket, allow_head=False),
            web.get("/openapi.json", self.openapi),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/", self.page),
            web.get("/podloxx", self.page),
            web.get("/podloxx/", self.to_page),
            web.get("/{name:.+}", self.asset),
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
        since, window_s = request.query.get("since"), _seconds(request, self._flow_window_s)
        if since is None:
            added = mirror.within(int(window_s * 1e6))
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
        behind = await self._peers.behind(found[row.number])
        return _json(request, views.peers_of(row, found[row.number], behind))

    async def nodes(self, request: web.Request) -> web.Response:
        """Agents, and how much they see of each interface."""
        mirror = self._mirror()
        return _json(request, nodes.nodes(mirror, await self._coverage.nodes()))

    async def external(self, request: web.Request) -> web.Response:
        """Who outside the cluster is talked with."""
        mirror = self._mirror()
        most = _number(request, "limit", 1, destinations.MOST_DESTINATIONS) or _DESTINATIONS
        if most != int(most):
            raise web.HTTPBadRequest(text=f"limit={most:g} is no whole number")
        return _json(request, destinations.external(mirror, await self._all_peers(mirror), int(most)))

    async def map(self, request: web.Request) -> web.Response:
        """Who sends how much to whom."""
        mirror, by = self._mirror(), _choice(request, "by", destinations.GROUPS, "namespace")
        return _json(request, destinations.traffic_map(mirror, await self._all_peers(mirror), by))

    async def timeline(self, request: web.Request) -> web.Response:
        """The last minutes."""
        by = _choice(request, "by", timeline.GROUPS, "scope")
        ends = [_number(request, name, 0, _NO_TIME_S) for name in ("from", "to")]
        return _json(request, await self._timeline.timeline(self._mirror(), by, *ends))

    async def range(self, request: web.Request) -> web.Response:
        """What passed between two times."""
        ends = [_number(request, name, 0, _NO_TIME_S) for name in ("from", "to")]
        return _json(request, await self._timeline.passed(self._mirror(), *ends))

    async def ports(self, request: web.Request) -> web.Response:
        """Over which ports each pod talks."""
        mirror = self._mirror()
        return _json(request, destinations.ports(mirror, await self._all_peers(mirror)))

    async def _all_peers(self, mirror: Mirror) -> destinations.Peers:
        return await self._peers.of([row.number for row in mirror.shown().values()])

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Live rows."""
        if self._hub.full:
            return problem(503, "Service Unavailable", "too many live clients: see --max-clients")
        resume = None
        if text := request.query.get("resume"):
            try:
                resume = parse_tick_id(text.replace(":", "-", 1))
            except TrafficError:
                return problem(400, "Bad Request", f"resume={text[:40]!r} is not of the form <epoch>:<seq>")
        socket = new_socket()
        if request.query.get("v", "1") != str(live_message.PROTOCOL):
            # A browser shows its page nothing of a refused handshake, but close codes it does.
            await socket.prepare(request)
            reason = f"this API speaks version {live_message.PROTOCOL} of the live protocol"
            await farewell(request, socket, live_message.CLOSE_VERSION, reason)
        else:
            await self._hub.serve(request, socket, resume)
        return socket

    async def openapi(self, _: web.Request) -> web.Response:
        """What all of this answers."""
        return web.Response(body=self._openapi, content_type="application/json")

    async def healthz(self, request: web.Request) -> web.Response:
        """The process lives."""
        return _json(request, _OK)

    async def readyz(self, request: web.Request) -> web.Response:
        """What is served is current."""
        why = self._reader.problem
        return problem(503, "Service Unavailable", why) if why else _json(request, _OK)

    async def metrics(self, request: web.Request) -> web.Response:
        """For Prometheus; also where there are no totals yet, or Redis is gone."""
        try:
            known = await self._coverage.nodes()
        except StoreError:
            known = None
        ready = not self._reader.problem
        accept = request.headers.get(hdrs.ACCEPT, "")
        text, kind = metrics.exposition(
            self._reader.mirror, known, clients=self._hub.clients, ready=ready, accept=accept
        )
        return web.Response(body=text.encode(), headers={hdrs.CONTENT_TYPE: kind})

    async def page(self, request: web.Request) -> web.Response:
        """The dashboard."""
        try:
            return self._bundle.answer(request, INDEX)
        except NotBuiltError:
            detail = "the dashboard is not built in this checkout: run `make dashboard`, then start the API again"
            return problem(503, "Service Unavailable", detail)

    async def to_page(self, request: web.Request) -> web.Response:
        """The dashboard's files lie beside its path, not below."""
        # As it was sent: decoded it may hold ends of lines, which no header may.
        given = request.rel_url.raw_query_string
        query = f"?{given}" if given else ""
        return web.Response(status=308, headers={hdrs.LOCATION: f"../podloxx{query}"})

    async def asset(self, request: web.Request) -> web.Response:
        """What the dashboard loads."""
        return self._bundle.answer(request, request.match_info["name"])

    def _mirror(self) -> Mirror:
        mirror = self._reader.mirror
        if mirror is None:
            raise web.HTTPServiceUnavailable(text=self._reader.problem)
        return mirror


def _json(request: web.Request, value: dict[str, Any]) -> web.Response:
    if request.query.get("exact") == "1":
        value = views.exact(value)
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _number(request: web.Request, name: str, least: float, most: float) -> float | None:
    """A number among the query; None where it is not given."""
    text = request.query.get(name)
    if text is None:
        return None
    # Not all that Python takes for a number: 1_0, or digits of other scripts.
    number = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not least <= number <= most:
        raise web.HTTPBadRequest(text=f"{name}={text!r} is not a number from {least:g} to {most:g}")
    return number


def _choice(request: web.Request, name: str, choices: Iterable[str], default: str) -> str:
    text = request.query.get(name, default)
    if text not in set(choices):
        raise web.HTTPBadRequest(text=f"{name}={text!r} is none of {', '.join(choices)}")
    return text


def _seconds(request: web.Request, default: float) -> float:
    text = request.query.get("window")
    if text is None:
        return default
    seconds = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 < seconds <= TICKS_KEPT_S:
        raise web.HTTPBadRequest(text=f"window={text!r} is not a number of seconds up to {TICKS_KEPT_S}")
    return seconds
