from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.launcher import run
from services.launcher.child import User
from services.launcher.children import Child, Children
from services.launcher.run import Ear, Wanted
from services.launcher.session import Session
from services.launcher.store import Store
from services.runtime.errors import PodloxxError, UsageError
from tests.support.launched import alive
from tests.support.wait import until

WANTED = Wanted(
    port=1337,
    listen="127.0.0.1",
    browser=False,
    for_s=None,
    verbose=False,
    store_memory="512mb",
    api={},
    aggregator={},
)
FULL = 'aggregator: {"error": "command not allowed when used memory > \'maxmemory\'."}'


def test_a_free_port_is_taken_and_any_for_none() -> None:
    port = run.free_port("127.0.0.1", 0)
    assert run.free_port("127.0.0.1", port) == port
    assert run.free_port("::1", 0) > 0


@pytest.mark.parametrize(
    ("listen", "port", "message"),
    [
        ("127.0.0.1", 70000, r"--port 70000 is no port: they go from 0 to 65535"),
        ("127.0.0.1", -1, r"--port -1 is no port"),
        ("192.0.2.1", 0, r"--listen 192\.0\.2\.1 is no address of this machine \(Cannot assign requested address\)"),
        ("no name", 0, r"--listen no name is no address of this machine"),
    ],
)
def test_where_nobody_can_listen_is_said(listen: str, port: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run.free_port(listen, port)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 cannot be used"):
            run.free_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("fd00::1", "[fd00::1]")],
)
def test_the_address_is_one_that_can_be_called_here(listen: str, host: str) -> None:
    assert run.base_url(replace(WANTED, listen=listen), 80) == f"http://{host}:80"


def test_the_token_is_sent(folder: Path) -> None:
    (folder / "token").write_text("secret\n")
    assert run.headers(WANTED) == {"Host": "localhost"}
    found = run.headers(replace(WANTED, api={"token_file": str(folder / "token")}))
    assert found == {"Host": "localhost", "Authorization": "Bearer secret"}


@pytest.mark.parametrize(("line", "full"), [("api: all is well", False), (FULL, True)])
def test_a_store_that_is_full_is_heard_of(line: str, full: bool) -> None:
    ear = Ear(WANTED)
    ear(line)
    assert ear.store_full == full
    assert ear.sentence == "the totals need more than 512mb: allow more with --store-memory"


@pytest.mark.parametrize("verbose", [False, True])
def test_what_children_say_is_passed_on_if_wanted(capsys: pytest.CaptureFixture[str], verbose: bool) -> None:
    Ear(replace(WANTED, verbose=verbose))("api: all is well")
    assert capsys.readouterr().err == ("api: all is well\n" if verbose else "")


def test_as_whom_services_run_is_said() -> None:
    assert run._described(User(None, None)) == "as root without capabilities"
    assert run._described(User(1000, 61184)) == "as their owner (uid 1000)"


@pytest.fixture
async def handled(folder: Path) -> Any:
    """The event that asks for the end, and a child that lives until it is killed."""
    event, children = asyncio.Event(), Children(folder, os.getpid())
    run._on_signals(event, children)
    yield event, await children.start("one", ["sleep", "600"], User(None, None))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().remove_signal_handler(number)
    children.kill()
    await children.end()


async def test_the_first_signal_asks_and_the_second_kills(handled: tuple[asyncio.Event, Child]) -> None:
    event, child = handled
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await event.wait()
    assert alive(child.process.pid)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        assert await child.wait() == -signal.SIGKILL


@pytest.fixture
def nohup() -> Iterator[None]:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("nohup")
async def test_under_nohup_the_terminal_may_go(folder: Path) -> None:
    run._on_signals(asyncio.Event(), Children(folder, os.getpid()))
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)


@pytest.fixture
async def api() -> Any:
    """A server whose answers a test chooses; its address."""
    answers: list[tuple[int, Any]] = []

    async def overview(_: web.Request) -> web.Response:
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        return web.Response(status=status, text=json.dumps(body))

    app = web.Application()
    app.router.add_get("/traffic/overview", overview)
    runner = web.AppRunner(app)
    await runner.setup()
    port = run.free_port("127.0.0.1", 0)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield answers, f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def test_ready_is_who_serves_what_all_agents_report(api: tuple[list[Any], str]) -> None:
    answers, url = api
    answers += [(503, {"detail": "no totals yet"}), (200, {"nodesReporting": 1}), (200, {"nodesReporting": 2})]
    assert await run._missing(url, {}, 2) == ""


@pytest.mark.parametrize(
    ("answer", "missing"),
    [((503, {"detail": "no totals yet"}), "no totals yet"), ((200, {"nodesReporting": 1}), "1 of 2 agents report")],
)
async def test_what_does_not_come_is_named(
    api: tuple[list[Any], str], monkeypatch: pytest.MonkeyPatch, answer: Any, missing: str
) -> None:
    monkeypatch.setattr(run, "_READY_S", 0.3)
    answers, url = api
    answers.append(answer)
    assert await run._missing(url, {}, 2) == missing


async def test_who_is_not_ready_is_told_with_the_last_words_of_all(
    api: tuple[list[Any], str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(run, "_READY_S", 0.3)
    answers, url = api
    answers.append((200, {"nodesReporting": 0}))
    children, session = Children(folder, os.getpid()), Session("test", folder)
    child = await children.start("capture", ["sh", "-c", "echo no link; sleep 600"], User(None, None))
    await until(lambda: child.log.lines, "it has said so")
    rig = run.Rig(session, Store(session, (), {}), children, {}, asyncio.Event(), Ear(WANTED))
    with pytest.raises(PodloxxError) as caught:
        await rig.wait_ready(WANTED, url, agents=1)
    assert str(caught.value).endswith(": 0 of 1 agents report\n  capture: no link")
    children.kill()
    await children.end()


async def test_who_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_READY_S", 0.1)
    url = f"http://127.0.0.1:{run.free_port('127.0.0.1', 0)}"
    assert await run._missing(url, {}, 1) == "it does not answer"


async def test_a_store_that_does_not_listen_is_an_error(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(run, "_READY_S", 0.1)
    with pytest.raises(PodloxxError, match="redis-server did not open its socket"):
        await run._socket(folder / "none.sock")
