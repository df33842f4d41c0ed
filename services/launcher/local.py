"""`podloxx-launch local` and `demo`: this machine's pods, or a miniature cluster's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.launcher import run as running
from services.launcher.run import Rig, Wanted
from services.runtime.errors import PrivilegeError

NET_RAW: Final = frozenset({"net_raw"})
_CAP_NET_RAW: Final = 13
_CAP_SYS_ADMIN: Final = 21


@dataclass(frozen=True, slots=True)
class Agent:
    """One capture process: on which node, in which namespace, with which settings."""

    node: str
    settings: Mapping[str, str | float]
    netns: Path | None = None


async def local(wanted: Wanted, agents: Sequence[Agent]) -> None:
    """Capture this machine's interfaces."""
    require("local", _CAP_NET_RAW)
    port = running.free_port(wanted.listen, wanted.port)
    async with running.rig(print) as one:
        await serve(one, wanted, agents, port)


async def demo(wanted: Wanted, seed: int) -> None:
    """Capture a miniature cluster that is made for it and goes with it."""
    require("demo", _CAP_NET_RAW, _CAP_SYS_ADMIN)
    # Only here: the demo's world is Linux through and through.
    from services.launcher.demo import session as worlds
    from services.launcher.demo import world

    port = running.free_port(wanted.listen, wanted.port)
    async with running.rig(print) as one:
        folder = one.session.folder
        await asyncio.to_thread(worlds.clean_leftovers, worlds.alive_by(folder))
        async with world.running(one.session.name, folder, seed) as made:
            agents = [
                Agent(node.name, {"node": node.name, "interface_prefix": node.interface_prefix}, node.netns_path)
                for node in made.nodes
            ]
            about = {**wanted.aggregator, "directory_file": str(made.directory_file)}
            await serve(one, _with(wanted, about), agents, port)


async def serve(one: Rig, wanted: Wanted, agents: Sequence[Agent], port: int) -> None:
    """Start all services, show them, and return when the session is to end."""
    await one.service("aggregator", wanted.aggregator)
    await one.service("api", {**wanted.api, "listen": wanted.listen, "port": port})
    for agent in agents:
        label = f"capture-{agent.node}" if len(agents) > 1 else "capture"
        await one.service("capture", agent.settings, label=label, capabilities=NET_RAW, netns=agent.netns)
    await one.wait_ready(wanted, running.base_url(wanted, port), agents=len(agents))
    await running.show(one, wanted, port)


def require(command: str, *capabilities: int) -> None:
    """Raise PrivilegeError unless this process is root and has these capabilities."""
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    if os.geteuid() != 0 or any(not effective >> number & 1 for number in capabilities):
        raise PrivilegeError(
            f"`podloxx-launch {command}` needs root: it opens raw sockets on the pods' interfaces. "
            f"Run it as `sudo podloxx-launch {command}`; capture keeps only CAP_NET_RAW, the other services nothing."
        )


def _with(wanted: Wanted, aggregator: Mapping[str, str | float]) -> Wanted:
    return Wanted(
        port=wanted.port,
        listen=wanted.listen,
        browser=wanted.browser,
        for_s=wanted.for_s,
        verbose=wanted.verbose,
        api=wanted.api,
        aggregator=aggregator,
    )
