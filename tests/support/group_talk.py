"""Processes that talk as members of a control group, in a namespace of the network."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.capture.sources.cgroup import hierarchy
from tests.support.netns import Namespace
from tests.support.wait import wait_until

_TALK: Final = """
import socket, sys
kind, family, listen, host, port, size = sys.argv[1:]
of = getattr(socket, family)
size = int(size)
one = socket.socket(of, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
if kind == "udp" and listen == "listen":
    one.bind((host, int(port)))
    print("ready", flush=True)
    for _ in range(size):
        one.recv(1 << 16)
elif kind == "udp":
    one.connect((host, int(port)))
    for _ in range(size):
        try:
            one.send(bytes(700))
        except ConnectionRefusedError:
            pass
elif listen == "listen":
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((host, int(port)))
    one.listen()
    print("ready", flush=True)
    peer, _ = one.accept()
    while peer.recv(1 << 16):
        pass
    peer.close()
else:
    one.connect((host, int(port)))
    one.sendall(bytes(size))
    one.shutdown(socket.SHUT_WR)
    one.recv(1)
    one.close()
"""


@contextlib.contextmanager
def group(*names: str) -> Iterator[Path]:
    """A control group of the unified hierarchy, below others of ours with these names."""
    top = hierarchy() / f"plx-{os.getpid()}-{names[0]}"
    path = top.joinpath(*names[1:])
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        wait_until(lambda: _removed(top, path), f"{path} is removed")


def _removed(top: Path, path: Path) -> bool:
    # Who ended still counts for a moment, and another group may be below the same one.
    with contextlib.suppress(OSError):
        for one in (path, *path.parents):
            if one.is_relative_to(top) and one.exists():
                one.rmdir()
    return not path.exists()


def start(where: Path, namespace: Namespace, *words: str) -> subprocess.Popen[str]:
    """A process that opens its sockets as a member of a group, in a namespace."""
    enter = f"open({str(where / 'cgroup.procs')!r}, 'w').write('0')\n"
    with namespace.entered():
        return subprocess.Popen([sys.executable, "-c", enter + _TALK, *words], stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> None:
    with process:
        assert process.wait(30) == 0


def talking(where: Path, space: Namespace, *words: str) -> None:
    """Run a talk to its end."""
    ended(start(where, space, *words))


def listening(where: Path, space: Namespace, *words: str) -> subprocess.Popen[str]:
    """Run a listener until it is ready."""
    process = start(where, space, *words)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def uid(number: int) -> str:
    """A pod's uid that no other process takes: control groups are everybody's on the machine."""
    return f"7a0e2a34-6f0b-4f6e-9d3c-{os.getpid() << 8 | number:012x}"


End = tuple[Namespace, Path, str]
"""Where somebody talks, as whose member, and with which address."""
DATAGRAMS: Final = 90
MEGABYTES: Final = (4, 3)


def talk(one: End, other: End) -> None:
    """Two members of groups talk: TCP with offload, then UDP, from each to the other."""
    for (space, where, _), (there, theirs, address), size in zip((other, one), (one, other), MEGABYTES, strict=True):
        family = "AF_INET6" if ":" in address else "AF_INET"
        serving = listening(theirs, there, "tcp", family, "listen", address, "5001", "0")
        talking(where, space, "tcp", family, "talk", address, "5001", str(size << 20))
        ended(serving)
        taking = listening(theirs, there, "udp", family, "listen", address, "7001", str(DATAGRAMS))
        talking(where, space, "udp", family, "talk", address, "7001", str(DATAGRAMS))
        ended(taking)
