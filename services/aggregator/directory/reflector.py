"""Keeps a copy of one kind of Kubernetes object: lists it, then watches it, for ever.

Three layers: `_list` and `_watch` are one request each, `_follow` is a list and the watches after
it, `run` begins anew whenever that cannot go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi, decoded
from services.runtime.log import get_logger
from services.runtime.supervise import Stop

_log = get_logger(__name__)

_PAGE: Final = 500
_WATCH_S: Final = (240, 360)
"""A server ends a watch after a time that we choose, at random so that not all begin anew at once."""
_SILENCE_S: Final = 90.0
"""Servers send a bookmark each minute, so a longer silence may be a connection that is half open; where there are no
bookmarks the watch simply goes on from where it was."""
_SOON_S: Final = 5.0
"""A watch that ends sooner and told nothing may do so for ever; after a longer one nobody is in a hurry."""
_PAUSE_S: Final = (1.0, 30.0)
_REFUSED_S: Final = 30.0
"""How often we ask again for what is forbidden or not served: rights may be given later."""
_EVENT_BYTES: Final = 32 << 20
"""Larger than any object that etcd takes."""
_MOST_GONE: Final = 10_000
"""Uids of deleted objects that are remembered, so that no late event brings one back."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
_Failure = (ApiError, BrokenAnswer, OSError, TimeoutError)


class Expired(Exception):  # noqa: N818  # no error: it says that the list has to be read again
    """The server no longer knows the version from which we want to go on."""


class Sink(Protocol[T_contra]):
    """What takes the objects; all calls come from one task."""

    def put(self, uid: str, one: T_contra) -> None:
        """An object is new or changed."""

    def remove(self, uid: str) -> None:
        """An object is gone."""


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """A kind of object: its plural name, the path of its list, and what is kept of each one.

    `slim` may raise KeyError, TypeError, ValueError or AttributeError where an object is not what it should be.
    """

    name: str
    path: str
    slim: Callable[[Mapping[str, Any]], T]


@dataclass(slots=True)
class State:
    """How a reflector is doing."""

    synced: bool = False
    """Whether everything has been listed once."""
    refusal: str = ""
    """Why the server gives us nothing; empty where it does."""
    requests: int = 0
    events: int = 0
    malformed: int = 0


