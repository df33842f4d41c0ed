"""Network namespaces for tests: made, joined by veth pairs, entered, and always removed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tests.support.wait import wait_until

T = TypeVar("T")

PREFIX: Final = "plx"
_CLONE_NEWNET: Final = 0x40000000
_RUN: Final = Path("/run/netns")
_COMMAND_S: Final = 30.0
"""Far above what any command here takes: only a hang reaches it."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel counted on one interface, as the interface itself sees it."""

    rx_bytes: int
    rx_packets: int
    tx_bytes: int
    tx_packets: int

    def __sub__(self, other: Counters) -> Counters:
        return Counters(
            self.rx_bytes - other.rx_bytes,
            self.rx_packets - other.rx_packets,
            self.tx_bytes - other.tx_bytes,
            self.tx_packets - other.tx_packets,
        )


@dataclass(frozen=True, slots=True)
class Namespace:
    """One named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        return _RUN / self.name

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` inside."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command inside and return its output; raises CalledProcessError where it fails."""
        return run(*self.command(*command), stdin=stdin)

    def ip(self, *lines: str) -> None:
        """Run each of `lines` as a command of iproute2 inside."""
        run("ip", "-n", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def sysctl(self, key: str, value: str) -> None:
        """Set a kernel parameter of this namespace; `key` with slashes, as below /proc/sys."""
        with self.entered():
            Path("/proc/sys", key).write_text(value)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Inside, this thread's sockets (and the threads and children it starts) are the namespace's."""
        before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.path)
            try:
                yield
            finally:
                _setns_fd(before)
        finally:
            os.close(before)

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called in a thread of its own inside."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                _setns(self.path)
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
                errors.append(error)

        thread = threading.Thread(target=inside, name=self.name)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def links(self) -> frozenset[str]:
        """The names of all interfaces inside."""
        return frozenset(line.split(":")[1].split("@")[0].strip() for line in self.run("ip", "-o", "link").splitlines())

    def index(self, interface: str) -> int:
        """The index of an interface."""
        return int(self.run("ip", "-o", "link", "show", "dev", interface).split(":", 1)[0])

    def counters(self, interface: str) -> Counters:
        """The kernel's counters of an interface inside."""
        for line in self.run("cat", "/proc/self/net/dev").splitlines():
            name, colon, numbers = line.partition(":")
            if colon and name.strip() == interface:
                found = [int(number) for number in numbers.split()]
                return Counters(found[0], found[1], found[8], found[9])
        raise KeyError(interface)


def run(*command: str, stdin: str | None = None) -> str:
    """The output of a command; raises CalledProcessError, with its errors in the message, where it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, " ".join(command), done.stdout, done.stderr
        ) from RuntimeError(done.stderr or done.stdout)
    return done.stdout


@contextlib.contextmanager
def namespaces(*labels: str) -> Iterator[tuple[Namespace, ...]]:
    """One namespace per label, `lo` up, without IPv6 chatter; removed at the end with all that lives in them."""
    suffix = secrets.token_hex(4)
    made: list[Namespace] = []
    try:
        for label in labels:
            namespace = Namespace(f"{PREFIX}{suffix}-{label}")
            made.append(namespace)
            run("ip", "netns", "add", namespace.name)
            quiet(namespace)
            namespace.ip("link set lo up")
        yield tuple(made)
    finally:
        for namespace in made:
            remove(namespace)


def quiet(namespace: Namespace) -> None:
    """Have new interfaces send nothing by themselves: no router solicitations, no address detection.

    A test that compares counters must know each frame.
    """
    for key, value in (("router_solicitations", "0"), ("accept_dad", "0"), ("addr_gen_mode", "1")):
        namespace.sysctl(f"net/ipv6/conf/default/{key}", value)


def remove(namespace: Namespace) -> None:
    """Remove a namespace, its processes and its links; quiet where it is gone already."""
    if not namespace.path.exists():
        return
    for pid in run("ip", "netns", "pids", namespace.name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    # The kernel takes a namespace's links down some time later; a test that counts what is
    # left must not see them.
    for name in namespace.links() - {"lo"}:
        with contextlib.suppress(subprocess.CalledProcessError):
            namespace.run("ip", "link", "del", "dev", name)
    run("ip", "netns", "del", namespace.name)


def veth(
    host: Namespace,
    name: str,
    pod: Namespace,
    *addresses: str,
    pod_name: str = "eth0",
    options: str = "",
) -> int:
    """A pair of links, both up: `name` in `host` and `pod_name` in `pod`, which gets `addresses` (CIDRs).

    Returns the index of the host's side; `options` are iproute2's for that side (`index 77`).
    """
    host.ip(f"link add {name} {options} type veth peer name {pod_name} netns {pod.name}", f"link set {name} up")
    pod.ip(
        f"link set {pod_name} up",
        *(f"addr add {address} dev {pod_name} {'nodad' if ':' in address else ''}" for address in addresses),
    )
    # The carrier of a veth comes with a notification that the kernel sends later; frames sent
    # before it are dropped.
    wait_until(lambda: "LOWER_UP" in host.run("ip", "-o", "link", "show", "dev", name), f"{name} has a carrier")
    return host.index(name)


def _setns(path: Path) -> None:
    target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns_fd(target)
    finally:
        os.close(target)


def _setns_fd(target: int) -> None:
    if _libc.setns(target, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
