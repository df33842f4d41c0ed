"""Who may call the API: hosts, origins, tokens; and what every answer carries."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import orjson
from aiohttp import hdrs, web

from services.runtime.errors import UsageError
from services.runtime.log import get_logger
from services.runtime.redis_client import StoreError
from services.runtime.settings import ApiSettings

_log = get_logger(__name__)

_LOOPBACK_HOSTS: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))
_HOST: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\s:/@\[\]?#]+)(?::\d{1,5})?")
_ORIGIN: Final = re.compile(r"https?://(?P<authority>[^/?#@]+)")
_COOKIE: Final = "podloxx-token"
_PROBES: Final = frozenset(("/healthz", "/readyz"))
"""Probes come from a kubelet, which has no token and calls by address."""
_PAGES: Final = frozenset(("/", "/podloxx"))
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The web server's default names its version.
    "Server": "podloxx",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, title: str, detail: str) -> web.Response:
    """An error as RFC 9457 problem details."""
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return web.Response(status=status, body=body, content_type="application/problem+json")


class Guard:
    """The middleware in front of every route. Raises UsageError for settings that leave the door open."""

    def __init__(self, settings: ApiSettings) -> None:
        named = frozenset(_named_host(text) for text in settings.allowed_hosts.split(",") if text.strip())
        self._token = _token(settings.token_file)
        if not _is_loopback(settings.listen) and not (self._token and named):
            raise UsageError(
                f"--listen {settings.listen} can be reached from other machines: give --token-file, a file with the "
                "token that clients must send, and --allowed-hosts, the names under which they call"
            )
        self._named = named
        self._hosts = named | _LOOPBACK_HOSTS

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse or answer, and turn every error into problem details."""
        refusal = None if request.path in _PROBES else self._refusal(request)
        response = refusal or self._exchanged(request) or await _answered(request, handler)
        # A WebSocket's headers are gone by now; no browser would heed these there.
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers[name] = value
            response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        # A page of a stranger whose name was made to lead here says so in the host (DNS rebinding).
        authority = request.headers.get(hdrs.HOST, "").lower()
        host = _HOST.fullmatch(authority)
        if host is None or host["host"] not in self._hosts:
            return problem(
                421, "Misdirected Request", f"the host {authority!a} is not served here: see --allowed-hosts"
            )
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and not self._is_ours(origin.lower(), authority):
            return problem(403, "Forbidden", f"pages of {origin!a} may not use this API: see --allowed-hosts")
        if self._token and not self._knows_token(request):
            response = problem(401, "Unauthorized", "send the token as `Authorization: Bearer …` or `?token=…`")
            response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return response
        return None

    def _is_ours(self, origin: str, authority: str) -> bool:
        """Whether a page is our own, or of a host that the user named: another port is another program's page."""
        match = _ORIGIN.fullmatch(origin)
        host = _HOST.fullmatch(match["authority"]) if match else None
        return (
            match is not None and host is not None and (match["authority"] == authority or host["host"] in self._named)
        )

    def _knows_token(self, request: web.Request) -> bool:
        scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = (
            bearer.strip() if scheme.lower() == "bearer" else "",
            request.query.get("token", ""),
            request.cookies.get(_COOKIE, ""),
        )
        return any(hmac.compare_digest(_bytes(one), _bytes(self._token)) for one in given)

    def _exchanged(self, request: web.Request) -> web.Response | None:
        """The way to the page without the token in its address, where history and screenshots would show it."""
        if not self._token or request.path not in _PAGES or "token" not in request.query:
            return None
        response = web.Response(status=303, headers={hdrs.LOCATION: request.path})
        response.set_cookie(_COOKIE, self._token, httponly=True, samesite="Strict")
        return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        response = problem(405, error.reason, f"{request.method} is not possible here")
        response.headers[hdrs.ALLOW] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.HTTPNotFound:
        return problem(404, "Not Found", f"there is nothing at {request.path!a}")
    except web.HTTPException as error:
        return problem(error.status, error.reason, error.text or error.reason)
    except StoreError as error:
        return problem(503, "Service Unavailable", str(error))
    except Exception:  # the edge: behind it is only the web server
        if hdrs.UPGRADE in request.headers:
            # No answer can be given any more on what is a WebSocket by now.
            raise
        # What was not foreseen is ours to mend, and nothing that a stranger should read.
        _log.exception("request-failed", path=request.path)
        return problem(500, "Internal Server Error", "something went wrong here; the log of the API says what")


def _named_host(text: str) -> str:
    name = text.strip().lower()
    # As in an address bar: IPv6 stands in brackets.
    name = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
    match = _HOST.fullmatch(name)
    if match is None or match["host"] != name:
        raise UsageError(f"--allowed-hosts: {text.strip()!r} is no host name; give names such as podloxx.example.org")
    return name


def _is_loopback(listen: str) -> bool:
    if listen == "localhost":
        return True
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        raise UsageError(f"--listen {listen!r} is no IP address of this machine, for example 127.0.0.1") from None


def _bytes(text: str) -> bytes:
    # Headers that are not UTF-8 come as lone surrogates.
    return text.encode(errors="surrogateescape")


def _token(path: str) -> str:
    if not path:
        return ""
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"cannot read --token-file {path}: {reason}") from error
    if not token:
        raise UsageError(f"--token-file {path} is empty")
    return token
