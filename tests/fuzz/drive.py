"""`python -m tests.fuzz.drive [TARGET …] --seconds N`: fuzzes each target for so long, and says how much that was."""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz import rest
from tests.fuzz.corpora import keep, kept
from tests.fuzz.targets import TARGETS

ROOT: Final = Path(__file__).parents[2]
_TABLE: Final = "## The last run\n"
"""Below it, in docs/fuzzing.md, stand the runs' figures."""
_LONGEST_BYTES: Final = 4096
_MOST_KEPT: Final = 400
"""Inputs of a target; replaying them takes a moment."""
_MOST_KEPT_BYTES: Final = 1024


class Run(NamedTuple):
    """What a run amounts to; `found` is empty where nothing broke."""

    target: str
    executions: int
    cpu_s: float
    kept: int
    found: str = ""

    @property
    def line(self) -> str:
        """A line of the table in docs/fuzzing.md."""
        return f"| `{self.target}` | {self.executions:,} | {self.cpu_s / 60:.1f} | {self.kept or 'none'} |"


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 where nothing broke."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join([*TARGETS, "rest"]))
    parser.add_argument("--seconds", type=int, default=600, help="of processor time for each target")
    parser.add_argument("--keep", action="store_true", help="keep new inputs that reach what no other one does")
    parser.add_argument("--write", type=Path, help="a page with a table of the runs, whose lines are replaced")
    arguments = parser.parse_args(argv)
    broken = 0
    for target in arguments.targets or [*TARGETS, "rest"]:
        before, executions, found = _cpu_s(), 0, ""
        # Where others use the processor, so many seconds by the clock are fewer of its own.
        while not found and (left := round(arguments.seconds - (_cpu_s() - before))) > 0:
            more, found = rest.fuzzed(left) if target == "rest" else _fuzzed(target, left, arguments.keep)
            executions += more
        run = Run(target, executions, _cpu_s() - before, len(kept(target)), found)
        print(f"fuzz: {target}: {run.executions:,} executions in {run.cpu_s:.0f} s of CPU", flush=True)
        if found:
            print(found, flush=True)
            broken += 1
        elif arguments.write:
            _write(arguments.write, run)
    return min(broken, 1)


def _fuzzed(target: str, seconds: int, keeping: bool) -> tuple[int, str]:
    """Executions, and how the input that broke it can be had again."""
    with tempfile.TemporaryDirectory(prefix="podloxx-fuzz-") as name:
        folder = Path(name)
        grown = folder / "grown"
        _unpacked(grown, kept(target))
        limits = [f"-max_len={_LONGEST_BYTES}", "-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/"]
        said = _libfuzzer(target, [*limits, f"-max_total_time={seconds}", "-print_final_stats=1", str(grown)])
        executions = sum(map(int, re.findall(r"number_of_executed_units: (\d+)", said)))
        broken = [path for path in folder.iterdir() if path.is_file()]
        if broken:
            words = base64.b64encode(broken[0].read_bytes()).decode()
            return executions, f"{said[-6000:]}\n{target} breaks on (base64): {words}"
        if keeping:
            # libFuzzer keeps what reached something new, and the smaller of two that reach the same.
            grown_to = sorted((path.read_bytes() for path in grown.iterdir()), key=len)
            small = [one for one in grown_to if len(one) <= _MOST_KEPT_BYTES]
            keep(target, [*kept(target), *small[:: max(1, len(small) // _MOST_KEPT)]])
        return executions, ""


def _libfuzzer(target: str, options: list[str]) -> str:
    argv = [sys.executable, "-m", "tests.fuzz.instrumented", target, *options]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


def _unpacked(folder: Path, inputs: list[bytes]) -> None:
    folder.mkdir()
    for one in inputs:
        (folder / hashlib.sha256(one).hexdigest()).write_bytes(one)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    return sum(one.ru_utime + one.ru_stime for one in used)


def _write(page: Path, run: Run) -> None:
    above, table = page.read_text().split(_TABLE)
    page.write_text(above + _TABLE + re.sub(rf"^\| `{run.target}` \|.*$", run.line, table, flags=re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
