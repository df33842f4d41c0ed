"""Who may call the API: hosts, origins, tokens; and what every answer carries."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from services.runtime.errors import UsageError
from services.runtime.redis_client import StoreError
from services.runtime.settings import ApiSettings

_LOOPBACK_HOSTS: Final = frozenset(("localhost", "127.0.0.1", "::1"))
_COOKIE: Final = "podloxx-token"
_OPEN: Final = frozenset(("/healthz", "/readyz"))
"""Probes come from a kubelet, which has no token and calls by address."""
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, title: str, detail: str) -> web.Response:
    """An error as RFC 9457 problem details."""
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return web.Response(status=status, body=body, content_type="application/problem+json")


class Guard:
    """The middleware in front of every route. Raises UsageError for settings that leave the door open."""

    def __init__(self, settings: ApiSettings) -> None:
        named = frozenset(host.strip().lower() for host in settings.allowed_hosts.split(",") if host.strip())
        self._token = _token(settings.token_file)
        if not _is_loopback(settings.listen) and not (self._token and named):
            raise UsageError(
                f"--listen {settings.listen} can be reached from other machines: give --token-file, a file with the "
                "token that clients must send, and --allowed-hosts, the names under which they call"
            )
        self._hosts = named | _LOOPBACK_HOSTS

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse or answer, and turn every error into problem details."""
        refusal = None if request.path in _OPEN else self._refusal(request)
        response = refusal or await _answered(request, handler)
        if not response.prepared:
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-store")
            if self._token and request.query.get("token") and refusal is None:
                # The page's own requests follow without the token in their address.
                response.set_cookie(_COOKIE, self._token, httponly=True, samesite="Strict")
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        host = _host(f"//{request.headers.get('Host', '')}")
        if host not in self._hosts:
            return problem(421, "Misdirected Request", f"the host {host!r} is not served here: see --allowed-hosts")
        origin = request.headers.get("Origin")
        if origin is not None and _host(origin) not in self._hosts:
            return problem(403, "Forbidden", f"pages of {origin} may not use this API")
        if self._token and not self._knows_token(request):
            return problem(401, "Unauthorized", "send the token as `Authorization: Bearer …` or `?token=…`")
        return None

    def _knows_token(self, request: web.Request) -> bool:
        given = (
            request.headers.get("Authorization", "").removeprefix("Bearer "),
            request.query.get("token", ""),
            request.cookies.get(_COOKIE, ""),
        )
        return any(hmac.compare_digest(one.encode(), self._token.encode()) for one in given)


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return problem(error.status, error.reason, error.text or error.reason)
    except StoreError as error:
        return problem(503, "Service Unavailable", str(error))


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _is_loopback(listen: str) -> bool:
    if listen == "localhost":
        return True
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        raise UsageError(f"--listen {listen!r} is no IP address of this machine, for example 127.0.0.1") from None


def _token(path: str) -> str:
    if not path:
        return ""
    try:
        token = Path(path).read_text().strip()
    except OSError as error:
        raise UsageError(f"cannot read --token-file {path}: {error.strerror}") from error
    if not token:
        raise UsageError(f"--token-file {path} is empty")
    return token
