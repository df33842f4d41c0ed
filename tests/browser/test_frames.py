"""The dashboard over scripted frames: what is hard to provoke with a real API."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, Page, expect

from tests.support import dashboard
from tests.support.frame_server import FrameServer, serving_frames
from tests.support.pretend_answers import answers
from tests.support.pretend_cluster import PretendCluster
from tests.support.wait import until


async def test_the_first_rows_come_with_the_snapshot(page: Page, frames: FrameServer) -> None:
    await dashboard.opened(page, frames.url)
    await expect(page.locator("footer")).to_contain_text("60 of 60 pods, 100 % of traffic")
    await dashboard.says(page, "live 5/6 nodes")


async def test_a_delta_changes_a_row(page: Page, frames: FrameServer) -> None:
    pod = frames.cluster.add_pod("slow-0", "shop", node="node-05")
    await dashboard.opened(page, frames.url + "?q=slow-0")
    frames.cluster.changing = 0
    frames.cluster.set_numbers(pod, tx=1_000_000, rx=500_000)
    await frames.push(frames.cluster.delta(frames.cluster.seq, [pod]))
    await expect(dashboard.row(page, "slow-0").locator(".rate")).to_have_text("1.50 MB")


async def test_a_gap_is_said_and_mended(page: Page, frames: FrameServer) -> None:
    await dashboard.opened(page, frames.url)
    frames.cluster.tick()
    lost = frames.cluster.tick()
    frames.said.clear()
    await frames.push(lost)
    await until(lambda: {"ack": lost["seq"], "snapshot": True} in frames.said, "it asks for a snapshot")
    await until(lambda: {"ack": lost["seq"]} in frames.said, "it takes the snapshot")
    await dashboard.says(page, "live")
    await expect(page.locator(".banner")).to_have_count(0)


async def test_it_resumes_where_it_was(page: Page, frames: FrameServer) -> None:
    await dashboard.opened(page, frames.url)
    await frames.tick()
    frames.greet = False
    await frames.drop()
    await expect(page.locator(".banner")).to_contain_text(re.compile(r"Not connected.*What you see is of"))
    await expect(page.locator(".banner")).to_contain_text(re.compile(r"Next attempt in \d s"))
    await expect(page.locator(".page.stale")).to_be_visible()
    await page.get_by_role("button", name="Connect now").click()
    await until(lambda: len(frames.asked) == 2, "it is back")
    assert frames.asked[1]["resume"] == f"{frames.cluster.epoch}:{frames.cluster.seq}"
    await dashboard.visible_row(page)
    await frames.tick()
    await expect(page.locator(".banner")).to_have_count(0)
    await dashboard.says(page, "live")


async def test_another_session_replaces_everything(page: Page, frames: FrameServer) -> None:
    await dashboard.opened(page, frames.url)
    other = PretendCluster(3, nodes_wanted=2, seed=9, epoch=8)
    frames.cluster = other
    await frames.push(other.snapshot())
    await expect(page.locator("footer")).to_contain_text("3 of 3 pods")
    await dashboard.visible_row(page)
    assert set(await dashboard.names(page)) == {f"{pod.ns}/{pod.name}" for pod in other.pods.values()}


async def test_another_version_says_so_and_does_not_try_again(page: Page, frames: FrameServer) -> None:
    frames.refuse = 4001, "this API speaks version 2 of the live protocol"
    await page.goto(frames.url)
    await expect(page.get_by_role("alert")).to_contain_text("another version than the API (this API speaks version 2")
    await expect(page.get_by_role("button", name="Reload")).to_be_visible()
    await dashboard.says(page, "old page")
    assert len(frames.asked) == 1


async def test_a_server_without_totals_says_why(page: Page, frames: FrameServer) -> None:
    frames.greet = False
    frames.answers["/readyz"] = {"detail": "no aggregator has written totals yet"}
    await page.goto(frames.url)
    await expect(page.get_by_role("alert")).to_have_text("no aggregator has written totals yet")
    await expect(page.get_by_role("heading", name="Connecting")).to_be_visible()


async def test_what_is_not_current_is_said(page: Page, frames: FrameServer) -> None:
    await dashboard.opened(page, frames.url)
    frames.cluster.problem = "no aggregator has committed for 12 s"
    await frames.tick()
    await expect(page.get_by_role("alert")).to_contain_text("no aggregator has committed for 12 s. What you see is of")
    await dashboard.says(page, "stale 5/6 nodes")
    await expect(page.locator(".page.stale")).to_be_visible()


async def test_no_pods_at_all(page: Page, frames: FrameServer) -> None:
    frames.cluster = PretendCluster(0, nodes_wanted=1, silent_nodes=0)
    await page.goto(frames.url)
    await expect(page.get_by_role("heading", name="No traffic has been seen yet")).to_be_visible()


async def test_rows_of_silent_nodes_are_not_known_and_never_zero(page: Page, frames: FrameServer) -> None:
    frames.cluster.add_pod("unheard-0", "shop", node="node-01")
    silent = frames.cluster.add_pod("unheard-1", "shop", node="node-01")
    frames.cluster.numbers[silent] = (*([None] * 9), 5_000_000)
    await dashboard.opened(page, frames.url + "?q=unheard-1")
    line = dashboard.row(page, "unheard-1")
    await expect(line.locator(".rate")).to_have_text("\u2013")
    await expect(line).to_have_class(re.compile("silent"))


async def test_names_and_labels_are_data_and_never_markup(page: Page, frames: FrameServer) -> None:
    evil = "<img src=x onerror=alert(1)>"
    frames.cluster.add_pod(evil, "<script>alert(2)</script>", node="node-05", labels=(f"app={evil}",))
    frames.cluster.add_pod("{{7*7}}", "javascript:alert(3)", node="node-05")
    asked: list[str] = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    await page.goto(frames.url + "?sort=name")
    await page.locator("#filter").fill("alert(1)")
    await dashboard.visible_row(page)
    assert await dashboard.names(page) == [f"<script>alert(2)</script>/{evil}"]
    await dashboard.row(page, "onerror").click()
    await expect(page.locator("aside h2")).to_have_text(evil)
    await expect(page.get_by_role("button", name=f"app={evil}")).to_be_visible()
    assert await page.locator("main img, aside img, main script").count() == 0
    assert evil in await page.title()
    await page.locator("#filter").fill("7*7")
    await expect(dashboard.row(page, "{{7*7}}")).to_be_visible()
    assert asked == []


async def test_the_order_holds_under_the_pointer_and_says_so(page: Page, frames: FrameServer) -> None:
    cluster = frames.cluster
    cluster.changing = 0
    low = cluster.add_pod("hold-low", "shop", node="node-05")
    high = cluster.add_pod("hold-high", "shop", node="node-05")
    cluster.set_numbers(low, tx=10, rx=0)
    cluster.set_numbers(high, tx=10_000, rx=0)
    await dashboard.opened(page, frames.url + "?q=hold-")
    assert await dashboard.names(page) == ["shop/hold-high", "shop/hold-low"]
    await dashboard.row(page, "hold-high").hover()
    cluster.set_numbers(low, tx=9_000_000, rx=0)
    await frames.push(cluster.delta(cluster.seq, [low]))
    await expect(dashboard.row(page, "hold-low").locator(".rate")).to_have_text("9.00 MB")
    assert await dashboard.names(page) == ["shop/hold-high", "shop/hold-low"]
    await expect(page.locator("footer")).to_contain_text("order held")
    await page.locator("h1").hover()
    await expect(page.locator("footer")).not_to_contain_text("order held")
    await until(lambda: dashboard.names(page), "there are rows")
    assert await dashboard.names(page) == ["shop/hold-low", "shop/hold-high"]


async def test_a_hidden_tab_asks_for_less(page: Page, frames: FrameServer) -> None:
    await dashboard.opened(page, frames.url)
    await page.evaluate(
        """() => {
            Object.defineProperty(document, 'hidden', {value: true, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    await until(lambda: {"hz": 0.2} in frames.said, "it asks for a message in five seconds")
    await page.evaluate(
        """() => {
            Object.defineProperty(document, 'hidden', {value: false, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    await until(lambda: {"hz": 1} in frames.said, "and for one a second")


async def test_pause_freezes_what_is_seen_and_resume_jumps_to_now(page: Page, frames: FrameServer) -> None:
    cluster = frames.cluster
    cluster.changing = 0
    pod = cluster.add_pod("paused-0", "shop", node="node-05")
    cluster.set_numbers(pod, tx=1_000, rx=0)
    await dashboard.opened(page, frames.url + "?q=paused-0")
    cell = dashboard.row(page, "paused-0").locator(".rate")
    await page.get_by_role("button", name="Pause").click()
    cluster.set_numbers(pod, tx=2_000_000, rx=0)
    new = cluster.add_pod("paused-0-too", "shop", node="node-05")
    await frames.push(cluster.delta(cluster.seq, [pod, new]))
    await frames.tick()
    await expect(cell).to_have_text("1.00 kB")
    await dashboard.says(page, "paused")
    await page.keyboard.press("p")
    await expect(dashboard.row(page, "paused-0").locator(".rate").first).to_have_text("2.00 MB")
    await expect(dashboard.row(page, "paused-0-too")).to_be_visible()


async def test_a_pod_with_very_many_peers_lists_the_largest_and_counts_the_others(
    page: Page, frames: FrameServer
) -> None:
    frames.cluster = PretendCluster(300)
    frames.cluster.talks_with, frames.cluster.more_peers = 247, 40
    pod = next(iter(frames.cluster.pods.values()))
    await page.goto(f"{frames.url}?pod={pod.ns}/{pod.name}")
    listed = page.locator("aside .peers li")
    await expect(listed).to_have_count(200)
    sums = [dashboard.size(text) for text in await listed.locator(".sum").all_inner_texts()]
    assert sums == sorted(sums, reverse=True)
    # Of 250 in the message, and 40 that the API did not send.
    more = page.locator("aside .peers").get_by_text("and 90 more")
    await more.scroll_into_view_if_needed()
    await expect(more).to_be_in_viewport()
    raw = page.locator("aside").get_by_role("link", name="Raw peers")
    assert await raw.get_attribute("href") == f"traffic/peers?pod={pod.ns}%2F{pod.name}"
    await frames.tick()
    await expect(listed).to_have_count(200)


async def test_a_row_moves_with_its_pod_and_is_heard_where_it_is_seen(page: Page, frames: FrameServer) -> None:
    cluster = frames.cluster
    cluster.changing = 0
    await dashboard.opened(page, frames.url)
    before = await dashboard.names(page)
    titles = "[...document.querySelectorAll('.row')].map((row) => row.querySelector('.name').title)"
    rises = next(pod for pod in cluster.pods.values() if f"{pod.ns}/{pod.name}" == before[9])
    cluster.set_numbers(rises.id, tx=10**12)
    new = cluster.add_pod("largest-0", "shop", node="node-05")
    cluster.set_numbers(new, tx=10**13, rx=0)
    await frames.push(cluster.delta(cluster.seq, [rises.id, new]))
    await expect(dashboard.row(page, "largest-0")).to_be_visible()
    seen = ["shop/largest-0", before[9], *before[:9], *before[10:-1]]
    assert await dashboard.names(page) == seen
    # What stays in sight stays in its element; the one of what left has what came.
    assert await page.evaluate(titles) == [*before[:-1], "shop/largest-0"]
    assert await _heard(page) == [name.partition("/")[2] for name in seen]
    # Under the pointer they stand in their order, so that a selection is what is seen.
    await dashboard.row(page, "largest-0").hover()
    await expect(page.locator("footer")).to_contain_text("order held")
    assert await page.evaluate(titles) == seen
    await page.locator('[data-index="1"]').click()
    await expect(page.locator("aside h2")).to_contain_text(rises.name)


async def _heard(page: Page) -> list[str]:
    """The pods in the order in which they are read out."""
    devtools = await page.context.new_cdp_session(page)
    nodes = {node["nodeId"]: node for node in (await devtools.send("Accessibility.getFullAXTree"))["nodes"]}
    groups = [node for node in nodes.values() if node["role"].get("value") == "rowgroup"]
    rows = [nodes[child]["name"]["value"] for group in groups for child in group["childIds"]]
    return [name.split()[0] for name in rows[1:]]


async def test_a_phone_tells_two_ports_of_one_address_apart(page: Page, frames: FrameServer) -> None:
    frames.answers = answers(frames.cluster)
    listed = frames.answers["/traffic/external"]["destinations"]
    listed[:] = [
        listed[1] | {"name": "", "address": address, "protocol": protocol, "port": port}
        for address in ("203.0.113.250", "2001:db8:1234:5678:9abc:def0:1234:5678")
        for protocol, port in (("tcp", 443), ("udp", 443), ("tcp", 50_051))
    ]
    await page.set_viewport_size({"width": 390, "height": 844})
    await dashboard.opened(page, frames.url + "?view=external")
    below = page.locator("main .row .below")
    told = [text.split()[0] for text in await below.all_inner_texts()]
    assert sorted(told) == sorted(["443/tcp", "443/udp", "50051/tcp"] * 2)
    rows = [await page.locator(f'[data-index="{at}"]').bounding_box() for at in range(6)]
    lines = [await page.locator(f'[data-index="{at}"] .below').bounding_box() for at in range(6)]
    assert all(
        row and line and row["y"] < line["y"] and line["y"] + line["height"] < row["y"] + row["height"]
        for row, line in zip(rows, lines, strict=True)
    )
    assert [row["y"] for row in rows if row] == [rows[0]["y"] + 44 * at for at in range(6) if rows[0]]
    await page.set_viewport_size({"width": 1280, "height": 844})
    await expect(below.first).to_be_hidden()
    await expect(page.get_by_role("gridcell", name="50051/tcp").first).to_be_visible()


async def test_ten_thousand_pods_are_a_few_rows_of_the_page(chromium: Browser) -> None:
    page = await chromium.new_page(viewport={"width": 1280, "height": 800})
    async with serving_frames(FrameServer(PretendCluster(10_000))) as server:
        await dashboard.opened(page, server.url)
        await expect(page.locator("footer")).to_contain_text("10,000 of 10,000 pods")
        assert await page.locator("[role=grid] .row").count() < 60
        await page.evaluate("document.querySelector('[role=grid]').scrollTop = 5000 * 28")
        await expect(page.locator('[data-index="5003"]')).to_be_visible()
        await server.tick()
        await page.get_by_role("grid").focus()
        await page.keyboard.press("End")
        await expect(page.locator('[data-index="9999"]')).to_be_visible()
        await page.locator("#filter").fill("ns:payments")
        await expect(page.locator("footer")).not_to_contain_text("10,000 of 10,000")
        await dashboard.visible_row(page)
        assert all(name.startswith("payments/") for name in await dashboard.names(page))
        await asyncio.wait_for(server.tick(), 10)
    await page.close()
