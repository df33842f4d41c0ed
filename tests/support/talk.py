"""Datagrams both ways over links, in a thread, until told to pause: what passed the interfaces themselves tell."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from tests.support.netns import Counters, Namespace
from tests.support.wait import wait_until

_PORT: Final = 9000
_EVERY_S: Final = 0.002
_LARGEST: Final = 1400
_PAUSED_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """A node's link to its pod: `interface` in the node's namespace."""

    node: Namespace
    pod: Namespace
    interface: str
    node_address: str
    pod_address: str

    def counters(self) -> Counters:
        """What the node's end counted, once nothing moves any more."""
        last = self.node.counters(self.interface)
        while (now := self.node.counters(self.interface)) != last:
            last = now
        return last


class Talk:
    """The talk on some lines; starts paused."""

    def __init__(self, lines: Sequence[Line], seed: int) -> None:
        self._random = random.Random(seed)
        self._lines = lines
        self._thread = threading.Thread(target=self._run, name="talk")
        self._wanted = [threading.Event() for _ in lines]
        self._talking = [False for _ in lines]
        self._end = threading.Event()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        for line in self._lines:
            for namespace, address in ((line.pod, line.pod_address), (line.node, line.node_address)):
                one = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                self._sockets.append(one)
                one.bind((address, _PORT))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for one in self._sockets:
            one.close()

    def resume(self, line: int | None = None) -> None:
        """Go on, on one line or all."""
        for at in range(len(self._lines)) if line is None else (line,):
            self._wanted[at].set()

    def pause(self, line: int | None = None) -> None:
        """Be silent, on one line or all; nothing is sent any more when this returns."""
        chosen = range(len(self._lines)) if line is None else (line,)
        for at in chosen:
            self._wanted[at].clear()
        wait_until(lambda: not any(self._talking[at] for at in chosen), "the talk pauses", _PAUSED_S)

    def _run(self) -> None:
        while not self._end.wait(_EVERY_S):
            for at, line in enumerate(self._lines):
                self._talking[at] = self._wanted[at].is_set()
                if self._talking[at] and self._wanted[at].is_set():
                    self._say(at, line)
            # Told to pause in between: seen in the next turn.

    def _say(self, at: int, line: Line) -> None:
        pod, node = self._sockets[2 * at : 2 * at + 2]
        said = bytes(self._random.randrange(1, _LARGEST))
        with contextlib.suppress(OSError):
            if self._random.random() < 0.5:
                pod.sendto(said, (line.node_address, _PORT))
            else:
                node.sendto(said, (line.pod_address, _PORT))
