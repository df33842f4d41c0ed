"""The reflector against a server that misbehaves: its copy ends equal to the truth, and it asks no more than it may."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.aggregator.directory import reflector as module
from services.aggregator.directory.reflector import Reflector, Resource
from services.runtime import kubernetes_api
from services.runtime.errors import UsageError
from services.runtime.kubernetes_api import ApiError, BrokenAnswer, KubernetesApi
from services.runtime.supervise import Stop
from tests.support.misbehaving_api import FAULTS, PATH, MisbehavingApi, kubeconfig, misbehaving_api
from tests.support.wait import until


@dataclass
class Copy:
    """What the reflector told."""

    held: dict[str, int] = field(default_factory=dict)

    def put(self, uid: str, one: int) -> None:
        self.held[uid] = one

    def remove(self, uid: str) -> None:
        del self.held[uid]


def weight(one: Mapping[str, Any]) -> int:
    """All that is kept of an object."""
    return int(one["weight"])


@dataclass
class Reflected:
    """A server, and the copy of what it serves."""

    server: MisbehavingApi
    copy: Copy
    reflector: Reflector[int]

    @property
    def truth(self) -> dict[str, int]:
        return {uid: one["weight"] for uid, one in self.server.objects.items()}

    async def caught_up(self) -> None:
        """Wait until the copy is equal to the truth."""
        await until(lambda: self.reflector.state.synced and self.copy.held == self.truth, "the copy is equal")


@pytest.fixture
async def reflected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reflected]:
    monkeypatch.setattr(module, "_PAUSE_S", (0.01, 0.05))
    monkeypatch.setattr(module, "_REFUSED_S", 0.05)
    monkeypatch.setattr(module, "_SILENCE_S", 0.3)
    monkeypatch.setattr(module, "_SOON_S", 0.2)
    monkeypatch.setattr(module, "_EVENT_BYTES", 1 << 20)
    monkeypatch.setattr(module, "_PAGE", 7)
    monkeypatch.setattr(kubernetes_api, "_ANSWER_S", 0.3)
    async with misbehaving_api() as server:
        api = await KubernetesApi.connect(kubeconfig(tmp_path, server.url))
        copy = Copy()
        reflector = Reflector(api, Resource("pods", PATH, weight), copy, Stop())
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(reflector.run())
            yield Reflected(server, copy, reflector)
            task.cancel()
        await api.close()


async def test_everything_is_listed_and_every_change_is_followed(reflected: Reflected) -> None:
    for at in range(30):
        await reflected.server.put(f"pod-{at}", weight=at)
    await reflected.caught_up()
    await reflected.server.put("pod-3", weight=300)
    await reflected.server.put("pod-new", weight=1)
    await reflected.server.delete("pod-4")
    await reflected.caught_up()
    assert "pod-4" not in reflected.copy.held
    assert reflected.copy.held["pod-3"] == 300
    assert reflected.server.watches <= 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_each_fault_the_copy_is_equal_again(reflected: Reflected, fault: str) -> None:
    await reflected.server.put("pod-0", weight=0)
    await reflected.caught_up()
    before = reflected.reflector.state.requests
    reflected.server.faults.extend([fault] * 3)
    # The watch that is open ends with its silence, the next ones meet with the fault.
    await until(lambda: not reflected.server.faults, "all faults were met")
    await reflected.server.put("pod-0", weight=1)
    await reflected.server.put("pod-1", weight=2)
    await reflected.caught_up()
    assert reflected.reflector.state.requests - before < 20


async def test_events_that_are_gone_are_made_up_for_by_a_list(reflected: Reflected) -> None:
    await reflected.server.put("pod-0", weight=0)
    await reflected.server.put("pod-1", weight=1)
    await reflected.caught_up()
    reflected.server.faults.append("half-open")
    await until(lambda: not reflected.server.faults, "the watch hangs")
    await reflected.server.delete("pod-0")
    await reflected.server.put("pod-2", weight=2)
    reflected.server.compact()
    await reflected.caught_up()
    assert set(reflected.copy.held) == {"pod-1", "pod-2"}


async def test_what_was_deleted_is_not_brought_back_by_a_late_event(reflected: Reflected) -> None:
    for at in range(4):
        await reflected.server.put(f"pod-{at}", weight=at)
    await reflected.caught_up()
    await reflected.server.delete("pod-1")
    await reflected.server.put("pod-2", weight=20)
    await reflected.caught_up()
    reflected.server.faults.append("stale")
    await until(lambda: not reflected.server.faults, "old events were told again")
    await reflected.server.put("pod-3", weight=30)
    await reflected.caught_up()


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_the_copy_ends_equal_to_the_truth(reflected: Reflected, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(60):
        uid = draw.choice([*sorted(reflected.server.objects), "pod"])
        match draw.randrange(5):
            case 0 if reflected.server.objects:
                await reflected.server.delete(draw.choice(sorted(reflected.server.objects)))
            case 1:
                reflected.server.faults.append(draw.choice([fault for fault in FAULTS if fault != "429"]))
            case 2 if draw.random() < 0.2:
                reflected.server.compact()
            case _:
                # No uid is ever given to another object.
                fresh = f"{uid}-{draw.random()}"
                await reflected.server.put(
                    uid if uid in reflected.server.objects else fresh, weight=draw.randrange(1000)
                )
        await asyncio.sleep(draw.random() * 0.01)
    await until(lambda: not reflected.server.faults, "all faults were met", timeout_s=30)
    await reflected.server.put("last", weight=1)
    await reflected.caught_up()
    assert reflected.reflector.state.requests < 300


async def test_a_server_that_ends_every_watch_is_not_stormed(reflected: Reflected) -> None:
    await reflected.caught_up()
    before = reflected.reflector.state.requests
    reflected.server.faults.extend(["empty"] * 1000)
    await asyncio.sleep(1.0)
    # At a pause of at most 0.05 s, of which half is drawn.
    assert reflected.reflector.state.requests - before <= 50


async def test_a_quiet_watch_is_followed_by_the_next_at_once(
    reflected: Reflected, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reflected.caught_up()
    monkeypatch.setattr(module, "_PAUSE_S", (30.0, 30.0))
    before = reflected.server.watches
    # Each is silent for 0.3 s, and none waits for the next one.
    await until(lambda: reflected.server.watches > before + 4, "it goes on watching", timeout_s=5)
    await reflected.server.put("pod", weight=1)
    await reflected.caught_up()


async def test_an_object_that_is_malformed_hides_no_other(reflected: Reflected) -> None:
    await reflected.server.put("good", weight=1)
    await reflected.server.put("bad", heavy=1)
    await reflected.server.put("better", weight=2)
    await until(lambda: reflected.copy.held == {"good": 1, "better": 2}, "the others are there")
    assert reflected.reflector.state.malformed >= 1
    # It is not forgotten while it is malformed for a while.
    await reflected.server.put("good", heavy=1)
    await reflected.server.put("last", weight=3)
    await until(lambda: "last" in reflected.copy.held, "the next change is there")
    assert reflected.copy.held["good"] == 1


async def test_retry_after_is_honoured(reflected: Reflected) -> None:
    await reflected.caught_up()
    reflected.server.faults.append("429")
    await until(lambda: not reflected.server.faults, "it was refused")
    before = reflected.reflector.state.requests
    await asyncio.sleep(0.7)
    assert reflected.reflector.state.requests == before
    await reflected.server.put("pod", weight=1)
    await reflected.caught_up()


async def test_errors_say_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot use the kubeconfig .*nowhere"):
        await KubernetesApi.connect(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="the pod's service account"):
        await KubernetesApi.connect("in-cluster")
    path = kubeconfig(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(UsageError, match="context other"):
        await KubernetesApi.connect(path, "other")
    api = await KubernetesApi.connect(path)
    assert api.server == "http://127.0.0.1:1"
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        await api.get(PATH)
    await api.close()
    async with misbehaving_api() as server:
        api = await KubernetesApi.connect(kubeconfig(tmp_path, server.url))
        server.faults.extend(["429", "garbage"])
        with pytest.raises(ApiError, match="on purpose") as refused:
            await api.get(PATH, {"limit": "1"})
        assert (refused.value.status, refused.value.retry_after_s) == (429, 1.0)
        with pytest.raises(BrokenAnswer, match="not JSON"):
            await api.get(PATH, {"limit": "1"})
        with pytest.raises(ApiError, match="Not Found"):
            await api.get("/nothing")
        await api.close()
