"""Connections of HTTP clients, of which those that send no HTTP get problem details as all others do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from services.api.guard import HEADERS, problem

_SHOWN: Final = 200
"""Characters of what the parser says: it quotes what it was sent."""


class Connection(web.RequestHandler):
    """aiohttp's, whose own refusals (no HTTP, a line or a header beyond 8,190 bytes) are plain text."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The same answer as problem details; raises ConnectionError where a part of another one is sent already."""
        refusal = super().handle_error(request, status, exc, message)
        told = " ".join((message or HTTPStatus(status).description).split())
        answer = problem(refusal.status, HTTPStatus(status).phrase, told[:_SHOWN])
        answer.headers.update(HEADERS)
        answer.force_close()
        return answer


def connections(server: web.Server, **options: Any) -> Callable[[], Connection]:
    """What makes the protocol of each connection that `server` answers; `options` as web.AppRunner takes them."""
    return lambda: Connection(server, loop=asyncio.get_running_loop(), **options)