@dataclass(slots=True)
class Reflector(Generic[T]):
    """The copy of one kind; `sink` hears of every difference."""

    api: KubernetesApi
    resource: Resource[T]
    sink: Sink[T]
    stop: Stop
    state: State = field(default_factory=State)
    _known: dict[str, int] = field(default_factory=dict)
    """Version by uid, 0 where it is no number."""
    _gone: dict[str, None] = field(default_factory=dict)
    _failures: int = 0

    async def run(self) -> None:
        """Reflect until `stop`."""
        while not self.stop.requested:
            try:
                await self._follow()
            except Expired:
                _log.info("list-again", kind=self.resource.name)
                # The first time at once, for a server that compacts its history does so rightly.
                await self._pause(0.0 if self._failures == 0 else None)
            except ApiError as error:
                await self._refused(error)
            except _Failure as error:
                await self._failed(error)

    async def _follow(self) -> None:
        version = await self._list()
        self.state.synced, self.state.refusal = True, ""
        while not self.stop.requested:
            before, began = self.state.events, version
            started = asyncio.get_running_loop().time()
            try:
                version = await self._watch(version)
            except ApiError as error:
                if error.status != 429 and error.status < 500:
                    raise
                # It is busy: reading the whole list again would make that worse.
                await self._failed(error, error.retry_after_s)
                continue
            except BrokenAnswer as error:
                # What was lost with the broken part is told again only by a list.
                _log.warning("watch-broken", kind=self.resource.name, error=str(error))
                raise Expired from error
            except OSError as error:
                await self._failed(error)
                continue
            soon = asyncio.get_running_loop().time() - started < _SOON_S
            if soon and version == began and self.state.events == before:
                await self._pause(None)
            else:
                self._failures = 0

    async def _list(self) -> str:
        """Read all objects; the version from which a watch goes on."""
        found: set[str] = set()
        query = {"limit": str(_PAGE)}
        while True:
            self.state.requests += 1
            try:
                page = await self.api.get(self.resource.path, query)
            except ApiError as error:
                if error.status == 410:
                    raise Expired from error
                raise
            items, metadata = page.get("items"), page.get("metadata")
            if not isinstance(metadata, dict) or not isinstance(items or [], list):
                raise BrokenAnswer(f"the list of {self.resource.name} has no items or metadata")
            for item in items or []:
                if (uid := self._take(item, listed=True)) is not None:
                    found.add(uid)
            following = metadata.get("continue")
            if not following:
                break
            query = {"limit": str(_PAGE), "continue": str(following)}
        for uid in [uid for uid in self._known if uid not in found]:
            self._drop(uid)
        return str(metadata.get("resourceVersion", ""))

    async def _watch(self, version: str) -> str:
        """Take events until the stream ends; the version that was reached. Raises OSError where none begins."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(*_WATCH_S)),
        }
        self.state.requests += 1
        begun = False
        try:
            async with self.api.stream(self.resource.path, query, pause_s=_SILENCE_S) as content:
                begun = True
                pending = bytearray()
                async for chunk in content.iter_any():
                    *lines, rest = (pending + chunk).split(b"\n")
                    for line in filter(None, lines):
                        version = self._event(decoded(line)) or version
                    pending = bytearray(rest)
                    if len(pending) > _EVENT_BYTES:
                        raise BrokenAnswer(f"an event is larger than {_EVENT_BYTES >> 20} MB")
        except ApiError as error:
            if error.status == 410:
                raise Expired from error
            raise
        except (OSError, TimeoutError) as error:
            if not begun:
                raise
            # Cut in the middle: what was told whole is taken, and the next watch goes on behind it.
            _log.info("watch-cut", kind=self.resource.name, error=str(error) or type(error).__name__)
        return version

    def _event(self, event: Mapping[str, Any]) -> str:
        """Take an event; the version that it leads to, empty where it does not say."""
        kind, one = event.get("type"), event.get("object")
        if not isinstance(one, dict):
            raise BrokenAnswer(f"an event of {self.resource.name} without an object")
        if kind == "ERROR":
            if one.get("code") == 410:
                raise Expired
            raise ApiError(int(one.get("code") or 500), str(one.get("message", "")))
        self.state.events += 1
        metadata = one.get("metadata")
        if not isinstance(metadata, dict):
            raise BrokenAnswer(f"an object of {self.resource.name} without metadata")
        if kind == "DELETED":
            self._drop(str(metadata.get("uid", "")))
        elif kind in {"ADDED", "MODIFIED"}:
            self._take(one)
        elif kind != "BOOKMARK":
            _log.info("event-unknown", kind=self.resource.name, type=str(kind))
        return str(metadata.get("resourceVersion", ""))

    def _take(self, one: Any, *, listed: bool = False) -> str | None:
        """Hand an object on unless it is older than what is known; its uid, None where it is not to be kept."""
        uid = ""
        try:
            uid = str(one["metadata"]["uid"])
            version = str(one["metadata"].get("resourceVersion", ""))
            slim = self.resource.slim(one)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.state.malformed += 1
            _log.warning("object-malformed", kind=self.resource.name, error=f"{type(error).__name__}: {error}")
            return uid if uid in self._known else None
        if uid in self._gone and not listed:
            return None
        number = int(version) if version.isdecimal() else 0
        if not number or number >= self._known.get(uid, 0):
            self._gone.pop(uid, None)
            self._known[uid] = number
            self.sink.put(uid, slim)
        return uid

    def _drop(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]
        if self._known.pop(uid, None) is not None:
            self.sink.remove(uid)

    async def _refused(self, error: ApiError) -> None:
        name = self.resource.name
        if error.status in {403, 404}:
            # Not to be mended by asking often.
            refusal = f"may not list and watch {name}" if error.status == 403 else f"{name} are not served"
            if refusal != self.state.refusal:
                _log.warning("refused", kind=name, error=str(error), mend=_MEND[error.status].format(name=name))
            self.state.refusal = refusal
            await self.stop.sleep(error.retry_after_s or _REFUSED_S * random.uniform(1.0, 1.5))
            return
        await self._failed(error, error.retry_after_s)

    async def _failed(self, error: BaseException, at_least_s: float = 0.0) -> None:
        _log.warning("cluster-unreachable", kind=self.resource.name, error=str(error) or type(error).__name__)
        await self._pause(None, at_least_s)

    async def _pause(self, seconds: float | None, at_least_s: float = 0.0) -> None:
        """Wait for so long, or twice as long as the last time and never in step with others."""
        if seconds is None:
            seconds = min(_PAUSE_S[0] * 2 ** min(self._failures, 10), _PAUSE_S[1]) * random.uniform(0.5, 1.0)
        self._failures += 1
        await self.stop.sleep(max(seconds, at_least_s))


_MEND: Final = {
    403: "allow the verbs list and watch on {name}, else what they would tell stays unknown",
    404: "nothing needs to be done: this cluster's version does not have them",
}
