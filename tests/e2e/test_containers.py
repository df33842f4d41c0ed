"""`podloxx-launch local` names containers as their engine does."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.support import generators
from tests.support.fake_engine import fake_engine
from tests.support.launched import launched
from tests.support.netns import namespaces, veth
from tests.support.wait import until


async def test_containers_have_their_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
    with contextlib.ExitStack() as stack:
        node, one, two = stack.enter_context(namespaces("node", "one", "two"))
        node.sysctl("net/ipv4/ip_forward", "1")
        for number, pod in enumerate((one, two), 1):
            veth(node, f"veth{number}", pod, f"10.77.{number}.2/24")
            node.ip(f"addr add 10.77.{number}.1/24 dev veth{number}")
            pod.ip(f"route add default via 10.77.{number}.1")
        async with fake_engine(folder / "docker.sock") as engine:
            engine.run("web", "10.77.1.2", gateway="10.77.1.1", com_docker_compose_project="shop")
            local = await asyncio.to_thread(stack.enter_context, launched("local", "--node=here", inside=node))

            async def pods() -> dict[str, dict[str, object]]:
                await asyncio.to_thread(generators.tcp, one, two, "10.77.2.2", 9000, size=10_000)
                found: dict[str, dict[str, object]] = await asyncio.to_thread(local.get, "/traffic/total")
                return found

            async def named(*names: str) -> bool:
                return set(names) <= set(await pods())

            await until(lambda: named("shop/web"), "the container has its name")
            # The other one is started while podloxx runs.
            engine.run("api", "10.77.2.2")
            await engine.tell()
            await until(lambda: named("shop/web", "docker/api"), "the other one has its name as well")
            peers = await asyncio.to_thread(local.get, "/traffic/peers?pod=shop/web")
            assert {(peer["name"], peer["rule"]) for peer in peers["peers"]} >= {("api", "pod-same-node")}
            await asyncio.to_thread(stack.close)
