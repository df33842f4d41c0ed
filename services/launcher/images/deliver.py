"""Brings images into a cluster that runs on this machine, or into a registry."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.launcher.images.build import save
from services.launcher.images.engine import Engine, call
from services.launcher.images.names import DEFAULT_PREFIX, images
from services.runtime.errors import PodloxxError, UsageError

_UNPUSHED: Final = "podloxx"
"""The prefix of a checkout: nobody's place in any registry."""


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of cluster: its program, and the command line that takes an archive into the cluster of a name."""

    program: str
    command: Callable[[str, str], list[str]]
    install: str


TARGETS: Final[Mapping[str, Target]] = {
    "kind": Target(
        "kind",
        lambda archive, cluster: ["load", "image-archive", archive, *_named("--name", cluster)],
        "install kind (kind.sigs.k8s.io)",
    ),
    "k3d": Target(
        "k3d",
        lambda archive, cluster: ["image", "import", archive, *_named("--cluster", cluster)],
        "install k3d (k3d.io)",
    ),
    "minikube": Target(
        "minikube",
        lambda archive, cluster: ["image", "load", archive, *_named("--profile", cluster)],
        "install minikube (minikube.sigs.k8s.io)",
    ),
    # The namespace in which a kubelet looks.
    "ctr": Target(
        "ctr",
        lambda archive, address: [*_named("--address", address), "--namespace", "k8s.io", "images", "import", archive],
        "it comes with containerd, and this is to run on the node itself",
    ),
}


def load(target: str, cluster: str, source: Callable[[], Engine], archive: str, prefix: str) -> None:
    """Bring the images of `archive`, else those that the engine of `source` has, into a cluster.

    `cluster` is its name, or for ctr the address of containerd; empty where there is but one.
    """
    chosen = TARGETS[target]
    if shutil.which(chosen.program) is None:
        raise PodloxxError(f"--to {target}: {chosen.program} is not on the PATH: {chosen.install}")
    with tempfile.TemporaryDirectory(prefix="podloxx-images-") as folder:
        taken = archive
        if not taken:
            taken = f"{folder}/images.tar"
            engine = source()
            save(engine, built(engine, prefix), Path(taken))
        elif not Path(taken).is_file():
            raise UsageError(f"--file {taken}: there is no such file; `images build --save {taken}` makes it")
        argv = [chosen.program, *chosen.command(taken, cluster)]
        call(argv, f"bringing the images into {target}")
    print(f"images: {target} has them", flush=True)


def push(source: Callable[[], Engine], prefix: str) -> None:
    """Push every image that the engine of `source` has to the registry that the prefix names."""
    if prefix == _UNPUSHED == DEFAULT_PREFIX:
        raise UsageError(
            "images push needs --image-prefix HOST/PATH, the place in your registry; "
            "`images build` and `start` need the same one"
        )
    engine = source()
    for name in built(engine, prefix).values():
        engine.run("push", name, what=f"pushing {name}", shown=True)


def built(engine: Engine, prefix: str) -> Mapping[str, str]:
    """The names of all images; raises UsageError where one is missing."""
    named = images(prefix)
    for name in named.values():
        if not engine.has(name):
            raise UsageError(
                f"{engine.program} has no image {name}: `podloxx-launch images build --image-prefix {prefix}` makes it"
            )
    return named


def _named(flag: str, value: str) -> list[str]:
    return [flag, value] if value else []
