"""`podloxx-launch local` and `demo`: this machine's pods, or a miniature cluster's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from services.launcher import child, leftovers
from services.launcher import run as running
from services.launcher import session as sessions
from services.launcher.containers import Containers, Engine
from services.launcher.run import Rig, Wanted
from services.runtime.errors import PrivilegeError

_CAPTURE: Final = frozenset({"net_raw", "bpf", "perfmon"})
"""To open packet sockets, to count in the kernel, and to do so at full speed."""
_CAPTURE_ADMIN: Final = frozenset({"net_admin", "bpf", "perfmon"})
"""To attach to interfaces or control groups, instead of opening packet sockets."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One capture process: on which node, in which namespace, with which settings."""

    node: str
    settings: Mapping[str, str | float]
    netns: Path | None = None


async def local(
    wanted: Wanted, agents: Sequence[Agent], engines: Sequence[Engine] = (), kubeconfig: bytes = b""
) -> None:
    """Capture this machine's interfaces; containers have the names that `engines` or the cluster of `kubeconfig` tell."""
    require("local", *(("net_admin",) if any(_needs_admin(agent.settings) for agent in agents) else ("net_raw",)))
    port = running.free_port(wanted.listen, wanted.port)
    async with running.rig(wanted, print) as one, _named(one, wanted, agents[0].node, engines) as named:
        about = dict(named)
        if kubeconfig:
            about["kubeconfig"] = str(one.session.secret("kubeconfig", kubeconfig, one.users["aggregator"]))
        await _start_totals(one, replace(wanted, aggregator=about), port)
        await _capture(one, wanted, agents, port)


@asynccontextmanager
async def _named(
    one: Rig, wanted: Wanted, node: str, engines: Sequence[Engine]
) -> AsyncIterator[Mapping[str, str | float]]:
    """The aggregator's settings, with an address file that follows the engines while inside."""
    given = str(wanted.aggregator.get("directory_file", ""))
    known = _content(given)
    if not engines or known is None:
        yield wanted.aggregator
        return
    path = one.session.folder / "containers.json"
    named = Containers(engines, path, node, lambda at, text: sessions.write_whole(at, text.encode()), known)
    await named.look()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(named.follow())
        try:
            yield {**wanted.aggregator, "directory_file": str(path)}
        finally:
            following.cancel()


def _content(path: str) -> dict[str, Any] | None:
    """What the user's own address file says; None where the aggregator will find something wrong with it."""
    if not path:
        return {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(Path(path).read_bytes())
        nodes = content.get("nodes", {}) if isinstance(content, dict) else None
        if isinstance(nodes, dict) and isinstance(content.get("addresses", {}), dict):
            return content if all(isinstance(entry, dict) for entry in nodes.values()) else None
    return None


async def demo(wanted: Wanted, seed: int, capture: str) -> None:
    """Capture a miniature cluster that is made for it and goes with it."""
    require("demo", "net_raw", "net_admin", "sys_admin")
    # Only here: the demo's world is Linux through and through.
    from services.launcher.demo import directory, namespaces, topology, world
    from services.launcher.demo import session as worlds

    port = running.free_port(wanted.listen, wanted.port)
    async with running.rig(wanted, print) as one:
        folder = one.session.folder
        if child.in_user_namespace():
            namespaces.keep_in(folder / "netns")
        await asyncio.to_thread(leftovers.clean, folder)
        # It is known before there is a world: a wrong option is told without making one.
        addresses = worlds.directory_file(folder, one.session.name)
        sessions.write_whole(addresses, directory.static_directory(topology.miniature_cluster()))
        about = {**wanted.aggregator, "directory_file": str(addresses)}
        await _start_totals(one, replace(wanted, aggregator=about), port)
        await one.wait_ready(wanted, running.base_url(wanted, port), agents=0)
        if one.end_requested.is_set():
            return
        async with world.running(one.session.name, folder, seed) as made:
            agents = [
                Agent(
                    node.name,
                    {"node": node.name, "interface_prefix": node.interface_prefix, "capture": capture},
                    node.netns_path,
                )
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
            "capture", agent.settings, label=label, capabilities=rights(agent.settings), netns=agent.netns
        )
    await one.wait_ready(wanted, running.base_url(wanted, port), agents=len(agents))
    await running.show(one, wanted, port)


def rights(settings: Mapping[str, str | float]) -> frozenset[str]:
    """The capabilities that an agent with these settings gets from us."""
    return (_CAPTURE_ADMIN if _needs_admin(settings) else _CAPTURE) & child.effective()


def _needs_admin(settings: Mapping[str, str | float]) -> bool:
    return settings.get("capture") in {"tcx", "cgroup"}


def require(command: str, *capabilities: str) -> None:
    """Raise PrivilegeError unless this process is root and has these capabilities."""
    missing = [f"CAP_{name.upper()}" for name in capabilities if name not in child.effective()]
    if os.geteuid() != 0 or missing:
        lacks = f" (there is no {' and no '.join(missing)} here)" if os.geteuid() == 0 else ""
        raise PrivilegeError(
            f"`podloxx-launch {command}` needs root{lacks}: it opens raw sockets on the pods' interfaces. "
            f"Run it as `sudo podloxx-launch {command}`; capture keeps only the rights to open raw sockets and to count in the kernel, the other services none."
        )
