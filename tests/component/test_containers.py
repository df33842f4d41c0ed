"""Containers' names from an engine, whatever it answers, and the aggregator's reading of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.aggregator.directory.static_file import StaticDirectory
from services.flows import address
from services.launcher import containers as module
from services.launcher.containers import Containers, Engine, engines
from services.launcher.session import write_whole
from services.runtime import log
from tests.support.fake_engine import FakeEngine, fake_engine
from tests.support.wait import until


@dataclass
class Named:
    """What is followed, and the file in which it is written."""

    engine: FakeEngine
    containers: Containers
    path: Path

    def pods(self) -> dict[str, str]:
        """Group and name by address."""
        entries = json.loads(self.path.read_bytes())["addresses"]
        return {text: f"{entry['namespace']}/{entry['pod']}" for text, entry in entries.items()}

    async def shows(self, **wanted: str) -> None:
        """Wait until the file says just this, by the last byte of an address."""
        expected = {f"172.17.0.{last[1:]}": name for last, name in wanted.items()}
        await until(lambda: self.pods() == expected, f"the file names {expected}")


@asynccontextmanager
async def following(folder: Path, known: dict[str, Any] | None = None) -> AsyncIterator[Named]:
    """An engine with one container, followed."""
    async with fake_engine(folder / "docker.sock") as engine:
        engine.run("web", "172.17.0.2", "fd00::2", gateway="172.17.0.1", com_docker_compose_project="shop")
        path = folder / "containers.json"
        one = Containers(
            [Engine("docker", engine.socket)],
            path,
            "node-a",
            lambda at, text: write_whole(at, text.encode()),
            known or {},
        )
        await one.look()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(one.follow())
            yield Named(engine, one, path)
            task.cancel()


@pytest.fixture
async def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Named]:
    monkeypatch.setattr(module, "_PAUSE_S", (0.01, 0.05))
    monkeypatch.setattr(module, "_SPACING_S", 0.01)
    async with following(tmp_path) as made:
        yield made


async def test_containers_come_and_go(named: Named) -> None:
    assert named.pods() == {"172.17.0.2": "shop/web", "fd00::2": "shop/web"}
    named.engine.containers.clear()
    named.engine.run("db", "172.17.0.3")
    await until(lambda: named.engine.watchers == 1, "it listens for events")
    await named.engine.tell()
    await named.shows(_3="docker/db")


async def test_the_aggregator_reads_what_changed(named: Named) -> None:
    known = StaticDirectory.read(str(named.path))
    web = address.parse("172.17.0.2")
    pod, gateway = known.pod(web), known.node(address.parse("172.17.0.1"))
    assert pod is not None
    assert gateway is not None
    assert (pod.namespace, pod.name, pod.place.node, gateway.name) == ("shop", "web", "node-a", "node-a")
    assert known.changes() == frozenset()
    known.refresh()
    assert known.changes() == frozenset(), "nothing changed"
    named.engine.containers.clear()
    named.engine.run("new", "172.17.0.2")
    await until(lambda: named.engine.watchers == 1, "it listens for events")
    await named.engine.tell()
    await named.shows(_2="docker/new")
    known.refresh()
    assert known.changes() is None
    assert known.version([web]) == 1
    pod = known.pod(web)
    assert pod is not None
    assert pod.name == "new"
    # What is wrong with a later file takes nothing away.
    named.path.write_text("nonsense")
    known.refresh()
    assert known.pod(web) == pod
    named.path.unlink()
    known.refresh()
    assert known.pod(web) == pod


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"{}", b"[1]", b'[{"Names": []}]', b'[{"NetworkSettings": 3, "Id": "a"}]', b"[" * 5000]
)
async def test_malformed_answers_change_nothing(named: Named, answer: bytes) -> None:
    await until(lambda: named.engine.lists == 2, "it listens for events")
    named.engine.answer = answer
    before = named.engine.lists
    await named.engine.tell()
    await until(lambda: named.engine.lists > before + 1, "it asked again")
    assert named.pods() == {"172.17.0.2": "shop/web", "fd00::2": "shop/web"}
    named.engine.answer = None
    named.engine.containers.clear()
    await named.shows()


async def test_errors_and_events_without_end_are_outlived(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVENT_BYTES", 1000)
    named.engine.events = bytes(100_000)
    await until(lambda: named.engine.watchers == 1, "it listens for events")
    await named.engine.tell(ended=True)
    await until(lambda: named.engine.watchers > 3, "it listens again and again")
    named.engine.events, named.engine.status = None, 500
    before = named.engine.lists
    await until(lambda: named.engine.lists > before + 2, "it asks again and again")
    assert named.pods() == {"172.17.0.2": "shop/web", "fd00::2": "shop/web"}


async def test_lists_that_are_cut_change_nothing(named: Named) -> None:
    await until(lambda: named.engine.watchers == 1, "it listens for events")
    named.engine.cuts = True
    before = named.engine.lists
    named.engine.containers.clear()
    await named.engine.tell()
    await until(lambda: named.engine.lists > before + 2, "it asks again and again")
    assert named.pods() == {"172.17.0.2": "shop/web", "fd00::2": "shop/web"}
    named.engine.cuts = False
    await named.shows()


async def test_an_engine_that_falls_silent_is_left_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", (0.01, 0.05))
    monkeypatch.setattr(module, "_ANSWER_S", 0.3)
    monkeypatch.setattr(module, "_LOOK_S", 0.4)
    async with following(tmp_path) as named:
        [engine] = named.containers.engines
        await until(lambda: engine.reached is True, "it is followed")
        named.engine.mute = True
        # No event says that something changed.
        named.engine.containers.clear()
        named.engine.run("db", "172.17.0.3")
        await until(lambda: engine.reached is False, "it is given up")
        before = named.engine.watchers
        await until(lambda: named.engine.watchers > before + 1, "it is tried again and again")
        assert named.pods() == {"172.17.0.2": "shop/web", "fd00::2": "shop/web"}
        named.engine.mute = False
        await named.engine.tell()
        await named.shows(_3="docker/db")


async def test_events_in_any_order_end_at_what_is_there(named: Named) -> None:
    await until(lambda: named.engine.watchers == 1, "it listens for events")
    # Whatever an event says, it is told after the deed or before it.
    await named.engine.tell()
    named.engine.run("api", "172.17.0.4")
    named.engine.containers.pop(0)
    for _ in range(5):
        await named.engine.tell()
    await named.shows(_4="docker/api")


async def test_who_is_on_the_machines_own_network_is_told_once(
    named: Named, capsys: pytest.CaptureFixture[str]
) -> None:
    await until(lambda: named.engine.watchers == 1, "it listens for events")
    log.configure("launcher", "warning", "json")
    named.engine.run("agent", mode="host")
    named.engine.run("sidecar", mode="container:web")
    named.engine.run("alone", mode="none")
    await named.engine.tell()
    await until(lambda: named.containers._hidden == {"agent"}, "it is noticed")
    before = named.engine.lists
    await named.engine.tell()
    await until(lambda: named.engine.lists > before, "all is listed again")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [line] = [one for one in told if one["event"] == "containers-without-address"]
    assert line["containers"] == ["agent"]
    assert named.pods() == {"172.17.0.2": "shop/web", "fd00::2": "shop/web"}


async def test_of_containers_that_share_a_network_the_first_gives_the_name(named: Named) -> None:
    await until(lambda: named.engine.watchers == 1, "it listens for events")
    named.engine.run("sidecar", "172.17.0.2", "fd00::2")
    named.engine.run("api", "172.17.0.4")
    # Engines list in any order.
    named.engine.containers.reverse()
    await named.engine.tell()
    await until(lambda: "172.17.0.4" in named.pods(), "all is listed again")
    assert named.pods() == {"172.17.0.2": "shop/web", "fd00::2": "shop/web", "172.17.0.4": "docker/api"}
    named.engine.containers.reverse()
    named.engine.run("db", "172.17.0.5")
    await named.engine.tell()
    await until(lambda: "172.17.0.5" in named.pods(), "all is listed again")
    assert named.pods()["172.17.0.2"] == "shop/web"


async def test_an_engine_that_comes_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", (0.01, 0.05))
    path = tmp_path / "containers.json"
    later = Engine("podman", tmp_path / "later.sock", expected=True)
    one = Containers([later], path, "node-a", lambda at, text: write_whole(at, text.encode()))
    await one.look()
    assert json.loads(path.read_bytes())["addresses"] == {}
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(one.follow())
        async with fake_engine(later.socket) as engine:
            engine.run("web", "10.88.0.2", io_podman_compose_project="shop")
            await until(lambda: "10.88.0.2" in path.read_text(), "it is named")
        # Its containers go on while it is restarted.
        await until(lambda: later.reached is False, "it is away")
        assert "10.88.0.2" in path.read_text()
        task.cancel()


async def test_what_the_user_says_of_an_address_wins(tmp_path: Path) -> None:
    known = {
        "version": 1,
        "addresses": {"172.17.0.2": {"namespace": "mine", "pod": "named"}, "10.0.0.1": {"namespace": "a", "pod": "b"}},
        "nodes": {"node-a": {"zone": "z"}, "node-b": {}},
        "cidrs": {"office": "192.0.2.0/24"},
    }
    async with following(tmp_path, known) as made:
        assert made.pods() == {"172.17.0.2": "mine/named", "10.0.0.1": "a/b", "fd00::2": "shop/web"}
        content = json.loads(made.path.read_bytes())
        assert content["nodes"] == {"node-a": {"zone": "z", "addresses": ["172.17.0.1"]}, "node-b": {}}
        assert content["cidrs"] == known["cidrs"]
        StaticDirectory.read(str(made.path))


def test_where_engines_listen() -> None:
    assert [str(one.socket) for one in engines("", "")] == ["/var/run/docker.sock", "/run/podman/podman.sock"]
    mine = engines("unix:///somewhere/docker.sock", "/run/user/1000")
    assert [(str(one.socket), one.expected) for one in mine] == [
        ("/somewhere/docker.sock", True),
        ("/run/podman/podman.sock", False),
        ("/run/user/1000/podman/podman.sock", False),
    ]
    assert [one.name for one in engines("tcp://other:2375", "")] == ["podman"]
