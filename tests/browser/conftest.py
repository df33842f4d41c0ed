"""Chromium, and pages in it whose errors fail the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.support.chromium import launched
from tests.support.frame_server import FrameServer, serving_frames
from tests.support.pretend_cluster import PretendCluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser serves one loop: that of a module's tests."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for a module."""
    async with async_playwright() as playwright, launched(playwright) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A browser that knows nothing yet; a laptop's screen."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.set_default_timeout(10_000)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A page; what goes wrong in it fails the test."""
    page = await context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if is_wrong(said.type, said.text) else None)
    yield page
    assert wrong == []


def is_wrong(kind: str, text: str) -> bool:
    """Whether the console tells of an error; that a server is not there is what some tests are about."""
    ours = ("net::ERR", "Failed to load resource", "Canvas2D: Multiple readback")
    return kind in {"error", "warning"} and not any(one in text for one in ours)


@pytest_asyncio.fixture(loop_scope="module")
async def frames() -> AsyncIterator[FrameServer]:
    """A server of scripted frames, of 60 pods."""
    async with serving_frames(FrameServer(PretendCluster(60, nodes_wanted=6))) as server:
        yield server
