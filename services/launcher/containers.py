"""Names this machine's containers: what Docker and Podman tell, as the file that the aggregator reads.

Every event makes everything be listed again. So it does not matter which events come, in which order, or
whether some were missed while an engine was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from services.flows import address
from services.runtime.log import get_logger

_log = get_logger(__name__)

_ANSWER_S: Final = 10.0
_ANSWER_BYTES: Final = 64 << 20
_EVENT_BYTES: Final = 1 << 20
_LOOK_S: Final = 60.0
"""How often all is listed although nothing was told."""
_SPACING_S: Final = 0.2
"""A container that starts makes several events."""
_PAUSE_S: Final = (0.5, 30.0)
_SHOWN: Final = 8
_HIDDEN: Final = "what they do on the machine's own network cannot be told apart, and has no row"
_APART: Final = ("none", "container:")
"""What the modes begin with in which there is no address although it is not the machine's network."""
_PROJECTS: Final = ("com.docker.compose.project", "io.podman.compose.project")
_EVENTS: Final = json.dumps({"type": ["container", "network"]})

Entries = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Container:
    """A running container: `group` is its compose project, else its engine's name.

    One that is `hidden` is on the machine's own network, as far as its engine tells: it has neither an address nor
    an interface. Of containers that share a network the first of their `age` gives the name.
    """

    name: str
    group: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    age: tuple[int, str]
    hidden: bool


@dataclass(slots=True)
class Engine:
    """A container engine behind a unix socket; `expected` ones that are away are worth a sentence."""

    name: str
    socket: Path
    expected: bool = False
    containers: tuple[Container, ...] = ()
    reached: bool | None = None

    def session(self) -> aiohttp.ClientSession:
        """A client of it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_S, sock_read=_LOOK_S)
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=timeout)

    def is_away(self, error: BaseException) -> None:
        """Say so, once."""
        there = self.expected or self.socket.exists()
        if self.reached is not False and there:
            why = str(error) or type(error).__name__
            _log.warning("engine-away", engine=self.name, socket=str(self.socket), error=why, mend=_MEND)
        self.reached = False


@dataclass(slots=True)
class Containers:
    """Follows engines and keeps the address file up to date; `known` are entries of the user's own, which win."""

    engines: Sequence[Engine]
    path: Path
    node: str
    write: Callable[[Path, str], None]
    known: Mapping[str, Any] = field(default_factory=dict)
    _written: str = ""
    _hidden: frozenset[str] = frozenset()

    async def look(self) -> None:
        """List every engine once, and write the file."""
        for engine in self.engines:
            try:
                async with engine.session() as client, asyncio.timeout(_ANSWER_S):
                    engine.containers = await _listed(client, engine.name)
            except _Failure as error:
                engine.is_away(error)
        self._write()

    async def follow(self) -> None:
        """Keep the file up to date until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for engine in self.engines:
                tasks.create_task(self._follow(engine))

    async def _follow(self, engine: Engine) -> None:
        pause = _PAUSE_S[0]
        while True:
            try:
                async with engine.session() as client:
                    async for _ in _changes(client):
                        async with asyncio.timeout(_ANSWER_S):
                            engine.containers = await _listed(client, engine.name)
                        self._write()
                        if not engine.reached:
                            _log.info("engine-reached", engine=engine.name, containers=len(engine.containers))
                        engine.reached, pause = True, _PAUSE_S[0]
                        await asyncio.sleep(_SPACING_S)
            except _Failure as error:
                # What is known stays: containers go on while their engine is restarted.
                engine.is_away(error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _PAUSE_S[1])

    def _write(self) -> None:
        text = json.dumps(self._content())
        if text != self._written:
            self.write(self.path, text)
            self._written = text
        hidden = frozenset(one.name for engine in self.engines for one in engine.containers if one.hidden)
        if new := hidden - self._hidden:
            _log.warning("containers-without-address", containers=sorted(new)[:_SHOWN], number=len(new), means=_HIDDEN)
        self._hidden = hidden

    def _content(self) -> dict[str, Any]:
        # Of one address the last one stays.
        running = sorted((one for engine in self.engines for one in engine.containers), key=lambda one: one.age)[::-1]
        addresses: dict[str, Any] = {
            text: {"namespace": one.group, "pod": one.name, "node": self.node}
            for one in running
            for text in one.addresses
        }
        gateways = sorted({text for one in running for text in one.gateways if text not in addresses})
        nodes = dict(self.known.get("nodes", {}))
        mine = dict(nodes.get(self.node, {}))
        given = self.known.get("addresses", {})
        mine["addresses"] = sorted({*mine.get("addresses", ()), *(text for text in gateways if text not in given)})
        return {
            **self.known,
            "version": 1,
            "addresses": {**addresses, **given},
            "nodes": {**nodes, self.node: mine},
        }


class _MalformedError(Exception):
    """The engine answers something else than an engine does."""


_Failure = (aiohttp.ClientError, OSError, TimeoutError, _MalformedError)
_MEND: Final = "containers have no names until it answers; --no-docker keeps podloxx from asking"


def engines(docker_host: str, runtime_folder: str) -> list[Engine]:
    """Where engines listen: `docker_host` is $DOCKER_HOST, `runtime_folder` $XDG_RUNTIME_DIR; both may be empty."""
    found = [Engine("docker", Path("/var/run/docker.sock")), Engine("podman", Path("/run/podman/podman.sock"))]
    if runtime_folder:
        found.append(Engine("podman", Path(runtime_folder) / "podman" / "podman.sock"))
    if docker_host.startswith("unix://"):
        # It is what the user's own docker command talks to.
        found[0] = Engine("docker", Path(docker_host.removeprefix("unix://")), expected=True)
    elif docker_host:
        _log.warning("engine-elsewhere", DOCKER_HOST=docker_host, consequence="its containers are not on this machine")
        del found[0]
    return found


async def _changes(client: aiohttp.ClientSession) -> Any:
    """Yield once at the beginning, then whenever something may have changed; ends with the engine's stream."""
    async with client.get("http://engine/events", params={"filters": _EVENTS}) as answer:
        if answer.status != 200:
            raise _MalformedError(f"/events answers {answer.status}")
        yield None
        pending = 0
        while True:
            with contextlib.suppress(TimeoutError):
                # Without events all is listed now and then, which also shows a connection that is half open.
                async with asyncio.timeout(_LOOK_S / 2):
                    part = await answer.content.readany()
                    if not part:
                        return
                    pending = 0 if b"\n" in part else pending + len(part)
                    if pending > _EVENT_BYTES:
                        raise _MalformedError("an event has no end")
            yield None


