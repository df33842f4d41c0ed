"""The demo's TCP protocols on loopback: they flow, they count what they send, they refuse nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from services.launcher.demo import bulk, cache, database, http, proxy, tcp
from services.launcher.demo.cache import MAX_ENTRIES, Store
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Tally
from services.launcher.demo.tcp import Wire, WireError
from tests.support.demo_talk import LOOPBACKS, background, free_port, pace, say, total
from tests.support.wait import until

PROTOCOLS = {
    "http": (http.serve, http.talk),
    "cache": (cache.serve, cache.talk),
    "database": (database.serve, database.talk),
    "bulk-tcp": (bulk.serve_tcp, bulk.talk_tcp),
}


@pytest.mark.parametrize("address", LOOPBACKS)
@pytest.mark.parametrize("kind", ["http", "cache", "database"])
async def test_requests_and_answers_flow_until_cancelled(kind: str, address: str) -> None:
    serve, talk = PROTOCOLS[kind]
    port = free_port(address)
    server, client = Tally(), Tally()
    plan = Talk("http", address, port, rate=5000.0, size=3000)
    async with background(serve(Serve("http", (address,), port), server), talk(plan, pace(), client)):
        await until(lambda: total(client, "client")[1] > 200_000, f"{kind} answers", 20)
    assert server.failures == 0
    assert client.failures <= 1  # the first attempt may come before the server listens
    assert {key.peer for key, _ in client.rows()} == {address}
    assert {key.port for key, _ in server.rows()} == {port}


async def _whole_exchanges(kind: str, count: int) -> tuple[Tally, Tally]:
    """`count` exchanges of one connection, seen by both sides to its very end."""
    address = LOOPBACKS[0]
    port = free_port(address)
    server, client = Tally(), Tally()
    once = {"http": http.exchange, "cache": cache.exchange, "database": database.exchange}[kind]
    async with background(PROTOCOLS[kind][0](Serve("http", (address,), port), server)):
        await say(address, port)
        async with tcp.connected(address, port, client) as wire:
            rhythm = pace()
            for _ in range(count):
                await once(wire, rhythm.body_size(5000), rhythm)
    return server, client


@pytest.mark.parametrize("kind", ["http", "cache", "database"])
async def test_both_sides_count_the_same_bytes(kind: str) -> None:
    server, client = await _whole_exchanges(kind, 30)
    sent, received = total(client, "client")
    assert total(server, "server") == (received, sent)
    assert sent > 500
    assert received > 150


async def test_a_pushed_stream_is_confirmed_to_the_byte() -> None:
    address, server, client = LOOPBACKS[0], Tally(), Tally()
    port = free_port(address)
    plan = Talk("bulk-tcp", address, port, rate=1_000_000.0, size=0)
    async with background(bulk.serve_tcp(Serve("bulk-tcp", (address,), port), server)):
        assert await say(address, port, b"x" * 1000) == b"1000\n"
        async with tcp.connected(address, port, client) as wire:
            await bulk.push(wire, plan, pace(), ticks=3)
    sent, received = total(client, "client")
    assert total(server, "server")[1] == sent + 1000
    assert sent > 3 * 15_000
    assert received > 4


async def test_the_service_proxy_passes_both_directions_in_turn() -> None:
    front, back = LOOPBACKS[0], ("127.0.0.2", "127.0.0.3", "::1")
    port = free_port(front)
    backend_port = free_port(back[0])
    plan = Serve("proxy-tcp", (front,), port, back, backend_port)
    served, proxied = Tally(), Tally()
    request = b"GET /?bytes=3 HTTP/1.1\r\nConnection: close\r\n\r\n"
    async with background(http.serve(Serve("http", back[:2], backend_port), served), proxy.serve_tcp(plan, proxied)):
        await say(back[0], backend_port)
        answers = [await say(front, port, request) for _ in range(4)]
    assert all(answer.endswith(b"\r\n\r\nThe") for answer in answers)
    assert {key.local for key, row in served.rows() if row.rx_bytes} == set(back[:2])
    onward = [row.tx_bytes for key, row in proxied.rows() if key.side == "client"]
    assert onward == [2 * len(request)] * 2
    assert total(proxied, "server") == total(proxied, "client")[::-1]


async def test_a_proxy_without_its_backend_ends_the_connection() -> None:
    port, tally = free_port(LOOPBACKS[0]), Tally()
    plan = Serve("proxy-tcp", LOOPBACKS[:1], port, LOOPBACKS[:1], free_port(LOOPBACKS[0]))
    async with background(proxy.serve_tcp(plan, tally)):
        assert await say(LOOPBACKS[0], port, b"hello") == b""
    assert tally.failures == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /?bytes=nonsense HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", b"HTTP/1.1 201 Created"),
        (b"BREW / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET nowhere HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET / HTTP/9\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"hello\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET / HTTP/1.1\r\nnot a header\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 80 + b"\r\n", b""),
        (b"POST / HTTP/1.1\r\nContent-Length: -2\r\n\r\n", b""),
        (b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nhi", b""),
        (b"GET /" + b"x" * 100_000, b""),
        (b"", b""),
    ],
)
async def test_what_the_web_server_says_to_a_request(request_: bytes, status: bytes) -> None:
    port, tally = free_port(LOOPBACKS[0]), Tally()
    async with background(http.serve(Serve("http", LOOPBACKS[:1], port), tally)):
        answer = await say(LOOPBACKS[0], port, request_)
    assert answer.split(b"\r\n")[0] == status


async def test_a_kept_alive_connection_serves_many_requests() -> None:
    port, tally = free_port(LOOPBACKS[0]), Tally()
    async with background(http.serve(Serve("http", LOOPBACKS[:1], port), tally)):
        answer = await say(
            LOOPBACKS[0],
            port,
            b"GET /?bytes=3 HTTP/1.1\r\n\r\n" * 5,
            b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        )
    assert answer.count(b"HTTP/1.1 200 OK") == 6


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$-1\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nhi\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"+OK\r\n$2\r\nhi\r\n"),
        (b"*1\r\n$8\r\nFLUSHALL\r\n", b"-ERR unknown command\r\n"),
        (b"*99\r\n", b""),
        (b"*x\r\n", b""),
        (b"*1\r\n$-5\r\n", b""),
        (b"GET a\r\n", b""),
    ],
)
async def test_what_the_cache_says_to_a_command(said: bytes, answer: bytes) -> None:
    port, tally = free_port(LOOPBACKS[0]), Tally()
    async with background(cache.serve(Serve("cache", LOOPBACKS[:1], port), tally)):
        assert await say(LOOPBACKS[0], port, said) == answer


def test_the_store_forgets_what_was_used_least_recently() -> None:
    store = Store()
    for number in range(MAX_ENTRIES):
        store.put(b"%d" % number, b"x")
    assert store.get(b"0") == b"x"
    store.put(b"new", b"y")
    assert store.get(b"0") == b"x"
    assert store.get(b"1") is None


@pytest.mark.parametrize(
    ("said", "first", "last"),
    [
        (b"Q\0\0\0\x37SELECT id, payload FROM orders ORDER BY id LIMIT 2\0", b"T", b"Z\0\0\0\5I"),
        (b"Q\0\0\0\x0dDROP ALL\0", b"E", b"Z\0\0\0\5I"),
        (b"X\0\0\0\4", b"", b""),
        (b"Q\0\0", b"", b""),
        (b"Q\xff\0\0\0", b"", b""),
    ],
)
async def test_what_the_database_says_to_a_query(said: bytes, first: bytes, last: bytes) -> None:
    port, tally = free_port(LOOPBACKS[0]), Tally()
    async with background(database.serve(Serve("database", LOOPBACKS[:1], port), tally)):
        answer = await say(LOOPBACKS[0], port, said)
    assert (answer[:1], answer[-6:]) == (first, last)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("http", b"HTTP/1.1 500 Oh\r\n\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
        ("cache", b"-ERR\r\n"),
        ("cache", b"$-1\r\n-ERR\r\n"),
        ("database", b"E\0\0\0\5x"),
        ("database", b"Z\0\0\0\5I"),
        ("database", b"Z\xff\0\0\5I"),
    ],
)
async def test_a_client_notices_a_wrong_answer(kind: str, answer: bytes) -> None:
    once = {"http": http.exchange, "cache": cache.exchange, "database": database.exchange}[kind]
    address = LOOPBACKS[0]
    port, tally = free_port(address), Tally()

    async def liar(wire: Wire) -> None:
        await wire.some()
        await wire.send(answer)
        while await wire.some():
            pass

    async with background(tcp.serve(Serve("http", (address,), port), Tally(), liar)):
        await say(address, port)
        async with tcp.connected(address, port, tally) as wire:
            with pytest.raises(WireError):
                await once(wire, 1000, pace())


async def test_a_pusher_notices_lost_bytes() -> None:
    address, port = LOOPBACKS[0], free_port(LOOPBACKS[0])

    async def liar(wire: Wire) -> None:
        while await wire.some():
            pass
        await wire.send(b"3\n")

    async with background(tcp.serve(Serve("bulk-tcp", (address,), port), Tally(), liar)):
        await say(address, port)
        async with tcp.connected(address, port, Tally()) as wire:
            with pytest.raises(WireError, match="the other side says"):
                await bulk.push(wire, Talk("bulk-tcp", address, port, 1000.0, 0), pace(), ticks=1)


async def test_a_client_tries_again_until_its_server_is_there() -> None:
    address, port = LOOPBACKS[0], free_port(LOOPBACKS[0])
    server, client = Tally(), Tally()
    plan = Talk("http", address, port, rate=1000.0, size=100)
    async with background(http.talk(plan, pace(), client)):
        await until(lambda: client.failures > 0, "a refused connection", 10)
        async with background(http.serve(Serve("http", (address,), port), server)):
            await until(lambda: total(server, "server")[1] > 0, "a request", 10)


async def test_a_connection_that_is_gone_before_it_is_looked_at_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    address, port, tally = LOOPBACKS[0], free_port(LOOPBACKS[0]), Tally()
    async with background(http.serve(Serve("http", (address,), port), tally)):
        await say(address, port)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamWriter, "get_extra_info", lambda *_: None)
            assert await say(address, port) == b""
    assert tally.failures == 1


async def test_connections_above_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "MAX_CONNECTIONS", 2)
    address, port, tally = LOOPBACKS[0], free_port(LOOPBACKS[0]), Tally()
    async with background(http.serve(Serve("http", (address,), port), tally)):
        await say(address, port)
        async with tcp.connected(address, port, Tally()), tcp.connected(address, port, Tally()):
            reader, writer = await asyncio.open_connection(address, port)
            assert await reader.read(1) == b""
            writer.close()
            await until(lambda: tally.failures == 1, "the refusal", 5)


async def test_a_connection_that_comes_while_the_server_ends_is_closed() -> None:
    address, port = LOOPBACKS[0], free_port(LOOPBACKS[0])
    with contextlib.ExitStack() as stack:
        async with background(http.serve(Serve("http", (address,), port), Tally())):
            await say(address, port)
            client = stack.enter_context(socket.create_connection((address, port)))
            # Accepted in the turn that begins now, and then the server is cancelled before it looks at it.
            await asyncio.sleep(0)
        client.setblocking(False)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
