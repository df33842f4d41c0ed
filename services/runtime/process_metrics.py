"""What a process costs, under the names that all of Prometheus' clients use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from services import __version__
from services.runtime.exposition import Metric


def process_metrics(service: str, proc: Path = Path("/proc")) -> Iterable[Metric]:
    """Of this process; without Linux's /proc its version and processor time alone."""
    yield Metric(
        "podloxx_build_info", "info", "The version that runs.", [({"version": __version__, "service": service}, 1)]
    )
    yield Metric("process_cpu_seconds_total", "counter", "Processor time.", [({}, time.process_time())])
    try:
        resident = int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = sum(1 for _ in (proc / "self/fd").iterdir())
        started = _started_s(proc)
    except OSError:
        return
    yield Metric("process_resident_memory_bytes", "gauge", "Resident memory.", [({}, resident)])
    yield Metric("process_open_fds", "gauge", "Open file descriptors.", [({}, files)])
    yield Metric("process_start_time_seconds", "gauge", "When the process began, in Unix time.", [({}, started)])


def _started_s(proc: Path) -> float:
    # The name of a process may hold spaces and brackets; what comes after it does not.
    ticks = int((proc / "self/stat").read_text().rpartition(")")[2].split()[19])
    [booted] = [line.split()[1] for line in (proc / "stat").read_text().splitlines() if line.startswith("btime ")]
    return int(booted) + ticks / os.sysconf("SC_CLK_TCK")
