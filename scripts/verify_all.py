"""Runs every check that there is, one after the other, and writes what ran, when, how long and with what result.

Usage: verify_all.py [--resume] [--page docs/verification.md] [VERB…]    (without verbs: all, in the order below)
What each says is in .verify/VERB.log. One that fails ends none of the others, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
VERBS: Final = (
    "test",
    "coverage",
    "shards",
    "cluster",
    "rig",
    "torture",
    "chaos",
    "fuzz",
    "bench",
    "bench-dashboard",
    "bench-live",
    "bench-shards",
)
"""What runs, the quickest news first."""
PART_OF: Final[Mapping[str, str]] = dict.fromkeys(
    ("lint", "types", "arch", "frontend", "unit", "contract", "component", "netns", "e2e", "browser"), "test"
) | {"bench-docs": "bench", "actionlint": "test"}
"""Verbs of which another one does the same."""
NO_CHECKS: Final = frozenset(
    {
        "help",
        "run",
        "setup",
        "programs",
        "apiserver",
        "nodes",
        "engine",
        "images",
        "cluster-up",
        "cluster-down",
        "clean",
    }
    | {"bpf", "types-ts", "dashboard", "dist", "lock", "verify-all"}
)
"""Verbs that make something and check nothing."""
_HEAD: Final = "## What ran last\n"
_COLUMNS: Final = (
    "| `make` | began (UTC) | minutes | result | commit | kernel, processors |\n|---|---|---|---|---|---|\n"
)
_COUNTS: Final = re.compile(r"^(?:=+ )?((?:\d+ \w+(?:, |(?= in )))+) in [\d.]+s", re.MULTILINE)
_COUNT: Final = re.compile(r"(\d+) (\w+)")
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_MOST_NAMED: Final = 3


class Run(NamedTuple):
    """What one verb came to."""

    verb: str
    began: str
    minutes: float
    result: str
    commit: str
    machine: str

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return self.result.startswith("passed")

    @property
    def line(self) -> str:
        """Its line in the table."""
        shown = self.result if self.passed else f"**{self.result}**"
        return f"| `{self.verb}` | {self.began} | {self.minutes:.1f} | {shown} | {self.commit} | {self.machine} |\n"


def main(argv: Sequence[str], root: Path = ROOT) -> int:
    """The exit code: 0 where all passed, 1 where something failed, 2 for a verb that there is not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verbs", nargs="*", metavar="VERB", help=", ".join(VERBS))
    parser.add_argument("--resume", action="store_true", help="leave out what passed at this commit")
    parser.add_argument("--page", type=Path, help="a page whose table is renewed")
    arguments = parser.parse_args(argv)
    if wrong := [verb for verb in arguments.verbs if verb not in VERBS]:
        print(f"verify-all: VERIFY names {' '.join(wrong)}, which is none of: {' '.join(VERBS)}", file=sys.stderr)
        return 2
    folder = root / ".verify"
    folder.mkdir(exist_ok=True)
    known = _known(folder)
    commit, failed = _commit(root), False
    for verb in arguments.verbs or VERBS:
        before = known.get(verb)
        if arguments.resume and before is not None and before.passed and before.commit == commit:
            print(f"verify-all: make {verb} passed at {commit} before", flush=True)
            continue
        if verb not in made(root / "Makefile"):
            print(f"verify-all: there is no make {verb} yet", flush=True)
            continue
        run = known[verb] = _run(verb, root, folder / f"{verb}.log", commit)
        failed |= not run.passed
        (folder / "runs.json").write_text(json.dumps([one._asdict() for one in known.values()], indent=1))
        if arguments.page:
            write(arguments.page, known)
        print(f"verify-all: make {verb}: {run.result}, {run.minutes:.1f} minutes", flush=True)
    print(table(known), flush=True)
    return int(failed)


def made(makefile: Path) -> list[str]:
    """The verbs of a Makefile: those that say what they are for."""
    return re.findall(r"^([a-z0-9-]+):.*## ", makefile.read_text(), re.MULTILINE)


def table(known: Mapping[str, Run]) -> str:
    """The last run of each verb, and which never ran."""
    never = [verb for verb in VERBS if verb not in known]
    told = f"\nDid not run: {', '.join(f'`{verb}`' for verb in never)}.\n" if never else ""
    return _COLUMNS + "".join(known[verb].line for verb in VERBS if verb in known) + told


def write(page: Path, known: Mapping[str, Run]) -> None:
    """Renew the page's table; all above it stays."""
    above, _, _ = page.read_text().partition(_HEAD)
    page.write_text(f"{above}{_HEAD}\n{table(known)}")


def told(code: int, said: str) -> str:
    """A result in words: how many tests passed and did not, over all of pytest's runs in it, and some that failed."""
    counts: dict[str, int] = {}
    for line in _COUNTS.findall(said):
        for number, word in _COUNT.findall(line):
            counts[word] = counts.get(word, 0) + int(number)
    for word in ("warning", "warnings"):
        counts.pop(word, None)
    listed = ", ".join(f"{number} {word}" for word, number in counts.items())
    if code == 0:
        return f"passed: {listed}" if listed else "passed"
    names = list(dict.fromkeys(_FAILED.findall(said)))
    named = [f"`{name}`" for name in names[:_MOST_NAMED]] + (
        [f"{len(names) - _MOST_NAMED} more"] * (len(names) > _MOST_NAMED)
    )
    return "; ".join(part for part in (f"failed (exit code {code})", listed, ", ".join(named)) if part)


def _run(verb: str, root: Path, log: Path, commit: str) -> Run:
    began, started = datetime.now(UTC), time.monotonic()
    print(f"verify-all: make {verb}", flush=True)
    said = []
    with (
        log.open("w") as kept,
        subprocess.Popen(
            ["make", verb], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        for line in _lines(process):
            print(line, end="", flush=True)
            kept.write(line)
            said.append(line)
    minutes = (time.monotonic() - started) / 60
    result = told(process.returncode, "".join(said))
    return Run(verb, f"{began:%Y-%m-%d %H:%M}", minutes, result, commit, machine())


def _lines(process: subprocess.Popen[str]) -> Iterable[str]:
    return process.stdout or ()


def _known(folder: Path) -> dict[str, Run]:
    path = folder / "runs.json"
    if not path.exists():
        return {}
    return {one["verb"]: Run(**one) for one in json.loads(path.read_text())}


def _commit(root: Path) -> str:
    argv = ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def machine() -> str:
    """Kernel and processors."""
    return f"{platform.release()}, {os.cpu_count()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
