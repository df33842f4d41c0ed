"""The dashboard over the whole tool: the demo's real packets, counted, added up, served and seen."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.support import dashboard
from tests.support.launched import Launched, launched
from tests.support.truth import wait_for_total
from tests.support.wait import until

PODS = {
    *("shop/web-6f5d8c9b7d-k2m8x", "shop/web-6f5d8c9b7d-p7c4n", "shop/api-59c7d6b8f4-t9wqz"),
    *("shop/api-59c7d6b8f4-d5xjh", "data/cache-0", "data/database-0", "kube-system/coredns-76f75df574-8hlrv"),
}
DATABASE = "data/database-0"


@pytest.fixture(scope="module")
def demo() -> Iterator[Launched]:
    """A demo that has run for a moment."""
    with launched("demo") as podloxx:
        wait_for_total(podloxx, lambda pods: set(pods) >= PODS, "the pods are there")
        yield podloxx


@pytest.fixture
def url(demo: Launched) -> str:
    """Where its dashboard is."""
    return f"http://127.0.0.1:{demo.port}/"


async def test_rows_tiles_and_timeline_come_together(page: Page, url: str) -> None:
    await dashboard.opened(page, url)
    assert set(await dashboard.names(page)) >= PODS
    await dashboard.says(page, "live 2/2 nodes")
    rates = [await dashboard.total(page, name.partition("/")[2]) for name in PODS]
    assert sum(rates) > 100_000
    throughput = dashboard.size(await page.locator(".tile", has_text="Throughput").inner_text())
    assert throughput > 100_000
    # Something is drawn where the newest step is.
    await until(lambda: painted(page), "the timeline has colours")


async def painted(page: Page) -> bool:
    """Whether the timeline's right end has any of the colours of scopes."""
    return bool(
        await page.evaluate(
            """() => {
                const canvas = document.querySelector('.uplot canvas');
                const {width, height} = canvas;
                const {data} = canvas.getContext('2d').getImageData(width - 30, 0, 30, height);
                let coloured = 0;
                for (let at = 0; at < data.length; at += 4)
                    if (Math.max(data[at], data[at + 1], data[at + 2])
                        - Math.min(data[at], data[at + 1], data[at + 2]) > 60 && data[at + 3] > 200) coloured += 1;
                return coloured > 50;
            }"""
        )
    )


async def test_a_bulk_transfer_is_seen_growing(page: Page, url: str) -> None:
    await dashboard.opened(page, f"{url}?pod={DATABASE}")
    peers = page.locator("aside li", has_text="data/cache-0").filter(has_text="6380/tcp")

    async def seen() -> float:
        texts = await peers.locator(".sum").all_inner_texts()
        return sum(map(dashboard.size, texts))

    before = await until(seen, "the cache's snapshots are there", timeout_s=30)
    await until(lambda: grown(page, peers_sum=before), "they grow by a megabyte", timeout_s=30)


async def grown(page: Page, peers_sum: float) -> bool:
    """Whether what the cache and the database exchange has grown by a megabyte."""
    peers = page.locator("aside li", has_text="data/cache-0").filter(has_text="6380/tcp")
    return sum(map(dashboard.size, await peers.locator(".sum").all_inner_texts())) > peers_sum + 1e6


@pytest.mark.timeout(120)
async def test_a_pod_that_ends_greys_out_and_a_new_one_appears(page: Page, url: str) -> None:
    await dashboard.opened(page, f"{url}?q=ns:jobs")
    job = page.locator("[role=grid] .row", has_text="nightly-report")
    await expect(job.filter(has_text="ended")).to_be_visible(timeout=60_000)
    await expect(job.locator(".name").first).to_have_css("color", re.compile(r"rgb\(85, 96, 109\)"))
    await expect(job.filter(has_not_text="ended").first).to_be_visible(timeout=60_000)


async def test_filters_narrow_and_clear(page: Page, url: str) -> None:
    await dashboard.opened(page, url)
    await page.keyboard.press("/")
    await page.keyboard.type("ns:shop -label:app=api")
    await expect(page.locator("footer")).to_contain_text(re.compile(r"2 of \d+ pods"))
    assert {name.split("-")[0] for name in await dashboard.names(page)} == {"shop/web"}
    assert await dashboard.query(page) == "?q=ns:shop+-label:app=api"
    for term, count in (("ip:10.42.2.0/24", 3), ("node:node-b", 3), ("port:5432", 2), ("scope:cross", 4), ("cache", 1)):
        await page.locator("#filter").fill(term)
        await until(lambda c=count: at_least(page, c), f"{term} finds {count}")
        await expect(page.locator("footer")).to_contain_text(re.compile(r"\d+ of \d+ pods"))
    await page.locator("#filter").fill("nobody-is-called-so")
    await page.get_by_role("button", name="Clear the filter").click()
    await dashboard.visible_row(page)
    assert await dashboard.query(page) == ""


