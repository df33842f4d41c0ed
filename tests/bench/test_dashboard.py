"""What the dashboard costs a browser: what is loaded, how soon rows are there, what a second takes, what memory."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import CDPSession, Page, async_playwright

from tests.bench.report import Report
from tests.support import dashboard
from tests.support.chromium import launched
from tests.support.frame_server import STATIC, FrameServer, serving_frames
from tests.support.pretend_cluster import PretendCluster

pytestmark = pytest.mark.timeout(900)
_PODS = (5_000, 10_000)
_GOAL_PODS = 5_000
_TICKS = 60
_MINUTES_TICKS = 300
_LOADS = 9
_SPENT = ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration")
_DATA_TIMES = """
// From a message's arrival to its acknowledgement the data is taken; what is drawn is drawn after that.
window.dataMs = [];
const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
    constructor(...given) {
        super(...given);
        this.addEventListener('message', () => { this.came = performance.now(); });
    }
    send(text) {
        if (text.includes('"ack"')) window.dataMs.push(performance.now() - this.came);
        super.send(text);
    }
};
"""
_FIRST_ROW = """
new MutationObserver((_, observer) => {
    const row = document.querySelector('[role=grid] [data-index="0"]');
    if (!row) return;
    observer.disconnect();
    // After the frame in which it was painted.
    requestAnimationFrame(() => setTimeout(() => { window.firstRowMs = performance.now(); }));
}).observe(document, {childList: true, subtree: true});
"""


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Of a browser, which has no rounds."""
    made = Report(f"Linux {platform.release()}, {os.cpu_count()} processors, Chromium without a GPU.")
    yield made
    print(f"\n\n{made.text()}")
    if request.config.getoption("--write"):
        made.write(request.config.getoption("--write"))


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    """A page on a laptop's screen."""
    async with async_playwright() as playwright, launched(playwright) as browser:
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.add_init_script(_FIRST_ROW)
        await page.add_init_script(_DATA_TIMES)
        yield page


def initial_files() -> list[Path]:
    """What the browser loads before the first row."""
    text = (STATIC / "index.html").read_text()
    return [STATIC / name for name in re.findall(r'(?:src|href)="\./(assets/[^"]+)"', text)]


def test_what_is_loaded_first(report: Report) -> None:
    files = initial_files()
    assert {path.suffix for path in files} == {".js", ".css"}
    rows = [(path.suffix[1:], path.stat().st_size, Path(f"{path}.gz").stat().st_size) for path in files]
    report.table(
        "Loaded before the first row",
        ("kind", "bytes", "compressed (gzip)"),
        [(kind, f"{plain:,}", f"{packed:,}") for kind, plain, packed in rows],
    )
    report.goal("initial JavaScript and CSS, compressed, kB", sum(row[2] for row in rows) / 1000, at_most=80)


@pytest.mark.parametrize("pods", _PODS)
async def test_first_rows(page: Page, report: Report, pods: int) -> None:
    cluster = PretendCluster(pods)
    async with serving_frames(FrameServer(cluster)) as server:
        server.greeting = orjson.dumps(cluster.snapshot()).decode()
        times = []
        for _ in range(_LOADS):
            await dashboard.opened(page, server.url)
            await page.wait_for_function("() => window.firstRowMs")
            times.append(float(await page.evaluate("window.firstRowMs")))
    report.table(
        f"Until the first rows are painted, {pods:,} pods ({len(server.greeting) / 1e6:.1f} MB of snapshot)",
        ("first load, ms", "median, ms", "slowest, ms"),
        [(f"{times[0]:.0f}", f"{statistics.median(times):.0f}", f"{max(times):.0f}")],
    )
    if pods == _GOAL_PODS:
        report.goal("first rows at 5,000 pods, s (slowest of nine loads)", max(times) / 1000, at_most=0.8)


