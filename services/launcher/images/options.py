"""`podloxx-launch images`: what can be asked for, and what is done then."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from services.launcher.images import build, deliver, sbom, wheelhouse
from services.launcher.images.engine import PROGRAMS, found
from services.launcher.images.names import DEFAULT_PREFIX, checked
from services.runtime.errors import UsageError

_ACTIONS: Final = ("build", "load", "push", "wheelhouse")
_USED_BY: Final = {
    "save": ("build",),
    "sbom": ("build",),
    "source": ("build", "wheelhouse"),
    "platform": ("build", "wheelhouse"),
    "to": ("load",),
    "cluster": ("load",),
    "file": ("load",),
}
"""What options are of no use with other actions."""


def add(command: argparse.ArgumentParser) -> None:
    """Add the options of `images`."""
    command.add_argument(
        "action",
        choices=_ACTIONS,
        metavar="ACTION",
        help="build, load, push, or wheelhouse: only fetch what build needs",
    )
    prefix(command)
    command.add_argument("--engine", choices=PROGRAMS, help="which container engine (default: the first that answers)")
    command.add_argument("--source", metavar="FOLDER", help="checkout to build from (default: the one that runs)")
    command.add_argument("--platform", metavar="ARCH", help="amd64 or arm64 (default: this machine's)")
    command.add_argument("--save", metavar="FILE", help="also write all images into one archive")
    command.add_argument("--sbom", metavar="FOLDER", help="also write what is in each image, as CycloneDX")
    command.add_argument("--to", choices=tuple(deliver.TARGETS), help="kind of the cluster to load into")
    command.add_argument(
        "--cluster", metavar="NAME", help="which cluster or profile; for ctr the address of containerd"
    )
    command.add_argument("--file", metavar="FILE", help="load this archive, not what the engine has")


def prefix(command: argparse.ArgumentParser) -> None:
    """Add the option that says what images are called, for every command that names one."""
    command.add_argument(
        "--image-prefix",
        default=DEFAULT_PREFIX,
        metavar="PREFIX",
        help=f"images are PREFIX/SERVICE:VERSION (default: {DEFAULT_PREFIX})",
    )


def carry_out(arguments: argparse.Namespace) -> None:
    """Do what was asked for; raises PodloxxError."""
    action: str = arguments.action
    for option, users in _USED_BY.items():
        if getattr(arguments, option) is not None and action not in users:
            raise UsageError(f"--{option} is for images {' and '.join(users)}, not for images {action}")
    named = checked(arguments.image_prefix)
    chosen = arguments.engine or ""
    if action == "load":
        if arguments.to is None:
            raise UsageError(f"images load needs --to: one of {', '.join(deliver.TARGETS)}")
        deliver.load(arguments.to, arguments.cluster or "", lambda: found(chosen), arguments.file or "", named)
    elif action == "push":
        deliver.push(lambda: found(chosen), named)
    else:
        _made(arguments, chosen, named)


def _made(arguments: argparse.Namespace, chosen: str, named: str) -> None:
    source = wheelhouse.checkout(arguments.source or "")
    if arguments.sbom is not None:
        sbom.available()
    arch = arguments.platform or wheelhouse.architecture()
    engine = found(chosen)
    if arguments.action == "wheelhouse":
        folder = wheelhouse.prepare(source, arch, engine, build.base_of(source))
        print(f"images: {folder} is filled", flush=True)
        return
    built = build.build(source, arch, engine, named)
    if arguments.sbom is not None:
        for service, image in built.items():
            path = sbom.write(engine, service, image, Path(arguments.sbom))
            print(f"images: {path}", flush=True)
    if arguments.save is not None:
        build.save(engine, built, Path(arguments.save))
