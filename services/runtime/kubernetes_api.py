"""A cluster's API server: configuration and authentication by kubernetes-asyncio, answers as they come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import orjson

from services.runtime import proxy
from services.runtime.errors import UsageError
from services.runtime.proxy import Proxy, ProxyError

if TYPE_CHECKING:
    from aiohttp.connector import AddrInfoType
    from kubernetes_asyncio.client import Configuration

    from services.runtime.credentials import Credentials

_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 60.0
"""How long an answer may pause: a page of pods at a busy API server takes seconds."""
_ANSWER_BYTES: Final = 256 << 20
_MESSAGE_BYTES: Final = 64 << 10
_MOST_RETRY_AFTER_S: Final = 300.0
_READ_BYTES: Final = 2 << 20
"""Lines of a watch are as long as objects are large, which etcd bounds at 1.5 MB."""
_GONE_S: Final = 1.0
"""What sockets that were shut down may take to be closed: the event loop needs a few rounds, more where it is busy."""
_LOOK_S: Final = 0.001


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

    def __init__(self, credentials: Credentials, through: Proxy | None) -> None:
        self._credentials = credentials
        self._through = through
        self._opened: list[aiohttp.ClientSession] = []
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._http = self._session()

    @classmethod
    async def connect(cls, kubeconfig: str, context: str = "") -> Self:
        """The API server of a kubeconfig's context (empty: its current one), or of `IN_CLUSTER`.

        Nothing is sent yet. Raises UsageError where the configuration cannot be used, PrivilegeError where a program of the
        kubeconfig gives no credentials.
        """
        # kubernetes-asyncio takes half a second to import, which only those wait for who ask a cluster.
        from services.runtime.credentials import Credentials

        credentials = await Credentials.of(kubeconfig, context)
        configuration = credentials.configuration
        # What every other tool reads, and so is not ours to name.
        through = proxy.chosen(str(configuration.host), configuration.proxy, os.environ)  # noqa: TID251
        try:
            return cls(credentials, through)
        except (OSError, ValueError) as error:
            # The certificates are read here.
            raise UsageError(f"cannot use the certificates of {kubeconfig}: {' '.join(str(error).split())}") from error

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._credentials.configuration.host)

    async def close(self) -> None:
        """Close all connections, also those whose request was cancelled while they were made."""
        for session in self._opened:
            await session.close()
        # Of a connect that is cancelled in the round in which its handshake begins or ends, asyncio keeps the socket: for
        # as long as the server does, or for half a minute. Who sees its end lets go at once.
        for one in self._open():
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for _ in range(round(_GONE_S / _LOOK_S)):
            if not self._open():
                return
            await asyncio.sleep(_LOOK_S)

    def _open(self) -> list[socket.socket]:
        return [one for one in self._sockets if one.fileno() >= 0]

    def _socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = info
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

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
        with self._translated():
            options = {"params": query, "protocols": protocols, "heartbeat": heartbeat_s}
            try:
                socket = await self._upgraded(path, options)
            except aiohttp.WSServerHandshakeError as error:
                if error.status != 401 or not self._credentials.refused():
                    raise _no_upgrade(error) from error
                try:
                    socket = await self._upgraded(path, options)
                except aiohttp.WSServerHandshakeError as again:
                    raise _no_upgrade(again) from again
            try:
                yield socket
            finally:
                await socket.close()

    async def _upgraded(self, path: str, options: Mapping[str, Any]) -> aiohttp.ClientWebSocketResponse:
        # The API server refuses an upgrade that only takes JSON.
        headers = {**await self._headers(), "Accept": "*/*"}
        # Who is gone does not answer a close.
        timeout = aiohttp.ClientWSTimeout(ws_close=1.0)
        async with asyncio.timeout(_CONNECT_S):
            socket: aiohttp.ClientWebSocketResponse = await self._http.ws_connect(
                f"{self.server}{path}",
                headers=headers,
                timeout=timeout,
                max_msg_size=_MESSAGE_BYTES << 4,
                **options,
                **self._way,
            )
        return socket

    async def _headers(self) -> dict[str, str]:
        found = await self._credentials.headers()
        if self._credentials.configuration.cert_file != self._certificate:
            # Whoever still talks as the one before may end in peace.
            self._http = self._session()
        return {"Accept": "application/json", "User-Agent": "podloxx", **found}

    def _session(self) -> aiohttp.ClientSession:
        """One that reaches the server as the configuration says it by now; raises OSError or ValueError for certificates.

        The package's own takes another proxy than kubectl: not only for other addresses than loopback's, and without the
        ranges in NO_PROXY.
        """
        configuration = self._credentials.configuration
        self._certificate = configuration.cert_file
        connector = aiohttp.TCPConnector(
            limit=configuration.connection_pool_maxsize, ssl=_trust(configuration), socket_factory=self._socket
        )
        session = aiohttp.ClientSession(connector=connector, read_bufsize=_READ_BYTES)
        self._opened.append(session)
        return session

    @contextlib.asynccontextmanager
    async def _answered(
        self, method: str, path: str, query: Mapping[str, str], data: bytes | None, content: str, pause_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_connect=_CONNECT_S, sock_read=pause_s)
        url, again = f"{self.server}{path}", True
        with self._translated():
            while True:
                headers = await self._headers()
                if data is not None:
                    headers["Content-Type"] = content
                async with self._http.request(
                    method, url, params=query, headers=headers, data=data, timeout=timeout, **self._way
                ) as response:
                    try:
                        if response.status == 401 and again and self._credentials.refused():
                            again = False
                            continue
                        if response.status >= 300:
                            raise await _refusal(response)
                        yield response
                        return
                    finally:
                        _let_go(response)

    @property
    def _way(self) -> dict[str, Any]:
        """How the server is reached, as aiohttp takes it."""
        name = self._credentials.configuration.tls_server_name
        return {"server_hostname": name, "proxy": self._through.url if self._through else None}

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what aiohttp raises into OSError; what a proxy says is told as the proxy's."""
        try:
            yield
        except aiohttp.ClientHttpProxyError as error:
            # Its own text has the proxy's password in it.
            why = f"{error.status} {error.message}".strip()
            raise ProxyError(f"the proxy {self._through} does not let us through: {why}") from error
        except aiohttp.ClientProxyConnectionError as error:
            raise ProxyError(f"the proxy {self._through} does not answer: {error.os_error}") from error
        except aiohttp.ClientError as error:
            if isinstance(error, OSError):
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error


def _trust(configuration: Configuration) -> ssl.SSLContext:
    """Whom we take for the server, and who we are; raises OSError or ValueError where the files cannot be used."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.disable_strict_ssl_verification:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _let_go(response: aiohttp.ClientResponse) -> None:
    """End the connection of an answer that nobody reads to its end.

    Closed in peace, one with TLS would stay until the server says goodbye as well, and for half a minute where it is gone.
    """
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


def decoded(body: bytes | bytearray) -> dict[str, Any]:
    """The object that `body` writes; raises BrokenAnswer."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BrokenAnswer(f"not JSON: {bytes(body[:80])!r}") from error
    if not isinstance(found, dict):
        raise BrokenAnswer(f"no object: {bytes(body[:80])!r}")
    return found


def _no_upgrade(error: aiohttp.WSServerHandshakeError) -> ApiError:
    return ApiError(error.status, f"no upgrade to a WebSocket: {error.message}")


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
