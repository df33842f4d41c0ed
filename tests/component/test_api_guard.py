"""Who may call: hosts, origins, tokens, and the headers of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from services.api.guard import Guard
from services.runtime.errors import UsageError
from services.runtime.settings import ApiSettings
from tests.support.redis_server import RedisServer
from tests.support.served import Answer, Served, serving

TOKEN = "s3cret-töken"


@pytest.fixture
async def api(redis_server: RedisServer) -> AsyncIterator[Served]:
    """The API on loopback, with one further name."""
    async with serving(redis_server, allowed_hosts="podloxx.example.org, 10.9.8.7,") as served:
        yield served


@pytest.fixture
async def guarded(redis_server: RedisServer, folder: Path) -> AsyncIterator[Served]:
    """The API that asks for a token."""
    (folder / "token").write_text(f"{TOKEN}\n")
    async with serving(redis_server, token_file=str(folder / "token")) as served:
        yield served


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:65535",
        "[::1]",
        "[::1]:1337",
        "podloxx.example.org",
        "Podloxx.Example.org:8080",
        "10.9.8.7",
    ],
)
async def test_hosts_that_are_served(api: Served, host: str) -> None:
    assert (await api.ask("/", Host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil@localhost",
        "localhost:1:2",
        "localhost:",
        "::1",
        "127.0.0.2",
        "localhost/x",
        "sub.podloxx.example.org",
        "",
    ],
)
async def test_other_hosts_are_not(api: Served, host: str) -> None:
    for path in ("/", "/traffic/overview", "/metrics", "/nowhere"):
        (await api.ask(path, Host=host)).assert_problem(421, "is not served here")


async def raw(api: Served, *lines: bytes) -> bytes:
    """The answer's first line to a request that no client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"\r\n".join([*lines, b"", b""]))
    first = await reader.readline()
    writer.close()
    return first


async def test_a_request_without_a_host_is_not_served(api: Served) -> None:
    assert b" 421 " in await raw(api, b"GET / HTTP/1.0")


async def test_probes_may_come_by_any_name(api: Served) -> None:
    assert (await api.ask("/healthz", Host="10.0.0.1:1337")).status == 200
    (await api.ask("/readyz", Host="10.0.0.1:1337")).assert_problem(503, "no totals yet")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:1337", True),
        ("https://podloxx.example.org", True),
        ("http://podloxx.example.org:8080", True),
        ("http://localhost:3000", False),
        ("http://evil.example", False),
        ("http://localhost:1337.evil.example", False),
        ("file://localhost:1337", False),
        ("http://evil@localhost:1337", False),
        ("null", False),
        ("", False),
    ],
)
async def test_whose_pages_may_call(api: Served, origin: str, allowed: bool) -> None:
    answer = await api.ask("/openapi.json", Host="localhost:1337", Origin=origin)
    if allowed:
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers
    else:
        answer.assert_problem(403, "may not use this API")


async def test_a_strangers_page_gets_no_websocket(api: Served) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with api.client.ws_connect(api.url("/traffic/ws?v=1"), origin="http://evil.example"):
            pass
    assert refused.value.status == 403
    async with api.client.ws_connect(api.url("/traffic/ws?v=1"), origin=f"http://127.0.0.1:{api.port}"):
        pass


async def test_a_host_of_ours_with_another_ones_page_is_no_way_in(api: Served) -> None:
    # Behind a name that leads here (DNS rebinding) host and origin are the stranger's both.
    answer = await api.ask("/traffic/overview", Host="evil.example:1337", Origin="http://evil.example:1337")
    answer.assert_problem(421, "evil.example")


def assert_headers(answer: Answer) -> None:
    """What every answer carries."""
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    # Pages of others can neither frame it, nor load it as a script or picture, nor hold a handle of its window.
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Server"] == "podloxx"
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/traffic/overview", "/nowhere"])
async def test_headers(api: Served, path: str) -> None:
    answer = await api.ask(path)
    assert_headers(answer)
    assert answer.headers["Cache-Control"] == ("no-cache" if path == "/" else "no-store")


async def test_headers_of_refusals(api: Served) -> None:
    assert_headers(await api.ask("/", Host="evil.example"))
    assert_headers(await api.ask("/", "POST"))


