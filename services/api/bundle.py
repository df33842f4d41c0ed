"""The built dashboard, as browsers ask for it: compressed, and kept by them as long as it is the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import hdrs, web

INDEX: Final = "index.html"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_CODINGS: Final = {"br": ".br", "gzip": ".gz"}
"""Content codings and how the build names what is packed so, the smallest first."""
_HASHED: Final = "assets/"
"""Where names change with what is in the files."""
_FOR_EVER: Final = "max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


class NotBuiltError(Exception):
    """There is no dashboard in this installation."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file in each coding that it is there in; "" is the plain one."""

    kind: str
    tag: str
    codings: dict[str, bytes]


class Bundle:
    """All files of the dashboard, in memory: some hundred kilobytes."""

    def __init__(self, folder: Traversable) -> None:
        found = dict(_walk(folder)) if folder.is_dir() else {}
        self._files = {name: _file(name, found) for name in found if _ending(name) in _TYPES}

    def answer(self, request: web.Request, name: str) -> web.Response:
        """A file; raises HTTPNotFound, and NotBuiltError where there is not even a page."""
        file = self._files.get(name)
        if file is None:
            if name == INDEX:
                raise NotBuiltError
            raise web.HTTPNotFound
        coding = _best(request.headers.get(hdrs.ACCEPT_ENCODING, ""), file)
        tag = f'"{file.tag}{coding and "-"}{coding}"'
        headers = {
            hdrs.CACHE_CONTROL: _FOR_EVER if name.startswith(_HASHED) else _ASK_AGAIN,
            hdrs.ETAG: tag,
            hdrs.VARY: hdrs.ACCEPT_ENCODING,
        }
        if _has(request.headers.get(hdrs.IF_NONE_MATCH, ""), tag):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = file.kind
        if coding:
            headers[hdrs.CONTENT_ENCODING] = coding
        return web.Response(body=file.codings[coding], headers=headers)


def _walk(folder: Traversable, before: str = "") -> list[tuple[str, bytes]]:
    """All files below, with their paths."""
    files: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = f"{before}{entry.name}"
        files += _walk(entry, f"{name}/") if entry.is_dir() else [(name, entry.read_bytes())]
    return files


def _file(name: str, found: dict[str, bytes]) -> _File:
    plain = found[name]
    packed = {coding: found[name + ending] for coding, ending in _CODINGS.items() if name + ending in found}
    return _File(_TYPES[_ending(name)], hashlib.sha256(plain).hexdigest()[:16], {**packed, "": plain})


def _ending(name: str) -> str:
    return name[name.rfind(".") :]


def _best(accepted: str, file: _File) -> str:
    """The smallest coding that the client takes (RFC 9110, 12.5.3); those that it weighs 0 it does not."""
    takes = set()
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}:
            takes.add(coding.strip())
    return next((coding for coding in file.codings if coding in takes), "")


def _has(listed: str, tag: str) -> bool:
    """Whether a list of tags has one; weak ones are the same here, where bytes are all that there is."""
    tags = {one.strip().removeprefix("W/") for one in listed.split(",")}
    return tag in tags or "*" in tags
