"""A cluster's API server: configuration and authentication by kubernetes-asyncio, answers as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import orjson
import yaml
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.client.rest import RESTClientObject
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from services.runtime.errors import UsageError

IN_CLUSTER: Final = "in-cluster"
"""Instead of a kubeconfig's path: the service account of the pod that we run in."""
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 60.0
"""How long an answer may pause: a page of pods at a busy API server takes seconds."""
_ANSWER_BYTES: Final = 256 << 20
_MESSAGE_BYTES: Final = 64 << 10
_MOST_RETRY_AFTER_S: Final = 300.0
_NOT_ITS_FORM: Final = (LookupError, TypeError, AttributeError, AssertionError)
"""What the package raises where something else stands than a kubeconfig has there."""


class ApiError(Exception):
    """The API server refused; `str` is its own message."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        """How long it asks us to wait; 0 where it does not say."""


class BrokenAnswer(Exception):  # noqa: N818  # what came is broken, nothing of ours
    """What came back is not what an API server sends."""


class KubernetesApi:
    """Requests to one API server; `close` it at the end.

    Credentials that expire (exec plugins, service-account tokens) are renewed on the way.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)

    @classmethod
    async def connect(cls, kubeconfig: str, context: str = "") -> Self:
        """The API server of a kubeconfig's context (empty: its current one), or of `IN_CLUSTER`.

        Nothing is sent yet. Raises UsageError where the configuration cannot be used.
        """
        configuration = Configuration()
        try:
            if kubeconfig == IN_CLUSTER:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                path = str(Path(kubeconfig).expanduser())
                await load_kube_config(path, context or None, configuration, persist_config=False)
            return cls(configuration)
        except (ConfigException, OSError, ValueError, yaml.YAMLError, *_NOT_ITS_FORM) as error:
            where = "the pod's service account" if kubeconfig == IN_CLUSTER else f"the kubeconfig {kubeconfig}"
            what = f" (context {context})" if context else ""
            raise UsageError(f"cannot use {where}{what}: {_why(error)}") from error

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._configuration.host)

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The object at `path`; raises ApiError, BrokenAnswer or OSError (aiohttp's and time-outs among them)."""
        return await self.send("GET", path, query)

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        """What a request is answered with; `body` goes as JSON of type `content`. Raises as `get` does."""
        data = None if body is None else orjson.dumps(body)
        async with self._answered(method, path, query or {}, data, content, _ANSWER_S) as response:
            found = bytearray()
            async for chunk in response.content.iter_any():
                found += chunk
                if len(found) > _ANSWER_BYTES:
                    raise BrokenAnswer(f"the answer to {path} is larger than {_ANSWER_BYTES >> 20} MB")
        return decoded(found)

    async def server_time(self) -> datetime:
        """The API server's clock, in whole seconds; raises as `get` does."""
        async with self._answered("GET", "/version", {}, None, "", _ANSWER_S) as response:
            try:
                return parsedate_to_datetime(response.headers["Date"])
            except (KeyError, ValueError) as error:
                raise BrokenAnswer("the answer to /version has no date") from error

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], *, pause_s: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of the answer, whose parts may take `pause_s` each; raises as `get` does."""
        async with self._answered("GET", path, query, None, "", pause_s) as response:
            yield response.content

    @contextlib.asynccontextmanager
    async def websocket(
        self, path: str, query: Mapping[str, str], protocols: Sequence[str], *, heartbeat_s: float
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket to `path`, which breaks when a ping stays unanswered for half of `heartbeat_s`; raises as `get` does."""
        with _translated():
            try:
                async with asyncio.timeout(_CONNECT_S):
                    socket = await self._rest.pool_manager.ws_connect(
                        f"{self.server}{path}",
                        params=query,
                        protocols=protocols,
                        heartbeat=heartbeat_s,
                        # Who is gone does not answer a close.
                        timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                        # The API server refuses an upgrade that only takes JSON.
                        headers={**await self._headers(), "Accept": "*/*"},
                        max_msg_size=_MESSAGE_BYTES << 4,
                        proxy=self._configuration.proxy,
                        proxy_headers=self._configuration.proxy_headers,
                        server_hostname=self._configuration.tls_server_name,
                    )
            except aiohttp.WSServerHandshakeError as error:
                raise ApiError(error.status, f"no upgrade to a WebSocket: {error.message}") from error
            try:
                yield socket
            finally:
                await socket.close()

    async def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "podloxx"}
        # The package renews credentials in here.
        for setting in (await self._configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        return headers

    @contextlib.asynccontextmanager
    async def _answered(
        self, method: str, path: str, query: Mapping[str, str], data: bytes | None, content: str, pause_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_connect=_CONNECT_S, sock_read=pause_s)
        with _translated():
            headers = await self._headers()
            if data is not None:
                headers["Content-Type"] = content
            async with self._rest.pool_manager.request(
                method,
                f"{self.server}{path}",
                params=query,
                headers=headers,
                data=data,
                timeout=timeout,
                proxy=self._configuration.proxy,
                proxy_headers=self._configuration.proxy_headers,
                server_hostname=self._configuration.tls_server_name,
            ) as response:
                if response.status >= 300:
                    raise await _refusal(response)
                yield response


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what aiohttp and the package raise into OSError."""
    try:
        yield
    except aiohttp.ClientError as error:
        if isinstance(error, OSError):
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error
    except ConfigException as error:
        raise OSError(f"credentials cannot be renewed: {error}") from error


def decoded(body: bytes | bytearray) -> dict[str, Any]:
    """The object that `body` writes; raises BrokenAnswer."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BrokenAnswer(f"not JSON: {bytes(body[:80])!r}") from error
    if not isinstance(found, dict):
        raise BrokenAnswer(f"no object: {bytes(body[:80])!r}")
    return found


def _why(error: Exception) -> str:
    """One line that says why a configuration cannot be used."""
    if isinstance(error, yaml.YAMLError):
        return f"it is not YAML: {' '.join(str(error).split())}"
    if isinstance(error, _NOT_ITS_FORM):
        return f"it does not have the form of a kubeconfig: {str(error) or type(error).__name__}"
    return " ".join(str(error).split()) or type(error).__name__


async def _refusal(response: aiohttp.ClientResponse) -> ApiError:
    """What the answer says; Kubernetes sends a Status object, others whatever they like."""
    raw = bytearray()
    async for part in response.content.iter_any():
        raw += part
        if len(raw) > _MESSAGE_BYTES:
            break
    try:
        message = str(decoded(raw).get("message") or response.reason)
    except BrokenAnswer:
        message = raw[:200].decode(errors="replace").strip() or str(response.reason)
    try:
        pause = min(max(float(response.headers.get("Retry-After", "0")), 0.0), _MOST_RETRY_AFTER_S)
    except ValueError:
        # The header may be a date; then the ordinary pause has to do.
        pause = 0.0
    return ApiError(response.status, message, pause)
