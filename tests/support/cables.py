"""Networks between services and Redis, and what breaks them: the kernel's own filter (iptables, which is nftables here)."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tests.support.netns import Namespace, veth

_PORT: Final = 6379
_LINK: Final = "uplink"


class Break(Enum):
    """What happens to all frames of a cable."""

    HOLE = "a black hole"
    """Nothing arrives, and nobody says so."""
    REFUSED = "refused"
    """Connections are reset, those that stand and new ones."""
    LOSSY = "lossy"
    """Three of ten get lost, each way."""


_RULES: Final = {
    Break.HOLE: ("-j", "DROP"),
    Break.REFUSED: ("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"),
    Break.LOSSY: ("-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP"),
}


@dataclass(slots=True)
class Cable:
    """From the namespace `space` to `listening`, a socket that waits for its client in another one."""

    space: Namespace
    listening: socket.socket

    def cut(self, how: Break) -> None:
        """Break it until it is mended."""
        for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o")):
            # A reset goes to who sent: of what comes in that is the other side.
            self.space.run("iptables", "-w", "-A", chain, way, _LINK, *_RULES[how])

    def mend(self) -> None:
        """Let everything pass."""
        self.space.run("iptables", "-w", "-F")


def cable(hub: Namespace, space: Namespace, number: int) -> Cable:
    """A link between two namespaces, with a socket that listens in the hub."""
    here, there = f"10.8.{number}.1", f"10.8.{number}.2"
    veth(hub, f"cable{number}", space, f"{there}/24", pod_name=_LINK)
    hub.ip(f"addr add {here}/24 dev cable{number}")
    listening = hub.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    listening.bind((here, _PORT))
    return Cable(space, listening)
