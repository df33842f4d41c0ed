"""`podloxx-launch local` and `demo`: this machine's pods, or a miniature cluster's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.launcher import child, leftovers
from services.launcher import run as running
from services.launcher.run import Rig, Wanted
from services.runtime.errors import PrivilegeError

_CAPTURE: Final = frozenset({"net_raw", "bpf", "perfmon"})
"""To open packet sockets, to count in the kernel, and to do so at full speed."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One capture process: on which node, in which namespace, with which settings."""

    node: str
    settings: Mapping[str, str | float]
    netns: Path | None = None


async def local(wanted: Wanted, agents: Sequence[Agent]) -> None:
    """Capture this machine's interfaces."""
    require("local", "net_raw")
    port = running.free_port(wanted.listen, wanted.port)
    async with running.rig(wanted, print) as one:
        await _start_totals(one, wanted, port)
        await _capture(one, wanted, agents, port)


async def demo(wanted: Wanted, seed: int) -> None:
    """Capture a miniature cluster that is made for it and goes with it."""
    require("demo", "net_raw", "net_admin", "sys_admin")
    # Only here: the demo's world is Linux through and through.
    from services.launcher.demo import directory, topology, world
    from services.launcher.demo import session as worlds

    port = running.free_port(wanted.listen, wanted.port)
    async with running.rig(wanted, print) as one:
        folder = one.session.folder
        await asyncio.to_thread(leftovers.clean, folder)
        # It is known before there is a world: a wrong option is told without making one.
        addresses = worlds.directory_file(folder, one.session.name)
        worlds.write_whole(addresses, directory.static_directory(topology.miniature_cluster()))
        about = {**wanted.aggregator, "directory_file": str(addresses)}
        await _start_totals(one, replace(wanted, aggregator=about), port)
        await one.wait_ready(wanted, running.base_url(wanted, port), agents=0)
        if one.end_requested.is_set():
            return
        async with world.running(one.session.name, folder, seed) as made:
            agents = [
                Agent(node.name, {"node": node.name, "interface_prefix": node.interface_prefix}, node.netns_path)
                for node in made.nodes
            ]
            await _capture(one, wanted, agents, port)


async def _start_totals(one: Rig, wanted: Wanted, port: int) -> None:
    """Start all but the agents."""
    await one.service("aggregator", wanted.aggregator)
    await one.service("api", {**wanted.api, "listen": wanted.listen, "port": port})


async def _capture(one: Rig, wanted: Wanted, agents: Sequence[Agent], port: int) -> None:
    """Start the agents, show what they see, and return when the session is to end."""
    for agent in agents:
        label = f"capture-{agent.node}" if len(agents) > 1 else "capture"
        await one.service(
            "capture", agent.settings, label=label, capabilities=_CAPTURE & child.effective(), netns=agent.netns
        )
    await one.wait_ready(wanted, running.base_url(wanted, port), agents=len(agents))
    await running.show(one, wanted, port)


def require(command: str, *capabilities: str) -> None:
    """Raise PrivilegeError unless this process is root and has these capabilities."""
    missing = [f"CAP_{name.upper()}" for name in capabilities if name not in child.effective()]
    if os.geteuid() != 0 or missing:
        lacks = f" (there is no {' and no '.join(missing)} here)" if os.geteuid() == 0 else ""
        raise PrivilegeError(
            f"`podloxx-launch {command}` needs root{lacks}: it opens raw sockets on the pods' interfaces. "
            f"Run it as `sudo podloxx-launch {command}`; capture keeps only the rights to open raw sockets and to count in the kernel, the other services none."
        )
