"""Looking into a demo world from outside: its namespaces, processes, counters and reports."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from services.launcher.demo.plan import Talk
from services.launcher.demo.session import session_of
from services.launcher.demo.topology import INTERNET_ROLE
from services.launcher.demo.world import World
from tests.support.netns import Namespace

UDP_KINDS = frozenset({"dns", "bulk-udp", "proxy-udp"})


def new_session() -> str:
    return f"t{secrets.token_hex(5)}"


def transport_of(kind: str) -> str:
    return "udp" if kind in UDP_KINDS else "tcp"


def namespaces_left(session: str) -> list[str]:
    folder = Path("/run/netns")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(name for name in names if session_of(name) == session)


def inside(world: World, role: str) -> Namespace:
    return Namespace(world.netns_of(role).name)


def pids_in(names: list[str]) -> set[int]:
    """The processes that live in the namespaces of these names."""
    wanted = {_identity(Path("/run/netns", name)) for name in names}
    return {
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and _identity(process / "ns/net") in wanted - {None}
    }


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def octets(namespace: Namespace) -> tuple[int, int, int, int]:
    """Bytes that came and went over IPv4, then over IPv6, in one namespace."""
    lines = namespace.run("cat", "/proc/net/netstat", "/proc/net/snmp6").splitlines()
    names, values = (line.split() for line in lines if line.startswith("IpExt:"))
    four = dict(zip(names, values, strict=True))
    six = dict(line.split() for line in lines if line.startswith("Ip6"))
    return int(four["InOctets"]), int(four["OutOctets"]), int(six["Ip6InOctets"]), int(six["Ip6OutOctets"])


@dataclass(frozen=True, slots=True)
class Said:
    """One conversation as one process counted it."""

    role: str
    local: str
    peer: str
    transport: str
    port: int
    side: str
    tx_bytes: int
    rx_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """The newest line that one process wrote."""

    role: str
    final: bool
    peers: list[Said]


def newest_reports(folder: Path) -> list[Report]:
    """One per process that has written any."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines()[-1:]:
            raw = json.loads(line)
            peers = [Said(raw["role"], **peer) for peer in raw["peers"]]
            found.append(Report(raw["role"], raw["final"], peers))
    return found


def reports(folder: Path) -> list[Said]:
    """All conversations that the processes have counted."""
    return [said for report in newest_reports(folder) for said in report.peers]


def role_of(world: World, address: str) -> str:
    """The role of the process that serves `address`; the first node for an address on every node."""
    for pod in world.topology.pods:
        if address in pod.address.both():
            return pod.role
    for host in world.topology.outsiders:
        if any(address in pair.both() for pair in host.addresses):
            return INTERNET_ROLE
    return world.topology.nodes[0].name


def talks_of(world: World) -> list[tuple[str, Talk]]:
    return [(role, talk) for role, part in world.plan.parts.items() for talk in part.talks]
