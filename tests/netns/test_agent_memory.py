"""An agent at every bound that it has stays inside the memory that k8s/base/agent.yaml lets it have."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import yaml

from services.flows import keys
from tests.bench.world import INTERFACE, world
from tests.support import cgroups
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[2]
FLOWS: Final = 200_000
"""More than --flow-capacity; as many peers are more than --batch-rows, four times a second."""
MIB: Final = 1 << 20


def limit() -> int:
    """The agent's limit in bytes, as its manifest writes it."""
    agent = yaml.safe_load((ROOT / "k8s/base/agent.yaml").read_text())
    [container] = agent["spec"]["template"]["spec"]["containers"]
    match = re.fullmatch(r"(\d+)Mi", container["resources"]["limits"]["memory"])
    assert match
    return int(match[1]) * MIB


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of memory with that limit."""
    name = f"plx-{secrets.token_hex(4)}"
    cgroups.make(name)
    try:
        [first, *_] = [path for path in cgroups.folders(name) if _file(path, "limit").exists()]
        _file(first, "limit").write_text(str(limit()))
        yield first
    finally:
        cgroups.end(name)
        cgroups.remove(name)


def _file(group: Path, what: str) -> Path:
    """A file of it, as either version of control groups calls it."""
    names = {"limit": ("memory.limit_in_bytes", "memory.max"), "most": ("memory.max_usage_in_bytes", "memory.peak")}
    return next((group / name for name in names[what] if (group / name).exists()), group / names[what][0])


@pytest.mark.timeout(120)
def test_an_agent_at_its_bounds_stays_inside_its_limit(group: Path, folder: Path) -> None:
    flood = folder / "flood"
    subprocess.run(["cc", "-O2", "-o", str(flood), str(ROOT / "tests/bench/flood.c")], check=True)
    server = RedisServer(folder)
    server.start()
    store: Any = redis.Redis(unix_socket_path=str(server.socket))
    stream = keys.Keys(0).flows
    inside = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]
    options = ["--redis-url", server.url, "--node", "node", "--interface", INTERFACE, "--log-format", "json"]
    try:
        with world() as place, (folder / "agent.log").open("wb") as log:
            command = place.node.command(*inside, sys.executable, "-m", "services.capture", *options)
            agent = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            try:
                wait_until(lambda: store.xlen(stream) > 0, "the agent sends", timeout_s=20)
                # Nobody confirms: four batches stand frozen, and what comes waits until it is folded.
                for more in (["peers"], []):
                    subprocess.run([*place.flood(flood, "from the pod", FLOWS, 64, 6), *more], check=True, timeout=30)
                time.sleep(2)
                assert agent.poll() is None, (folder / "agent.log").read_text()[-2000:]
                sizes = [len(b"".join(fields.values())) for _, fields in store.xrange(stream)]
            finally:
                agent.kill()
                agent.wait()
    finally:
        server.stop()
    most = int(_file(group, "most").read_text())
    print(f"\nat most {most / MIB:.0f} of {limit() / MIB:.0f} MiB, batches of {[size // 1000 for size in sizes]} kB")
    assert len(sizes) == keys.FROZEN_BATCHES
    # Full ones: each peer is a row.
    assert max(sizes) > 1_000_000
    assert most < limit()