async def test_an_unforeseen_error_tells_strangers_nothing(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("services.api.routes.metrics.exposition", fail)
    answer = await api.ask("/metrics")
    answer.assert_problem(500, "the log of the API says what")
    assert_headers(answer)


@pytest.mark.parametrize("path", ["/", "/traffic/overview", "/metrics", "/nowhere", "/openapi.json"])
async def test_without_the_token_nothing_is_served(guarded: Served, path: str) -> None:
    answer = await guarded.ask(path)
    answer.assert_problem(401, "Authorization: Bearer")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "value", [TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer \udcff"]
)
async def test_a_wrong_token_is_none(guarded: Served, value: str) -> None:
    given = b"Authorization: " + value.encode(errors="surrogateescape")
    assert b" 401 " in await raw(guarded, b"GET /metrics HTTP/1.1", b"Host: localhost", given)


async def test_probes_need_no_token(guarded: Served) -> None:
    assert (await guarded.ask("/healthz")).status == 200


async def test_the_token_as_bearer(guarded: Served) -> None:
    for scheme in (b"Bearer", b"bearer"):
        given = b"Authorization: " + scheme + b" " + TOKEN.encode()
        assert b" 200 " in await raw(guarded, b"GET /metrics HTTP/1.1", b"Host: localhost", given)


async def test_the_token_in_the_address_of_a_request(guarded: Served) -> None:
    answer = await guarded.ask(f"/metrics?token={TOKEN}")
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/podloxx"])
async def test_the_page_exchanges_the_token_for_a_cookie(guarded: Served, path: str) -> None:
    answer = await guarded.ask(f"{path}?token={TOKEN}")
    assert (answer.status, answer.headers["Location"]) == (303, path)
    assert answer.headers["Cache-Control"] == "no-store"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    given = cookie.partition(";")[0]
    assert (await guarded.ask(path, Cookie=given)).status == 200
    async with guarded.client.ws_connect(guarded.url("/traffic/ws?v=1"), headers={"Cookie": given}):
        pass


async def test_a_wrong_token_is_not_exchanged(guarded: Served) -> None:
    answer = await guarded.ask("/?token=wrong")
    answer.assert_problem(401, "send the token")
    assert "Set-Cookie" not in answer.headers


async def test_without_tokens_an_address_with_one_is_no_other_page(api: Served) -> None:
    answer = await api.ask("/?token=x")
    assert (answer.status, "Set-Cookie" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen": "0.0.0.0"}, "give --token-file"),
        ({"listen": "::"}, "give --token-file"),
        ({"listen": "0.0.0.0", "allowed_hosts": "a.example"}, "give --token-file"),
        ({"listen": "0.0.0.0", "token_file": "token"}, "and --allowed-hosts"),
        ({"listen": "example.org"}, "is no IP address of this machine"),
        ({"token_file": "missing"}, "No such file or directory"),
        ({"token_file": "empty"}, "is empty"),
        ({"token_file": "binary"}, "it is not text"),
        ({"allowed_hosts": "https://a.example"}, "is no host name"),
        ({"allowed_hosts": "a.example:80"}, "is no host name"),
        ({"allowed_hosts": "a b"}, "is no host name"),
    ],
)
def test_settings_that_leave_the_door_open(
    folder: Path, settings: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "token").write_text("x")
    (folder / "empty").write_text(" \n")
    (folder / "binary").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=words):
        Guard(ApiSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_nothing_is_asked_for(listen: str) -> None:
    Guard(ApiSettings(listen=listen))


def test_elsewhere_with_token_and_names_the_door_is_guarded(folder: Path) -> None:
    (folder / "token").write_text("x")
    Guard(ApiSettings(listen="0.0.0.0", token_file=str(folder / "token"), allowed_hosts="a.example,fd00::1,[fd00::2]"))


async def test_names_may_be_ipv6_addresses(redis_server: RedisServer) -> None:
    async with serving(redis_server, allowed_hosts="fd00::1") as api:
        assert (await api.ask("/", Host="[fd00::1]:1337")).status == 200
        (await api.ask("/", Host="[fd00::2]:1337")).assert_problem(421, "fd00::2")


@pytest.mark.parametrize(
    "path", ["/../../pyproject.toml", "/..%2f..%2fpyproject.toml", "/assets/../../app.py", "//etc/passwd"]
)
async def test_no_path_leads_out_of_the_page(api: Served, path: str) -> None:
    # Not by a client, which would shorten it.
    assert b" 404 " in await raw(api, b"GET " + path.encode() + b" HTTP/1.1", b"Host: localhost")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/traffic/total", "/traffic/ws", "/metrics"])
async def test_there_is_nothing_to_change(api: Served, method: str, path: str) -> None:
    (await api.ask(path, method)).assert_problem(405, "is not possible here")