@pytest.mark.parametrize("pods", _PODS)
async def test_a_second_of_traffic(page: Page, report: Report, pods: int) -> None:
    async with serving_frames(FrameServer(PretendCluster(pods))) as server:
        await dashboard.opened(page, server.url)
        clocks = [await clock(page, domain) for domain in ("timeTicks", "threadTicks")]
        both = [await one_tick(page, clocks, server) for _ in range(_TICKS)]
        await dashboard.visible_row(page)
    spent, worked = zip(*both, strict=True)
    columns = list(zip(*spent, strict=True))
    drawn = [sum(one[1:]) for one in spent]
    shown = [*columns, drawn, [sum(one) for one in spent]]
    work = [*zip(*worked, strict=True), [sum(one) for one in worked]]
    report.table(
        f"Main thread per message, {pods:,} pods of which half change, ms",
        ("", "data: JSON, arrays", "drawing: script", "style", "layout", "drawing in all", "all"),
        [
            ("median", *(f"{statistics.median(column):.1f}" for column in shown)),
            ("95th percentile", *(f"{tail(column):.1f}" for column in shown)),
        ],
    )
    report.table(
        f"Processor time of the same messages, {pods:,} pods: without what the page waited for a processor, ms",
        ("", "script with data", "style", "layout", "all"),
        [
            ("median", *(f"{statistics.median(column):.1f}" for column in work)),
            ("95th percentile", *(f"{tail(column):.1f}" for column in work)),
        ],
    )
    if pods == _GOAL_PODS:
        report.goal("drawing (script, style, layout) at 5,000 pods, 95th percentile, ms", tail(drawn), at_most=12)


def tail(values: Sequence[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


async def clock(page: Page, domain: str) -> CDPSession:
    """What counts the page's milliseconds: by the time of day, or by its thread's processor time."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable", {"timeDomain": domain})
    return devtools


async def one_tick(
    page: Page, clocks: Sequence[CDPSession], server: FrameServer
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Milliseconds of the main thread that a message took: data, script that draws, style, layout; and of work."""
    before = [await spent_ms(one) for one in clocks]
    await server.tick()
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    after = [await spent_ms(one) for one in clocks]
    wall, work = ([b - a for a, b in zip(*ends, strict=True)] for ends in zip(before, after, strict=True))
    data = float(await page.evaluate("window.dataMs.at(-1)"))
    script, style, layout = wall
    return (data, max(0.0, script - data), style, layout), tuple(work)


async def spent_ms(devtools: CDPSession) -> list[float]:
    """Milliseconds by kind since the page began."""
    found = {one["name"]: one["value"] for one in (await devtools.send("Performance.getMetrics"))["metrics"]}
    return [1000 * float(found[name]) for name in _SPENT]


@pytest.mark.parametrize("pods", _PODS)
async def test_memory_stays(page: Page, report: Report, pods: int) -> None:
    async with serving_frames(FrameServer(PretendCluster(pods))) as server:
        await dashboard.opened(page, server.url)
        devtools = await page.context.new_cdp_session(page)
        heaps = []
        for _ in range(4):
            for _ in range(_MINUTES_TICKS // 4):
                await server.tick()
            heaps.append(await heap_mb(devtools))
        await dashboard.visible_row(page)
    report.table(
        f"Heap after collecting garbage, {pods:,} pods, MB",
        tuple(f"after {at * _MINUTES_TICKS // 4} messages" for at in range(1, 5)),
        [tuple(f"{heap:.1f}" for heap in heaps)],
    )
    if pods == _GOAL_PODS:
        report.goal("heap at 5,000 pods, MB", max(heaps), at_most=60)
        report.goal("growth of the heap from message 75 to 300, MB", heaps[-1] - heaps[0], at_most=1)


async def heap_mb(devtools: CDPSession) -> float:
    """Used bytes of the heap, once garbage is collected."""
    await devtools.send("HeapProfiler.enable")
    await devtools.send("HeapProfiler.collectGarbage")
    used: float = (await devtools.send("Runtime.getHeapUsage"))["usedSize"]
    return used / 1e6
