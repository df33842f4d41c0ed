"""The port-forward: ready only when a real answer came through, and mended by itself whatever breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.launcher import port_forward
from services.launcher.port_forward import PortForward, Target, forwarding
from tests.support.forwarding_api import LABELS, NAMESPACE, FakePod, ForwardingApi, served
from tests.support.wait import until

TARGET = Target(NAMESPACE, LABELS, 6379)


@dataclass
class Echo:
    """A server that answers with its name and what it was told."""

    name: str
    port: int = 0
    connections: int = 0
    silent: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if self.silent:
                    continue
                writer.write(f"{self.name} ".encode() + line)
                await writer.drain()
        writer.close()


@dataclass
class Way:
    """A port-forward to the pods of `api`, and what it told of itself."""

    api: ForwardingApi
    forward: PortForward
    told: list[str] = field(default_factory=list)

    async def ask(self, text: str = "hello") -> str:
        """What comes back from a pod."""
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.forward.port)
            with contextlib.closing(writer):
                writer.write(f"{text}\n".encode())
                return (await reader.readline()).decode().strip()


@contextlib.asynccontextmanager
async def echoing(name: str) -> AsyncIterator[Echo]:
    one = Echo(name)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


async def answers(port: int) -> None:
    """Raises unless an echo comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(b"nonce\n")
        if not (await reader.readline()).endswith(b" nonce\n"):
            raise ConnectionError("the connection was closed without an answer")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long; answers may still take what they take on a busy machine."""
    for name, part in (("PROBE_S", 10), ("_AGAIN_S", 10), ("_ANSWER_S", 3), ("_HEARTBEAT_S", 4), ("_OPEN_S", 5)):
        monkeypatch.setattr(port_forward, name, getattr(port_forward, name) / part)


Made = Callable[[ForwardingApi], Awaitable[Way]]


@pytest.fixture
async def way(folder: Path) -> AsyncIterator[Made]:
    """Makes a way to the pods of an API server."""
    async with contextlib.AsyncExitStack() as stack:

        async def made(fake: ForwardingApi) -> Way:
            api = await stack.enter_async_context(served(fake, folder))
            told: list[str] = []
            forward = await stack.enter_async_context(forwarding(api, TARGET, answers, told.append))
            return Way(fake, forward, told)

        yield made


async def ready(one: Way) -> None:
    assert await one.forward.ready_within(5, asyncio.Event())


async def test_connections_reach_the_pod_and_are_ended_with_it(way: Made) -> None:
    async with echoing("a") as pod:
        one = await way(ForwardingApi({"redis-a": FakePod(pod.port)}))
        await ready(one)
        assert await one.ask() == "a hello"
        assert one.told == [""]
        assert one.forward.problem == ""


async def test_a_large_amount_comes_back_whole(way: Made) -> None:
    async with echoing("a") as pod:
        one = await way(ForwardingApi({"redis-a": FakePod(pod.port)}))
        await ready(one)
        text = "x" * 60_000
        assert await one.ask(text) == f"a {text}"


async def test_connected_is_not_ready(way: Made) -> None:
    one = await way(ForwardingApi({"redis-a": FakePod(None)}))
    await until(lambda: len(one.told) == 1, "it tells")
    assert "pod redis-a: error forwarding port: connection refused" in one.told[0]
    assert not one.forward._ready.is_set()
    async with echoing("a") as pod:
        one.api.pods["redis-a"].port = pod.port
        await ready(one)
        await until(lambda: one.told[-1] == "", "it tells")


async def test_a_pod_that_takes_connections_and_never_answers_is_not_ready(way: Made) -> None:
    async with echoing("a") as pod:
        pod.silent = True
        one = await way(ForwardingApi({"redis-a": FakePod(pod.port)}))
        await until(lambda: one.told, "it tells")
        assert "no answer within" in one.told[0]
        pod.silent = False
        await ready(one)


async def test_another_pod_is_chosen_behind_the_same_port(way: Made) -> None:
    async with echoing("a") as first, echoing("b") as second:
        fake = ForwardingApi({"redis-a": FakePod(first.port)})
        one = await way(fake)
        await ready(one)
        port = one.forward.port
        fake.pods = {"redis-b": FakePod(second.port)}
        await until(lambda: one.told[-1] == "" and "redis-b" in fake.asked, "the other one answers")
        assert await one.ask() == "b hello"
        assert one.forward.port == port


async def test_pods_that_end_or_are_not_ready_are_not_chosen(way: Made) -> None:
    async with echoing("c") as last:
        fake = ForwardingApi({"redis-a": FakePod(last.port, leaving=True), "redis-b": FakePod(last.port, ready=False)})
        one = await way(fake)
        await until(lambda: one.told, "it tells")
        expected = "no pod of redis in namespace podloxx is Ready: redis-a ends, redis-b is Running, not Ready"
        assert expected in one.told[0]
        assert fake.asked == []
        fake.pods["redis-c"] = FakePod(last.port)
        await ready(one)
        assert set(fake.asked) == {"redis-c"}


async def test_a_frozen_node_is_noticed_and_open_connections_are_broken(way: Made) -> None:
    async with echoing("a") as pod:
        fake = ForwardingApi({"redis-a": FakePod(pod.port)})
        one = await way(fake)
        await ready(one)
        reader, writer = await asyncio.open_connection("127.0.0.1", one.forward.port)
        writer.write(b"before\n")
        assert await reader.readline() == b"a before\n"
        fake.pods["redis-a"].frozen = True
        async with asyncio.timeout(5):
            # Whoever waits for an answer learns that none will come.
            with pytest.raises((ConnectionError, EOFError)):
                await reader.readexactly(1)
        writer.close()
        await until(lambda: one.told[-1] != "", "it tells")
        fake.pods["redis-a"].frozen = False
        await ready(one)
        assert await one.ask() == "a hello"


async def test_an_api_server_that_refuses_is_quoted(way: Made) -> None:
    async with echoing("a") as pod:
        fake = ForwardingApi({"redis-a": FakePod(pod.port)}, refusal=403)
        one = await way(fake)
        await until(lambda: one.told, "it tells")
        assert "HTTP 403" in one.told[0]
        fake.refusal = 0
        await ready(one)


async def test_one_connection_is_one_of_the_pods(way: Made) -> None:
    async with echoing("a") as pod:
        one = await way(ForwardingApi({"redis-a": FakePod(pod.port)}))
        await ready(one)
        before = pod.connections
        async with asyncio.TaskGroup() as tasks:
            found = [tasks.create_task(one.ask(str(number))) for number in range(8)]
        assert [task.result() for task in found] == [f"a {number}" for number in range(8)]
        assert pod.connections >= before + 8


async def test_nothing_listens_after_the_end(folder: Path) -> None:
    async with echoing("a") as pod, served(ForwardingApi({"redis-a": FakePod(pod.port)}), folder) as api:
        async with forwarding(api, TARGET, answers, lambda _: None) as forward:
            assert await forward.ready_within(5, asyncio.Event())
            reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
            writer.write(b"hello\n")
            await reader.readline()
        with pytest.raises((ConnectionError, EOFError)):
            await reader.readexactly(1)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", forward.port)


async def test_who_wants_the_end_does_not_wait_for_a_way(way: Made) -> None:
    one = await way(ForwardingApi())
    assert not await one.forward.ready_within(0.05, asyncio.Event())
    wanted = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, wanted.set)
    assert await one.forward.ready_within(5, wanted)


async def test_it_listens_on_loopback_alone(way: Made) -> None:
    one = await way(ForwardingApi({}))
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) == one.forward.port
    ]
    assert listening == [f"0100007F:{one.forward.port:04X}"]
