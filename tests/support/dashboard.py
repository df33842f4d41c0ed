"""What tests do with the dashboard in a browser."""

from __future__ import annotations

import re
from typing import Any, Final

from playwright.async_api import Locator, Page, expect

UNITS: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


async def opened(page: Page, url: str) -> None:
    """Go there, and wait for the first row, which must be where the eye sees it."""
    await page.goto(url)
    await visible_row(page)


async def visible_row(page: Page) -> None:
    """The first row lies on the screen with nothing over it: an empty table passes many a test."""
    await page.wait_for_function(
        """() => {
            const row = document.querySelector('[role=grid] [data-index="0"]');
            if (!row) return false;
            const box = row.getBoundingClientRect();
            const seen = document.elementFromPoint(box.left + 40, box.top + box.height / 2);
            return row.contains(seen) && row.textContent.trim().length > 3;
        }"""
    )


def row(page: Page, name: str) -> Locator:
    """The row of a pod."""
    return page.locator("[role=grid] .row", has_text=name)


async def names(page: Page) -> list[str]:
    """The first cells of the rows, as they are seen from top to bottom."""
    found: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll('[role=grid] .row')]
            .sort((a, b) => a.dataset.index - b.dataset.index)
            .map((row) => row.querySelector('[role=gridcell]').title || row.querySelector('[role=gridcell]').innerText)"""
    )
    return found


def size(text: str) -> float:
    """The number behind "4.56 MB" or "36.5 Mbit/s"; not a number where nobody knows."""
    match = re.search(r"([\d.]+) ?([kMGT]?)(B|bit)", text)
    return float(match[1]) * UNITS[match[2]] if match else float("nan")


async def total(page: Page, name: str) -> float:
    """The rate of a pod, as its row has it."""
    return size(await row(page, name).locator(".rate").inner_text())


async def query(page: Page) -> str:
    """What the address bar has after the path."""
    return str(await page.evaluate("location.search"))


async def says(page: Page, text: str | re.Pattern[str]) -> None:
    """The state in the corner says so."""
    await expect(page.locator("header > p")).to_contain_text(text)


async def violations(page: Page, axe: str) -> list[dict[str, Any]]:
    """What axe has against the page as it is: WCAG 2.2 AA and best practices."""
    await page.evaluate(axe)
    found: list[dict[str, Any]] = await page.evaluate(
        """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
            .map((one) => ({id: one.id, help: one.help, at: one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)
                + ' ' + (node.any[0]?.message ?? ''))}))"""
    )
    return found
