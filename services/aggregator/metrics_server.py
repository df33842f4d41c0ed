"""Serves `/metrics`, and nothing else, where a setting says so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import hdrs, web

from services.runtime.errors import UsageError
from services.runtime.exposition import Metric, written
from services.runtime.log import get_logger

_log = get_logger(__name__)
_WHERE: Final = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_SHUTDOWN_S: Final = 1.0
"""An answer is made at once; a scrape that takes longer to read it is Prometheus' to repeat."""


@asynccontextmanager
async def serving(where: str, metrics: Callable[[], Iterable[Metric]]) -> AsyncIterator[None]:
    """Answer scrapes at `where`, ADDRESS:PORT, while inside; nowhere where it is empty. Raises UsageError."""
    if not where:
        yield
        return
    match = _WHERE.fullmatch(where)
    if match is None or int(match["port"]) > 0xFFFF:
        raise UsageError(f"--metrics-listen {where!r} is not of the form ADDRESS:PORT, for example :9337")

    async def answer(request: web.Request) -> web.Response:
        text, kind = written(metrics(), request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=text.encode(), headers={hdrs.CONTENT_TYPE: kind, hdrs.SERVER: "podloxx"})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, match["v6"] or match["host"] or None, int(match["port"])).start()
        except OSError as error:
            raise UsageError(f"--metrics-listen {where}: cannot listen there: {error.strerror}") from error
        # Names, where 0 was asked for, the port that was free.
        _log.info("metrics-served", port=runner.addresses[0][1])
        yield
    finally:
        await runner.cleanup()
