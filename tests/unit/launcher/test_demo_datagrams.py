"""The demo's UDP protocols on loopback: they flow, they count, they live with nonsense."""

from __future__ import annotations

import asyncio
import socket

import pytest

from services.launcher.demo import bulk, dns, proxy, udp
from services.launcher.demo.dns_message import AAAA, A, MessageError, Query, decode_answer, encode_query
from services.launcher.demo.plan import Serve, Talk
from services.launcher.demo.tally import Tally
from tests.support.demo_talk import LOOPBACKS, background, free_port, pace, total
from tests.support.wait import until

NAMES = {"a.example": ("192.0.2.1", "2001:db8::1"), "b.example": ("192.0.2.2", "2001:db8::2")}


@pytest.mark.parametrize("address", LOOPBACKS)
async def test_lookups_are_answered(address: str) -> None:
    port = free_port(address)
    server, client = Tally(), Tally()
    plan = Talk("dns", address, port, rate=2000.0, size=0, sources=(address,))
    async with background(
        dns.serve(Serve("dns", (address,), port), server, NAMES),
        dns.talk(plan, pace(), client, NAMES),
    ):
        await until(lambda: total(client, "client")[1] > 10_000, "answers", 20)
    assert server.failures == 0
    assert client.failures <= 1  # the first question may come before the server listens
    assert {key.transport for key, _ in client.rows()} == {"udp"}


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "addresses"),
    [
        ("a.example", A, 0, ("192.0.2.1",)),
        ("B.Example", AAAA, 0, ("2001:db8::2",)),
        ("c.example", A, 3, ()),
        ("a.example", 15, 0, ()),
    ],
)
def test_what_the_name_server_answers(name: str, qtype: int, rcode: int, addresses: tuple[str, ...]) -> None:
    answer = decode_answer(dns.respond(encode_query(Query(9, name, qtype)), NAMES))
    assert (answer.ident, answer.rcode, answer.addresses) == (9, rcode, addresses)


def test_the_name_server_tells_a_format_error_where_it_can() -> None:
    assert dns.respond(b"\x12\x34nonsense", NAMES) == b"\x12\x34\x80\x01" + bytes(8)
    assert dns.respond(b"\x12", NAMES) == b""


async def test_a_wrong_answer_is_noticed() -> None:
    address, port = LOOPBACKS[0], free_port(LOOPBACKS[0])
    others = dict.fromkeys(NAMES, ("192.0.2.9", "2001:db8::9"))

    async def look_up_often() -> None:
        for _ in range(50):  # some of them ask for names that neither side knows
            await dns.lookup(caller, pace(), NAMES)

    async with (
        background(dns.serve(Serve("dns", (address,), port), Tally(), others)),
        udp.connected(address, port, Tally()) as caller,
    ):
        with pytest.raises(MessageError, match="a wrong answer"):
            await look_up_often()


async def test_a_client_asks_again_when_nobody_listens() -> None:
    address, port, client = LOOPBACKS[0], free_port(LOOPBACKS[0]), Tally()
    plan = Talk("dns", address, port, rate=1000.0, size=0)
    async with background(dns.talk(plan, pace(), client, NAMES)):
        await until(lambda: client.failures > 0, "the refusal", 10)
        async with background(dns.serve(Serve("dns", (address,), port), Tally(), NAMES)):
            await until(lambda: total(client, "client")[1] > 0, "an answer", 10)


@pytest.mark.parametrize("address", LOOPBACKS)
async def test_a_udp_stream_gets_receiver_reports(address: str) -> None:
    port = free_port(address)
    server, client = Tally(), Tally()
    plan = Talk("bulk-udp", address, port, rate=2_000_000.0, size=1200)
    async with background(
        bulk.serve_udp(Serve("bulk-udp", (address,), port), server),
        bulk.talk_udp(plan, pace(), client),
    ):
        await until(lambda: total(client, "client")[1] >= 16, "two reports", 10)
    sent, reports = total(client, "client")
    assert sent % 1200 == 0
    assert sent >= 64 * 1200
    assert reports % 8 == 0