async def at_least(page: Page, count: int) -> bool:
    """Whether so many rows, and not all of them, are there."""
    text = await page.locator("footer").inner_text()
    match = re.match(r"(\d+) of (\d+) pods", text)
    return match is not None and count <= int(match[1]) < int(match[2])


async def test_sorting_by_head_tile_and_key(page: Page, url: str) -> None:
    await dashboard.opened(page, url)
    await page.get_by_role("columnheader", name="Pod", exact=True).get_by_role("button").click()
    await page.locator("h1").hover()
    found = [name.partition("/")[2] for name in await dashboard.names(page)]
    assert found == sorted(found)
    await expect(page.get_by_role("columnheader", name="Pod", exact=True)).to_have_attribute("aria-sort", "ascending")
    await page.locator(".tile", has_text="Internet").click()
    assert await dashboard.query(page) == "?sort=internet"
    await page.keyboard.press("s")
    assert await dashboard.query(page) == "?sort=syn"


async def test_views_by_keys_and_the_way_back(page: Page, url: str) -> None:
    await dashboard.opened(page, url)
    for key, view, what in (("2", "map", "svg .ribbon"), ("3", "external", ".row"), ("4", "nodes", ".row")):
        await page.keyboard.press(key)
        await expect(page.locator(f"main {what}").first).to_be_visible()
        assert await dashboard.query(page) == f"?view={view}"
    await expect(page.locator("main .row", has_text="node-a")).to_contain_text("reports")
    await page.go_back()
    await expect(page.get_by_role("columnheader", name="Destination")).to_be_visible()
    await page.go_back()
    await page.go_back()
    await dashboard.visible_row(page)
    assert await dashboard.query(page) == ""
    await page.go_forward()
    await expect(page.locator("main svg .ribbon").first).to_be_visible()


async def test_the_map_filters_by_what_is_clicked(page: Page, url: str) -> None:
    await page.goto(f"{url}?view=map&by=zone")
    await expect(page.locator("main .end", has_text="eu-1a").first).to_be_visible()
    await page.get_by_role("button", name="Matrix").click()
    await expect(page.locator("td", has_text="MB").first).to_be_visible()
    await page.get_by_role("button", name="Namespace").click()
    await page.get_by_role("button", name="Ribbons").click()
    await page.locator("main .end", has_text="kube-system").first.click()
    assert "q=ns:kube-system" in await dashboard.query(page)
    await page.get_by_role("button", name="Now", exact=True).click()
    await expect(page.locator("main .end", has_text="kube-system").first).to_contain_text("/s")


async def test_the_drawer_by_keys(page: Page, url: str) -> None:
    await dashboard.opened(page, f"{url}?sort=name")
    for _ in range(4):
        await page.keyboard.press("j")
    await page.keyboard.press("k")
    await page.keyboard.press("Enter")
    third = (await dashboard.names(page))[2]
    await expect(page.locator("aside h2")).to_have_text(third.partition("/")[2])
    await expect(page.locator("aside h2")).to_be_focused()
    assert await dashboard.query(page) == f"?sort=name&pod={third}"
    await expect(page.locator("aside li").first).to_contain_text(re.compile(r"tcp|udp|icmp"))
    await page.keyboard.press("Escape")
    await expect(page.locator("aside")).to_have_count(0)
    await expect(page.get_by_role("grid")).to_be_focused()


async def test_a_deep_link_opens_all_of_it(page: Page, url: str) -> None:
    await page.goto(f"{url}podloxx?q=ns:data&sort=name&pod={DATABASE}")
    await dashboard.visible_row(page)
    assert await dashboard.names(page) == ["data/cache-0", DATABASE]
    drawer = page.locator("aside")
    await expect(drawer.locator("h2")).to_have_text("database-0")
    await expect(drawer).to_contain_text("app=database")
    await expect(drawer).to_contain_text("10.42.2.13")
    await expect(drawer.locator("li", has_text="vpc").first).to_contain_text("A range that you named")
    await drawer.get_by_role("button", name="data/cache-0").first.click()
    await expect(drawer.locator("h2")).to_have_text("cache-0")
    await page.go_back()
    await expect(drawer.locator("h2")).to_have_text("database-0")
    await page.reload()
    await expect(drawer.locator("h2")).to_have_text("database-0")