async def _listed(client: aiohttp.ClientSession, engine: str) -> tuple[Container, ...]:
    async with client.get("http://engine/containers/json") as answer:
        if answer.status != 200:
            raise _MalformedError(f"/containers/json answers {answer.status}")
        body = bytearray()
        async for part in answer.content.iter_any():
            body += part
            if len(body) > _ANSWER_BYTES:
                raise _MalformedError(f"/containers/json is larger than {_ANSWER_BYTES >> 20} MB")
    try:
        # Only of a list are whole slices made.
        return tuple(_container(one, engine) for one in json.loads(body)[:])
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise _MalformedError(f"/containers/json is no list of containers: {error!r}") from error


def _container(one: Mapping[str, Any], engine: str) -> Container:
    labels = one.get("Labels") or {}
    names = one.get("Names") or [str(one["Id"])[:12]]
    networks = ((one.get("NetworkSettings") or {}).get("Networks") or {}).values()
    mode = str((one.get("HostConfig") or {}).get("NetworkMode") or "")
    own = [network.get(key) for network in networks for key in ("IPAddress", "GlobalIPv6Address")]
    gateways = [network.get(key) for network in networks for key in ("Gateway", "IPv6Gateway")]
    return Container(
        name=str(names[0]).lstrip("/"),
        group=next((str(labels[key]) for key in _PROJECTS if labels.get(key)), engine),
        addresses=_addresses(own),
        gateways=_addresses(gateways),
        age=(created if isinstance(created := one.get("Created"), int) else 0, str(one.get("Id", ""))),
        # Podman does not tell the mode here.
        hidden=not _addresses(own) and not mode.startswith(_APART),
    )


def _addresses(listed: Sequence[str | None]) -> tuple[str, ...]:
    """Those that are addresses, each written as everywhere in podloxx."""
    found = []
    for text in listed:
        with contextlib.suppress(ValueError):
            found.append(str(address.parse(text or "")))
    return tuple(dict.fromkeys(found))
