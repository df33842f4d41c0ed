"""Debian's Chromium, as root may start it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from playwright.async_api import Browser, Playwright

PROGRAM: Final = "/usr/bin/chromium"
_FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Root needs the first; the others keep it from calling home."""


@contextlib.asynccontextmanager
async def launched(playwright: Playwright) -> AsyncIterator[Browser]:
    """A browser without a window."""
    browser = await playwright.chromium.launch(executable_path=PROGRAM, args=list(_FLAGS))
    try:
        yield browser
    finally:
        await browser.close()
