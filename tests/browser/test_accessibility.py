"""axe finds nothing against any view, drawer or dialog, in either theme, at three widths."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.support import dashboard
from tests.support.frame_server import FrameServer
from tests.support.pretend_answers import answers

AXE = Path(__file__).parents[2] / "frontend/node_modules/axe-core/axe.min.js"
WIDTHS = (390, 1280, 1920)


@pytest.fixture(scope="module")
def axe() -> str:
    """The checker's source."""
    assert AXE.is_file(), "axe-core is not installed: make frontend"
    return AXE.read_text()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_view_and_drawer(page: Page, frames: FrameServer, axe: str, theme: str) -> None:
    frames.answers = answers(frames.cluster)
    first = next(iter(frames.cluster.pods.values()))
    pod = f"{first.ns}/{first.name}"
    await page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
    await page.goto(frames.url)
    await expect(page.locator("html")).to_have_attribute("data-theme", theme)
    found = {}
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 900})
        await dashboard.opened(page, frames.url)
        found[f"pods {width}"] = await dashboard.violations(page, axe)
        await page.goto(f"{frames.url}?view=map&as=ribbons")
        await expect(page.locator("main .ribbon").first).to_be_visible()
        found[f"ribbons {width}"] = await dashboard.violations(page, axe)
        await page.goto(f"{frames.url}?view=map&as=matrix")
        await expect(page.locator("main td", has_text="MB").first).to_be_visible()
        found[f"matrix {width}"] = await dashboard.violations(page, axe)
        for view in ("external", "nodes"):
            await dashboard.opened(page, f"{frames.url}?view={view}")
            found[f"{view} {width}"] = await dashboard.violations(page, axe)
            await page.locator("main .row").nth(4).click()
            await expect(page.locator("main aside h2")).to_be_visible()
            found[f"{view} drawer {width}"] = await dashboard.violations(page, axe)
        await page.goto(f"{frames.url}?pod={pod}&q=zone")
        await expect(page.locator("aside li").first).to_be_visible()
        found[f"drawer {width}"] = await dashboard.violations(page, axe)
    assert [(where, one) for where, what in found.items() for one in what] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_what_opens_over_it_and_what_goes_wrong(page: Page, frames: FrameServer, axe: str, theme: str) -> None:
    await page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    await dashboard.opened(page, frames.url)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    found = {"help": await dashboard.violations(page, axe)}
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Raw data and downloads").click()
    found["menu"] = await dashboard.violations(page, axe)
    await page.keyboard.press("Escape")
    await page.locator("#filter").fill("nothing-is-called-so")
    await expect(page.get_by_role("heading", name="No pod fits")).to_be_visible()
    found["empty"] = await dashboard.violations(page, axe)
    await page.locator("#filter").fill("")
    frames.greet = False
    await frames.drop()
    await expect(page.get_by_role("button", name="Connect now")).to_be_visible()
    await dashboard.visible_row(page)
    found["not connected"] = await dashboard.violations(page, axe)
    assert [(where, one) for where, what in found.items() for one in what] == []
