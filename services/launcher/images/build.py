"""Builds the images, without a network once the wheelhouse is filled."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import services
from services.launcher.images import names, wheelhouse
from services.launcher.images.engine import Engine
from services.runtime.errors import PodloxxError


def base_of(source: Path) -> str:
    """The base image that the Dockerfile names."""
    match = re.search(r"^ARG BASE=(\S+)$", (source / "Dockerfile").read_text(), re.MULTILINE)
    if match is None:
        raise PodloxxError(f"{source / 'Dockerfile'} names no base: it needs a line ARG BASE=IMAGE")
    return match[1]


def build(source: Path, arch: str, engine: Engine, prefix: str) -> Mapping[str, str]:
    """Build the image of every service; their names by service. Says how long each took, and its size."""
    base = base_of(source)
    started = time.monotonic()
    wheelhouse.prepare(source, arch, engine, base)
    print(f"images: the wheelhouse is filled, {time.monotonic() - started:.0f} s", flush=True)
    built = names.images(prefix)
    for service, name in built.items():
        started = time.monotonic()
        engine.run(
            *("build", "--network=none", f"--platform=linux/{arch}", f"--target={service}", f"--tag={name}"),
            *(f"--build-arg=VERSION={services.__version__}", str(source)),
            what=f"building {name}",
        )
        size = int(engine.inspected(name, "{{.Size}}")) / 1e6
        print(f"images: {name}, {size:.0f} MB unpacked, {time.monotonic() - started:.0f} s", flush=True)
    return built


def save(engine: Engine, built: Mapping[str, str], archive: Path) -> None:
    """Write all images into one archive, as `docker load` and `ctr image import` take it; whole or not at all."""
    part = archive.with_name(archive.name + ".part")
    try:
        # Podman keeps one image in an archive unless told otherwise.
        several = ["--multi-image-archive"] if engine.program == "podman" else []
        engine.run("save", *several, "--output", str(part), *built.values(), what=f"saving the images as {archive}")
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    print(f"images: saved as {archive}, {archive.stat().st_size / 1e6:.0f} MB", flush=True)
