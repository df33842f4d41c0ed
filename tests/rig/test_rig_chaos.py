"""Containers that are killed, frozen, restarted and cut off while others talk: afterwards every byte is told. The last to use the rig."""

from __future__ import annotations

import contextlib
import http.client
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.support.rig import Rig, container, docker
from tests.support.truth import interface_sums
from tests.support.wait import wait_until

# The first test brings the rig up.
pytestmark = pytest.mark.timeout(420)

SEED: Final = 1
SECONDS: Final = 60.0
ADDRESSES: Final = {"redis": "10.89.0.2", "aggregator": "10.89.0.5"}
"""Of those that have a network of their own; the agent is in its node's."""
STRUCK: Final = ("capture", "aggregator", "redis")
_NETWORK: Final = "podloxx-rig_system"
_WELL_S: Final = 40.0
_TALK: Final = """import random, socket, sys, time
end = time.monotonic() + float(sys.argv[1])
ways = [(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in sys.argv[2:]]
outs = [(socket.socket(family, socket.SOCK_DGRAM), one) for family, one in ways]
while time.monotonic() < end:
    for out, address in outs:
        for _ in range(4):
            out.sendto(bytes(random.randrange(1, 1400)), (address, 9300))
    time.sleep(0.002)
"""
TALKERS: Final = ("shop/client", "shop/web", "shop/bulk", "shop/far")
"""Not who only listens: an agent that starts anew knows it by its interface until it says something."""
TARGETS: Final = ("10.90.1.10", "fd90::1:10", "10.90.2.30", "10.90.3.40")


@dataclass(slots=True)
class Chaos:
    """One deed after the other, as a seed chooses them; what ended is started again as a kubelet would."""

    rig: Rig
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    restarted: Counter[str] = field(default_factory=Counter)

    def strike(self) -> None:
        """One deed to its end, and until all is well again: two at a time may cost the session, as is said."""
        service = self.chance.choice(STRUCK)
        deed = self.chance.choice(
            ("kill", "freeze", "restart", "cut") if service in ADDRESSES else ("kill", "freeze", "restart")
        )
        pause_s = self.chance.uniform(0.3, 3.0)
        self.done[f"{service} {deed}"] += 1
        getattr(self, f"_{deed}")(service, pause_s)
        seen = -1

        def well() -> bool:
            nonlocal seen
            self.start_what_ended()
            before, seen = seen, self._packets()
            return 0 <= before < seen

        wait_until(well, f"the API tells what passes after {service} {deed}", timeout_s=_WELL_S)

    def start_what_ended(self) -> None:
        """Start again what ended by itself."""
        for service in STRUCK:
            if docker("inspect", "--format", "{{.State.Running}}", container(service)).strip() != "true":
                self.restarted[service] += 1
                docker("start", container(service))

    def _packets(self) -> int:
        """As the API tells them; -1 where it tells nothing current."""
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            overview = self.rig.get("/traffic/overview")
            return int(overview["packetsSum"]) if overview["nodesReporting"] == 1 else -1
        return -1

    def _kill(self, service: str, pause_s: float) -> None:
        docker("kill", "--signal", "KILL", container(service))
        time.sleep(pause_s)
        docker("start", container(service))

    def _freeze(self, service: str, pause_s: float) -> None:
        docker("pause", container(service))
        time.sleep(pause_s)
        docker("unpause", container(service))

    def _restart(self, service: str, _: float) -> None:
        docker("restart", "--timeout", "5", container(service))

    def _cut(self, service: str, pause_s: float) -> None:
        docker("network", "disconnect", _NETWORK, container(service))
        time.sleep(pause_s)
        docker("network", "connect", "--ip", ADDRESSES[service], _NETWORK, container(service))


@contextlib.contextmanager
def talking(seconds: float) -> Iterator[None]:
    """The client sends to near and far, in both families, until the end."""
    argv = ["docker", "exec", container("client"), "python3", "-c", _TALK, str(seconds), *TARGETS]
    process = subprocess.Popen(argv)
    try:
        yield
    finally:
        assert process.wait(seconds + 60) == 0


def truth(rig: Rig) -> dict[str, tuple[int, int]]:
    """By pod, all bytes that its interface counted, and all that the API has of them, without an agent too."""
    found = {}
    total = rig.get("/traffic/total")
    for name, pod in ((name, total[name]) for name in TALKERS if name in total):
        now = rig.machine.counters(pod["fileName"])
        found[name] = now.rx_bytes + now.tx_bytes, interface_sums(pod) + int(pod["agentGapBytes"])
    return found


def test_whatever_befalls_the_containers_every_byte_is_told(rig: Rig) -> None:
    chaos = Chaos(rig, random.Random(SEED))
    began = truth(rig)
    assert len(began) == len(TALKERS)
    with talking(SECONDS + 10):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            chaos.strike()
    chaos.start_what_ended()
    differing: dict[str, int] = {}

    def told() -> bool:
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            now = truth(rig)
            differing.clear()
            for name, (counted, has) in began.items():
                differing[name] = (now[name][0] - counted) - (now[name][1] - has) if name in now else -1
            return not any(differing.values())
        return False

    try:
        wait_until(told, "every byte that an interface counted is told", timeout_s=_WELL_S)
    finally:
        print(
            f"\nrig chaos: seed {SEED}, {chaos.done.total()} deeds {dict(chaos.done)}, ended by themselves {dict(chaos.restarted)}, differing {differing}"
        )
    assert min(chaos.done[f"{service} kill"] for service in STRUCK) > 0, "each was killed"
    moved = truth(rig)
    assert moved["shop/client"][0] - began["shop/client"][0] > 5_000_000
    assert all(
        docker("inspect", "--format", "{{.State.Running}}", container(service)).strip() == "true" for service in STRUCK
    )
