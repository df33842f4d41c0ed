"""Which HTTP proxy a server is asked through, by the same rules as kubectl."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from services.runtime.errors import UsageError

_VARIABLES: Final = {"https": ("HTTPS_PROXY", "https_proxy"), "http": ("HTTP_PROXY", "http_proxy")}
_EXCEPTIONS: Final = ("NO_PROXY", "no_proxy")
_SCHEMES: Final = ("http", "https")
_PORTS: Final = {"https": 443, "http": 80}


class ProxyError(OSError):
    """A proxy does not let us through; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and where it is named."""

    url: str
    named_by: str

    def __str__(self) -> str:
        """How a user is told of it: without the password that its address may hold."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} ({self.named_by})"


def chosen(server: str, named: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for the API server at `server`; `named` is the kubeconfig's. Raises UsageError for one of another kind."""
    proxy = Proxy(named, "proxy-url of the kubeconfig") if named else _of_environment(server, environ)
    if proxy is None:
        return None
    try:
        parts = urlsplit(proxy.url)
        known = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise UsageError(
            f"the proxy {proxy} cannot be used: podloxx takes proxies such as http://proxy.example:3128. Name one of these, or "
            "except the API server with NO_PROXY"
        )
    return proxy


def _of_environment(server: str, environ: Mapping[str, str]) -> Proxy | None:
    parts = urlsplit(server)
    name = next((one for one in _VARIABLES.get(parts.scheme, ()) if environ.get(one)), "")
    excepted = next((environ[one] for one in _EXCEPTIONS if environ.get(one)), "")
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    if not name or _is_here(host) or any(_means(one.strip().lower(), host, port) for one in excepted.split(",")):
        return None
    url = environ[name]
    return Proxy(url if "://" in url else f"http://{url}", name)


def _is_here(host: str) -> bool:
    return host == "localhost" or bool((address := _address(host)) and address.is_loopback)


def _means(exception: str, host: str, port: int) -> bool:
    """Whether a word of NO_PROXY, in small letters, means a server: `*`, an address, a range, a domain; also with a port."""
    if exception == "*":
        return True
    if "/" in exception:
        address = _address(host)
        try:
            return address is not None and address in ipaddress.ip_network(exception, strict=False)
        except ValueError:
            return False
    name, _, asked = exception.rpartition(":")
    if not asked.isdigit() or (":" in name and not name.startswith("[")):
        # There is no port, or it is an IPv6 address.
        name, asked = exception, ""
    if not name or (asked and int(asked) != port):
        return False
    if (address := _address(host)) is not None:
        return address == _address(name.strip("[]"))
    domain = name.removeprefix("*")
    # With a dot before it only what is below the domain is meant.
    return host == domain or host.endswith(f".{domain.removeprefix('.')}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
