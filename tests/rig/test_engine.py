"""A private engine leaves nothing, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.programs import TOOLS, built
from tests.support.wait import wait_until

SCRIPT: Final = Path(__file__).parents[2] / "scripts/with-engine"
TALKS: Final = f"""docker load --quiet --input "$1" >/dev/null
docker run --detach --network host --stop-signal KILL {TOOLS} sleep 1000 >/dev/null
echo "$DOCKER_HOST $(readlink "$PLX_ENGINE_NET")"
exec sleep 1000"""


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    """That of an engine whose data is in `folder`."""
    programs = built("engine")
    assert programs is not None, "`make engine` builds it, and `make rig` does so first"
    (folder / "podloxx").mkdir()
    (folder / "podloxx/programs").symlink_to(programs.parents[1])
    return {**os.environ, "XDG_CACHE_HOME": str(folder)}  # noqa: TID251


@contextlib.contextmanager
def running(environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[str]]:
    """A private engine while it runs a command."""
    argv = ["bash", str(SCRIPT), "--apart", *command]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def inside(network: str) -> list[str]:
    """The processes in a network namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "ns/net").readlink() == Path(network):
                found.append((path / "comm").read_text().strip())
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_runs_on(images: Path, folder: Path, environment: dict[str, str], how: signal.Signals) -> None:
    talks = ("bash", "-ec", TALKS, "talks", str(images / "tools.tar"))
    with running(environment, *talks) as process:
        assert process.stdout is not None
        socket, network = process.stdout.readline().split()
        here = Path(socket.removeprefix("unix://")).parent
        wait_until(lambda: {"dockerd", "sleep"} <= set(inside(network)), "the container runs")
        assert here.is_dir()
        if how is signal.SIGKILL:
            process.kill()
        else:
            # As CTRL+C and a stopped build do: all of a group.
            os.killpg(process.pid, how)
            assert process.wait(30) == 128 + how
            assert not here.exists()
        wait_until(lambda: not inside(network), "all that ran in the engine's network has ended", timeout_s=30)
    mounts = Path("/proc/self/mounts").read_text()
    assert str(here) not in mounts
    assert str(folder) not in mounts
    if how is signal.SIGKILL:
        # What is left is a folder, which the next one removes.
        with running(environment, "true") as process:
            assert process.wait(60) == 0
        assert not here.exists()
