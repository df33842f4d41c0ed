"""The container engine that builds and keeps images: Docker, else Podman."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.runtime.errors import PodloxxError, UsageError

PROGRAMS: Final = ("docker", "podman")
_SHOWN: Final = 30
"""Lines of a failed command's output: what went wrong stands at its end."""


class CommandError(PodloxxError):
    """A program that does the work failed."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers, by its command line."""

    program: str

    def run(self, *arguments: str, what: str, shown: bool = False) -> None:
        """Do something; what it says is kept for the case of failure, or `shown`."""
        call([self.program, *arguments], what, shown=shown)

    def output(self, *arguments: str, what: str) -> bytes:
        """What a command prints."""
        return call([self.program, *arguments], what)

    def has(self, image: str) -> bool:
        """Whether the engine has an image of this name."""
        argv = [self.program, "image", "inspect", image]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def inspected(self, image: str, template: str) -> str:
        """A field of an image, as a Go template names it."""
        words = self.output("image", "inspect", "--format", template, image, what=f"looking at the image {image}")
        return words.decode().strip()


def found(program: str = "") -> Engine:
    """The engine to use: `program`, else the first of Docker and Podman that answers; raises with what to do."""
    reasons = []
    for name in (program,) if program else PROGRAMS:
        reason = _hindrance(name)
        if not reason:
            return Engine(name)
        reasons.append(reason)
    if program:
        raise UsageError(f"--engine {program}: {reasons[0]}")
    if all("is not installed" in reason for reason in reasons):
        raise PodloxxError("images are built by a container engine, and there is none here: install Docker or Podman")
    raise PodloxxError("; ".join(reason for reason in reasons if "is not installed" not in reason))


def call(argv: Sequence[str], what: str, *, shown: bool = False) -> bytes:
    """What a program prints; raises CommandError with the end of its errors.

    No time-out: pulling and pushing take as long as the network does, and CTRL+C ends both.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=None if shown else subprocess.PIPE,
            stderr=None if shown else subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise CommandError(f"{what}: cannot run {argv[0]}: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or b"") + (b"" if done.stderr else done.stdout or b"")
        lines = said.decode(errors="replace").rstrip().splitlines()[-_SHOWN:]
        told = "".join(f"\n  {line}" for line in lines) if lines else ""
        raise CommandError(f"{what} failed: `{' '.join(argv[:3])} …` ended with {done.returncode}{told}")
    return done.stdout or b""


def _hindrance(program: str) -> str:
    """Why this engine cannot be used; empty where it can."""
    if shutil.which(program) is None:
        return f"{program} is not installed: install it, or choose the other engine with --engine"
    asked = subprocess.run([program, "info"], capture_output=True, text=True, check=False)
    # Docker's client prints what it knows of itself, and ends well, also where no engine answers.
    said = asked.stderr.strip().splitlines()
    if asked.returncode or any("connect" in line for line in said):
        why = said[-1] if said else f"`{program} info` ended with {asked.returncode}"
        return f"{program} is installed, but its engine does not answer ({why}): start it, or set DOCKER_HOST"
    if program == "docker":
        plugin = subprocess.run([program, "buildx", "version"], capture_output=True, check=False)
        if plugin.returncode:
            return "docker is installed without BuildKit: install its plugin buildx (package docker-buildx-plugin)"
    return ""
