"""A node that routes between two pods, and what is needed to flood one of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.support.netns import Namespace, namespaces, veth

INTERFACE: Final = "veth0"
"""The node's side of the pod that is watched."""
Way = Literal["from the pod", "to the pod"]
_NOBODY: Final = "02:00:00:00:00:09"
_GATEWAY: Final = "02:00:00:00:00:01"
_CPUS: Final = sorted(os.sched_getaffinity(0))
SENDER: Final = ["taskset", "-c", str(_CPUS[-2:][0])]
CAPTURER: Final = ["taskset", "-c", str(_CPUS[-1])]
"""Every method gets the same processor, and the sender another one."""


@dataclass(frozen=True, slots=True)
class World:
    """The node, the pod that is watched and another pod."""

    node: Namespace
    pod: Namespace
    other: Namespace

    def flood(self, program: Path, way: Way, flows: int, size: int, seconds: float) -> list[str]:
        """The command that sends UDP frames of `size` bytes past the watched interface."""
        # What leaves the pod goes to nobody, so that the path ends behind the capturing hooks; what
        # goes to it is routed by the node, as it would be.
        sender, to = (self.pod, _NOBODY) if way == "from the pod" else (self.other, _GATEWAY)
        return sender.command(*SENDER, str(program), "eth0", to, str(flows), str(size), str(seconds))

    def datagrams(self, program: Path, group: Path, flows: int, size: int, seconds: float) -> list[str]:
        """The command that sends as many from a socket of the pod's, as a member of a control group, to nobody."""
        return self.pod.command(*SENDER, str(program), str(group), str(flows), str(size), str(seconds))


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Both pods behind one node."""
    with namespaces("node", "pod", "other") as (node, pod, other):
        veth(node, INTERFACE, pod, "10.9.0.2/24")
        veth(node, "veth1", other, "10.8.0.2/24")
        node.sysctl("net/ipv4/ip_forward", "1")
        for name in ("all", INTERFACE, "veth1"):
            node.sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")
        node.ip(f"addr add 10.9.0.1/24 dev {INTERFACE}", f"route add 10.9.1.0/24 dev {INTERFACE}")
        # The flows' destinations are nobody's addresses: the pod drops them.
        node.ip(*(f"neigh add 10.9.1.{last} lladdr {_NOBODY} dev {INTERFACE}" for last in range(1, 12)))
        node.ip(f"link set dev veth1 address {_GATEWAY}")
        pod.ip("route add 10.9.1.0/24 dev eth0")
        pod.ip(*(f"neigh add 10.9.1.{last} lladdr {_NOBODY} dev eth0 nud permanent" for last in range(1, 12)))
        yield World(node, pod, other)