async def test_a_range_is_brushed_and_left(page: Page, url: str) -> None:
    await dashboard.opened(page, url)
    await until(lambda: painted(page), "there is something to choose")
    box = await page.locator(".u-over").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] - 3, middle, steps=4)
    await page.mouse.up()
    await expect(page.locator("h2", has_text="Average of")).to_be_visible()
    assert re.fullmatch(r"\?range=\d+-\d+", await dashboard.query(page))
    await dashboard.says(page, "range")
    await expect(dashboard.row(page, "database-0").locator(".rate")).to_contain_text(re.compile(r"[kM]B"))
    # Connection attempts are not kept for the past.
    await expect(dashboard.row(page, "database-0").get_by_role("gridcell").nth(10)).to_have_text("\u2013")
    await page.keyboard.press("Escape")
    await dashboard.says(page, "live")
    assert await dashboard.query(page) == ""
    await page.get_by_role("button", name="1 min", exact=True).click()
    await dashboard.says(page, "range")
    await page.go_back()
    await dashboard.says(page, "live")


async def test_bits_themes_and_keys_are_remembered(page: Page, url: str) -> None:
    await dashboard.opened(page, url)
    await page.get_by_role("button", name="Unit:").click()
    await expect(dashboard.row(page, "database-0").locator(".rate")).to_contain_text("bit")
    theme = page.get_by_role("button", name="Theme:")
    for name in ("light", "dark"):
        await theme.click()
        await expect(page.locator("html")).to_have_attribute("data-theme", name)
    await page.keyboard.press("?")
    await page.get_by_label("Heed single keys").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("2")
    assert await dashboard.query(page) == ""
    await page.reload()
    await dashboard.visible_row(page)
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(dashboard.row(page, "database-0").locator(".rate")).to_contain_text("bit")


async def test_downloads_have_what_is_seen(page: Page, url: str, tmp_path: Path) -> None:
    await dashboard.opened(page, f"{url}?q=ns:data&sort=name")
    for kind in ("CSV", "JSON"):
        await page.get_by_role("button", name="Raw data and downloads").click()
        async with page.expect_download() as waiting:
            await page.get_by_role("button", name=kind, exact=True).click()
        download = await waiting.value
        assert re.fullmatch(rf"podloxx-pods-[\dT-]+\.{kind.lower()}", download.suggested_filename)
        path = tmp_path / kind
        await download.save_as(path)
        text = path.read_text()
        rows = json.loads(text) if kind == "JSON" else list(csv.DictReader(io.StringIO(text)))
        assert [row["pod"] for row in rows] == ["cache-0", "database-0"]
        assert float(rows[1]["total"]) > 100_000
        assert rows[1]["node"] == "node-b"


async def test_raw_data_is_one_click_away(page: Page, context: BrowserContext, url: str) -> None:
    await dashboard.opened(page, url)
    await page.get_by_role("button", name="Raw data and downloads").click()
    async with context.expect_page() as waiting:
        await page.get_by_role("link", name="/traffic/total").click()
    raw = await waiting.value
    assert DATABASE in json.loads(await raw.locator("body").inner_text())


async def test_destinations_outside_and_who_talks_with_them(page: Page, url: str) -> None:
    await dashboard.opened(page, f"{url}?view=external")
    await expect(page.locator("main .row", has_text="5432/tcp").first).to_contain_text("postgres")
    await page.get_by_label("unknown only").check()
    await expect(page.locator("main .row", has_text="vpc")).to_have_count(0)
    await page.locator("#filter").fill("port:9000")
    await page.locator("main .row", has_text="198.51.100.40").first.click()
    await page.get_by_role("button", name=re.compile("nightly-report")).first.click()
    await expect(page.locator("aside h2")).to_contain_text("nightly-report")


async def test_two_tabs_see_the_same(page: Page, context: BrowserContext, url: str) -> None:
    other = await context.new_page()
    await dashboard.opened(page, url)
    await dashboard.opened(other, url)

    async def same() -> bool:
        # Paused anew each time: pods come and go, and what is seen once is not seen for ever.
        await page.keyboard.press("p")
        await dashboard.says(page, "paused")
        # Totals only grow: whoever is behind catches up.
        one, two = [await read_totals(tab) for tab in (page, other)]
        await page.keyboard.press("p")
        await dashboard.says(page, "live")
        return one.keys() == two.keys() and all(two[name] >= one[name] for name in one)

    await until(same, "the other tab has the same pods, and at least their bytes", timeout_s=30)


async def read_totals(page: Page) -> dict[str, float]:
    """The bytes of each pod since the session began, as a download would have them."""
    await page.get_by_role("button", name="Raw data and downloads").click()
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="JSON", exact=True).click()
    path = await (await waiting.value).path()
    return {row["pod"]: float(row["total"]) for row in json.loads(Path(path).read_text())}


async def test_a_phone_has_it_all(page: Page, url: str) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    await dashboard.opened(page, url)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await dashboard.row(page, "database-0").click()
    await expect(page.locator("aside h2")).to_have_text("database-0")
    await page.get_by_role("button", name="Close").click()
    await dashboard.visible_row(page)
