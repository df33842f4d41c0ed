"""The built dashboard over HTTP: compressed, cached, and with nothing that its policy would stop."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest

from services.api import routes
from tests.support.redis_server import RedisServer
from tests.support.served import Answer, Served, serving

STATIC = Path(str(files("services.api").joinpath("static")))


@pytest.fixture
async def api(redis_server: RedisServer) -> AsyncIterator[Served]:
    """The API; the dashboard needs no totals."""
    assert (STATIC / "index.html").is_file(), "the dashboard is not built: run `make dashboard`"
    async with serving(redis_server) as served:
        yield served


async def loaded(api: Served) -> list[str]:
    """What the page loads, as paths."""
    text = (await plain(api, "/")).body.decode()
    found = re.findall(r'(?:src|href)="\./([^"]+)"', text)
    assert any(name.endswith(".js") for name in found)
    assert any(name.endswith(".css") for name in found)
    return [f"/{name}" for name in found]


async def plain(api: Served, path: str) -> Answer:
    return await api.ask(path, Accept_Encoding="identity")


async def packed(api: Served, path: str, accepted: str) -> Answer:
    """An answer as it comes."""
    asked = {"Accept-Encoding": accepted}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as client,
        client.get(api.url(path), headers=asked) as answer,
    ):
        return Answer(answer.status, dict(answer.headers), await answer.read())


@pytest.mark.parametrize("path", ["/", "/podloxx", "/podloxx?view=map&q=ns:shop#row"])
async def test_the_page(api: Served, path: str) -> None:
    answer = await plain(api, path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.body == (STATIC / "index.html").read_bytes()


async def test_a_slash_too_many_leads_to_the_page(api: Served) -> None:
    answer = await api.ask("/podloxx/?q=ns:shop")
    assert (answer.status, answer.headers["Location"]) == (308, "../podloxx?q=ns:shop")


async def test_the_way_to_the_page_has_no_headers_of_others(api: Served) -> None:
    answer = await api.ask("/podloxx/?a=%0d%0aSet-Cookie:x=1&b=%26c")
    assert (answer.status, answer.headers["Location"]) == (308, "../podloxx?a=%0D%0ASet-Cookie:x=1&b=%26c")
    assert "Set-Cookie" not in answer.headers


async def test_what_the_page_loads_is_there(api: Served) -> None:
    for path in await loaded(api):
        answer = await plain(api, path)
        assert answer.status == 200
        assert answer.body == (STATIC / path[1:]).read_bytes()
        assert answer.headers["Content-Type"] in {"text/javascript; charset=utf-8", "text/css; charset=utf-8"}


async def test_names_that_change_with_what_is_in_them_are_kept_for_ever(api: Served) -> None:
    for path in await loaded(api):
        assert path.startswith("/assets/")
        assert (await plain(api, path)).headers["Cache-Control"] == "max-age=31536000, immutable"


async def test_the_page_is_asked_for_each_time_and_sent_when_it_changed(api: Served) -> None:
    first = await plain(api, "/")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await api.ask("/", Accept_Encoding="identity", If_None_Match=f'"other", W/{first.headers["Etag"]}')
    assert (again.status, again.body, again.headers["Etag"]) == (304, b"", first.headers["Etag"])
    assert "Content-Security-Policy" in again.headers
    assert (await api.ask("/", Accept_Encoding="identity", If_None_Match='"other"')).status == 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br; q=0.000, gzip;q=0", None),
        ("deflate", None),
        ("", None),
    ],
)
async def test_what_is_compressed_is_sent_to_who_takes_it(api: Served, accepted: str, coding: str | None) -> None:
    script = next(path for path in await loaded(api) if path.endswith(".js"))
    answer = await packed(api, script, accepted)
    assert answer.headers.get("Content-Encoding") == coding
    assert answer.headers["Vary"] == "Accept-Encoding"
    ending = {None: "", "gzip": ".gz", "br": ".br"}[coding]
    assert answer.body == (STATIC / f"{script[1:]}{ending}").read_bytes()


async def test_each_coding_has_a_tag_of_its_own(api: Served) -> None:
    script = next(path for path in await loaded(api) if path.endswith(".js"))
    tags = {(await packed(api, script, coding)).headers["Etag"] for coding in ("identity", "gzip", "br")}
    assert len(tags) == 3


def test_what_is_packed_is_what_is_plain() -> None:
    packed = list(STATIC.rglob("*.gz"))
    assert packed
    for path in packed:
        assert gzip.decompress(path.read_bytes()) == path.with_suffix("").read_bytes()


async def test_nothing_is_loaded_from_elsewhere_and_nothing_stands_inline(api: Served) -> None:
    page = (await plain(api, "/")).body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|https?://", page)
    for path in await loaded(api):
        text = (await plain(api, path)).body.decode()
        assert not re.search(r"@import|url\(['\"]?(?!data:)|\beval\(|new Function\(", text)


async def test_a_checkout_without_a_built_dashboard_says_what_to_do(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openapi.json").write_text("{}")
    monkeypatch.setattr(routes, "files", lambda _: tmp_path)
    async with serving(redis_server) as api:
        (await api.ask("/")).assert_problem(503, "make dashboard")
        (await api.ask("/assets/index.js")).assert_problem(404, "nothing at")
