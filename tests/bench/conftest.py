"""What every bench shares: the report, the compiled sender and peers, a node with two pods."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.report import Report
from tests.bench.world import World, world

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=3, help="interleaved rounds whose median counts")
    parser.addoption("--write", type=Path, help="the page into which the tables are written")


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """How often everything is measured."""
    count: int = request.config.getoption("--rounds")
    return count


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest, rounds: int) -> Iterator[Report]:
    """Printed at the end, and written where it was asked for."""
    made = Report(f"Linux {platform.release()}, {os.cpu_count()} processors, medians of {rounds} interleaved rounds.")
    yield made
    print(f"\n\n{made.text()}")
    if request.config.getoption("--write"):
        made.write(request.config.getoption("--write"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The compiled sender and those of the peers that can be built here; the run says which cannot, and why."""
    folder = tmp_path_factory.mktemp("bench")
    compiler = ["cc", "-O2", "-Wall", "-Werror"]
    made = {name: folder / name for name in ("flood", "datagrams")}
    for name, path in made.items():
        subprocess.run([*compiler, "-o", str(path), str(HERE / f"{name}.c")], check=True)
    wanted = {
        "libpcap": [*compiler, "-o", str(folder / "libpcap"), str(HERE / "peers" / "libpcap.c"), "-lpcap"],
        "gopacket": ["go", "build", "-o", str(folder / "gopacket"), "."],
    }
    for name, command in wanted.items():
        if shutil.which(command[0]) is None:
            print(f"\n{name} is left out: there is no {command[0]} here")
            continue
        done = subprocess.run(command, cwd=HERE / "peers" / "gopacket", capture_output=True, text=True, check=False)
        if done.returncode:
            print(
                f"\n{name} is left out, it cannot be built (it needs libpcap's headers): {done.stderr.splitlines()[0]}"
            )
            continue
        made[name] = folder / name
    return made


@pytest.fixture(scope="session")
def place() -> Iterator[World]:
    """Where the traffic flows."""
    with world() as made:
        yield made
