"""`podloxx-launch local` beside a real container engine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launched import launched
from tests.support.netns import Namespace, namespaces
from tests.support.truth import wait_for_total
from tests.support.wait import wait_until

SEND = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); [s.sendto(bytes(100), (sys.argv[1], 9)) for _ in range(10)]"


@pytest.fixture
def rootfs(folder: Path) -> Path:
    """A file system with one program that does nothing for a while."""
    made = folder / "rootfs"
    program = Path("/bin/sleep")
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for name in (str(program), *re.findall(r"/\S+", libraries)):
        (made / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, made / name[1:])
    for name in ("proc", "sys", "dev", "etc", "tmp", "run"):
        (made / name).mkdir()
    return made


@pytest.fixture
def podman(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Namespace, list[str]]]:
    """An engine in a namespace of its own, with a service on a unix socket, and its command line."""
    if shutil.which("podman") is None or shutil.which("iptables") is None:
        pytest.skip("without podman: `apt-get install podman runc netavark iptables` brings it")
    with namespaces("engine") as (node,):
        node.ip("link set lo up")
        state = [f"--{name}={folder / name}" for name in ("root", "runroot", "network-config-dir")]
        argv = node.command("podman", *state, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc")
        socket = folder / "podman.sock"
        monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
        service = subprocess.Popen([*argv, "system", "service", "--time=0", f"unix://{socket}"])
        try:
            wait_until(socket.exists, "the engine listens")
            yield node, argv
        finally:
            subprocess.run([*argv, "rm", "--all", "--force", "--time=0"], capture_output=True, check=False)
            service.terminate()
            service.wait()


def run(podman: list[str], rootfs: Path, name: str, *options: str) -> tuple[str, str]:
    """Start a container; its process and its address, empty where it has none of its own."""
    done = subprocess.run(
        [
            *podman,
            "run",
            "--detach",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1000:1000",
            f"--name={name}",
            *options,
            "--rootfs",
            str(rootfs),
            "/bin/sleep",
            "300",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = "{{.State.Pid}} {{.NetworkSettings.IPAddress}}"
    done = subprocess.run([*podman, "inspect", name, "--format", told], capture_output=True, text=True, check=True)
    pid, _, address = done.stdout.strip().partition(" ")
    return pid, address


def test_containers_of_a_real_engine(podman: tuple[Namespace, list[str]], rootfs: Path) -> None:
    node, argv = podman
    web, _ = run(argv, rootfs, "web", "--label=io.podman.compose.project=shop")
    run(argv, rootfs, "exporter", "--network=host")
    with launched("local", "--node=here", inside=node) as local:
        api, address = run(argv, rootfs, "api")

        def talked(pods: dict[str, object]) -> bool:
            for pid in (web, api):
                subprocess.run(
                    ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "python3", "-c", SEND, address], check=True
                )
            return {"shop/web", "podman/api"} <= set(pods) or {"shop/web", "docker/api"} <= set(pods)

        wait_for_total(local, talked, "both containers have their names")
        peers = local.get("/traffic/peers?pod=shop/web")["peers"]
        # Its first packets may have come before its name.
        found = {(peer["name"], peer["scope"]) for peer in peers if peer["address"] == address}
        assert ("api", "same-node") in found
        assert {scope for _, scope in found} == {"same-node"}
        subprocess.run([*argv, "rm", "--force", "--time=0", "api"], capture_output=True, check=True)
        wait_until(
            lambda: any(pod["endTime"] for name, pod in local.get("/traffic/total").items() if name.endswith("/api")),
            "its end is told",
        )
        names = set(local.get("/traffic/total"))
        assert not [name for name in names if name.endswith("/exporter")]
        assert local.end() == 0
        assert local.process.stderr is not None
        [told] = [line for line in local.process.stderr if "containers-without-address" in line]
        assert "exporter" in told
