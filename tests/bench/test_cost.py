"""What each source costs per packet, beside tcpdump in the same run.

`path` is the time that the source adds to the sender's path, `own` the processor time that it takes itself.
Medians of interleaved rounds; what is asserted is only that the ratios hold on any machine, and by far.
"""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace, namespaces, veth
from tests.support.wait import wait_until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUNDS, FRAMES = 3, 400_000
METHODS = ("none", "ebpf", "socket", "tcpdump")


@pytest.fixture(scope="module")
def flood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sender, compiled."""
    program = tmp_path_factory.mktemp("bench") / "flood"
    subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(HERE / "flood.c")], check=True)
    return program


@pytest.fixture(scope="module")
def link() -> Iterator[tuple[Namespace, Namespace]]:
    """A node with a pod."""
    with namespaces("node", "pod") as (node, pod):
        veth(node, "veth0", pod, "10.9.0.2/24")
        yield node, pod


def processor_ns(pid: int) -> int:
    """The processor time of a process, all its threads, in nanoseconds."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def one_round(method: str, node: Namespace, pod: Namespace, flood: Path, flows: int, size: int) -> dict[str, float]:
    """Nanoseconds per packet on the path and of the capturing process, and the share of packets seen."""
    argv = {
        "none": [],
        "tcpdump": ["tcpdump", "-n", "-i", "veth0", "-w", "/dev/null"],
    }.get(method, [sys.executable, "-m", "tests.bench.counting", method, "veth0", "262144"])
    send = pod.command(str(flood), "eth0", str(flows), str(size), str(FRAMES))
    if not argv:
        return {"path": float(subprocess.check_output(send)), "own": 0.0, "seen": 1.0}
    with subprocess.Popen(
        node.command(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stderr.readline() if method == "tcpdump" else process.stdout.readline()
        while "ready" not in said and "listening on" not in said:
            said = process.stderr.readline() if method == "tcpdump" else process.stdout.readline()
            assert said, "it ended before it was ready"
        before = processor_ns(process.pid)
        path = float(subprocess.check_output(send))
        settled: list[int] = []
        # Whoever reads frames may still be at it.
        wait_until(lambda: _settled(process.pid, settled), "it has read everything", timeout_s=30)
        own = (processor_ns(process.pid) - before) / FRAMES
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate()
    if method == "tcpdump":
        [seen] = re.findall(r"(\d+) packets? captured", errors)
        return {"path": path, "own": own, "seen": int(seen) / FRAMES}
    return {"path": path, "own": own, "seen": json.loads(out.splitlines()[-1])["packets"] / FRAMES}


def _settled(pid: int, last: list[int]) -> bool:
    """Whether a process has used next to no processor time since the previous question."""
    now = processor_ns(pid)
    last.append(now)
    return len(last) > 150 and now - last[-100] < 20_000_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("flows", "size"), [(100, 64), (100, 1400), (10_000, 64), (100_000, 64)])
def test_cost_per_packet(link: tuple[Namespace, Namespace], flood: Path, flows: int, size: int) -> None:
    node, pod = link
    rounds: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for _ in range(ROUNDS):
        for method in METHODS:
            rounds[method].append(one_round(method, node, pod, flood, flows, size))
    middle = {
        method: {name: statistics.median(one[name] for one in seen) for name in ("path", "own", "seen")}
        for method, seen in rounds.items()
    }
    base = middle["none"]["path"]
    cost = {method: one["path"] - base + one["own"] for method, one in middle.items()}
    print(f"\n{flows} flows of {size} bytes, {base:.0f} ns a packet without capture")
    print(f"{'source':10} {'path ns':>8} {'own ns':>8} {'of tcpdump':>11} {'seen':>9}")
    for method in METHODS[1:]:
        one = middle[method]
        print(
            f"{method:10} {one['path'] - base:8.0f} {one['own']:8.1f} {cost[method] / cost['tcpdump']:11.2f} "
            f"{100 * one['seen']:8.3f}%"
        )
    assert middle["ebpf"]["seen"] == 1.0
    assert cost["ebpf"] < cost["socket"]