async def test_what_is_no_stream_is_counted() -> None:
    address, port, tally = LOOPBACKS[0], free_port(LOOPBACKS[0]), Tally()
    async with background(bulk.serve_udp(Serve("bulk-udp", (address,), port), tally)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

            def counted() -> bool:
                sender.sendto(b"short", (address, port))
                return tally.failures > 0

            await until(counted, "the failure", 5)


@pytest.mark.parametrize("family", [0, 1])
async def test_the_service_proxy_passes_questions_on_and_answers_back(family: int) -> None:
    address = LOOPBACKS[family]
    port, backend_port = free_port(address), free_port(address)
    proxied, client = Tally(), Tally()
    plan = Serve("proxy-udp", (address,), port, LOOPBACKS, backend_port)
    talk = Talk("dns", address, port, rate=1000.0, size=0)
    async with background(
        dns.serve(Serve("dns", (address,), backend_port), Tally(), NAMES),
        proxy.serve_udp(plan, proxied),
        dns.talk(talk, pace(), client, NAMES),
    ):
        await until(lambda: total(client, "client")[1] > 2000, "answers", 20)
    (front_tx, front_rx), (back_tx, back_rx) = total(proxied, "server"), total(proxied, "client")
    assert front_tx == back_rx > 0
    assert front_rx >= back_tx > 0


async def test_the_proxys_memory_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MAX_CALLERS", 1)
    address, port = LOOPBACKS[0], free_port(LOOPBACKS[0])
    backend_port = free_port(address)
    tally = Tally()
    plan = Serve("proxy-udp", (address,), port, (address,), backend_port)
    async with (
        background(dns.serve(Serve("dns", (address,), backend_port), Tally(), NAMES), proxy.serve_udp(plan, tally)),
        udp.connected(address, port, Tally()) as first,
        udp.connected(address, port, Tally()) as second,
    ):

        def dropped() -> bool:
            first.send(encode_query(Query(1, "a.example", A)))
            second.send(encode_query(Query(2, "a.example", A)))
            return tally.failures > 0 and total(tally, "client")[1] > 0

        await until(dropped, "a dropped datagram of the second client", 5)
    assert len([key for key, _ in tally.rows() if key.side == "client"]) == 1


async def test_a_silent_client_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MAX_CALLERS", 1)
    monkeypatch.setattr(proxy, "CALLER_IDLE_S", 0.05)
    address, port = LOOPBACKS[0], free_port(LOOPBACKS[0])
    backend_port = free_port(address)
    plan = Serve("proxy-udp", (address,), port, (address,), backend_port)
    client = Tally()
    async with background(
        dns.serve(Serve("dns", (address,), backend_port), Tally(), NAMES),
        proxy.serve_udp(plan, Tally()),
    ):
        for _ in range(2):  # the second is served only if the first was forgotten
            before = total(client, "client")[1]
            async with udp.connected(address, port, client) as caller:

                def answered(caller: udp.Caller = caller, before: int = before) -> bool:
                    caller.send(encode_query(Query(1, "a.example", A)))
                    return total(client, "client")[1] > before

                await until(answered, "an answer", 5)


async def test_a_full_queue_drops_the_newest() -> None:
    caller = udp.Caller("192.0.2.1", 53, Tally(), None)
    for number in range(udp.MAX_WAITING + 5):
        caller.socket.datagram_received(b"%d" % number, ("192.0.2.1", 53))
    async with asyncio.timeout(1):
        assert await caller.receive() == b"0"
    caller.forget()
    caller.socket.datagram_received(b"new", ("192.0.2.1", 53))
    async with asyncio.timeout(1):
        assert await caller.receive() == b"new"


def test_nothing_is_sent_without_a_transport() -> None:
    tally = Tally()
    udp.Caller("192.0.2.1", 53, tally, None).send(b"lost")
    assert tally.failures == 1
    assert tally.rows() == []


def test_while_the_queue_is_full_datagrams_are_lost() -> None:
    tally = Tally()
    caller = udp.Caller("192.0.2.1", 53, tally, None)
    caller.socket.pause_writing()
    caller.send(b"lost")
    assert tally.failures == 1
    caller.socket.resume_writing()
    assert not caller.socket._full


async def test_a_source_that_is_not_here_is_counted_and_tried_again() -> None:
    talk = Talk("bulk-udp", LOOPBACKS[0], free_port(LOOPBACKS[0]), 1000.0, 100, sources=("192.0.2.77",))
    tally = Tally()
    async with background(bulk.talk_udp(talk, pace(), tally)):
        await until(lambda: tally.failures >= 2, "two attempts")


async def test_a_datagram_without_an_id_gets_no_answer() -> None:
    address, port, tally = LOOPBACKS[0], free_port(LOOPBACKS[0]), Tally()
    async with (
        background(dns.serve(Serve("dns", (address,), port), tally, NAMES)),
        udp.connected(address, port, Tally()) as caller,
    ):

        def counted() -> bool:
            caller.send(b"x")
            return tally.failures > 0

        await until(counted, "the failure")
    assert total(tally, "server")[0] == 0


async def test_a_backend_that_cannot_be_reached_is_counted() -> None:
    address, port, tally = LOOPBACKS[0], free_port(LOOPBACKS[0]), Tally()
    plan = Serve("proxy-udp", (address,), port, ("255.255.255.255",), 53)
    async with background(proxy.serve_udp(plan, tally)), udp.connected(address, port, Tally()) as caller:

        def counted() -> bool:
            caller.send(b"x")
            return tally.failures > 0

        await until(counted, "the failure")
