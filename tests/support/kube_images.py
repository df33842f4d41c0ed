"""Images of what every cluster runs before any pod of a test, made without a registry or an engine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any, Final

PAUSE: Final = "localhost/plx-pause:1"
"""What holds a pod's namespaces."""
COREDNS: Final = "localhost/plx-coredns:1"
_PAUSE: Final = """
#include <signal.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;) pause();
}
"""
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPILE_S: Final = 60.0


def make(folder: Path, coredns: Path) -> Path:
    """An archive in `folder`, as `ctr images import` takes it; `coredns` is the program."""
    pause, source = folder / "pause", folder / "pause.c"
    source.write_text(_PAUSE)
    argv = ["gcc", "-static", "-Os", "-s", "-o", str(pause), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
    assert done.returncode == 0, f"gcc: {done.stderr}"
    archive = folder / "images.tar"
    manifest = []
    with tarfile.open(archive, "w") as tar:
        for name, program in ((PAUSE, pause), (COREDNS, coredns)):
            layer = _layer(folder / f"{program.name}.layer", program)
            tar.add(layer, layer.name)
            config = _config(layer, program.name)
            file_name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(tar, file_name, config)
            manifest.append({"Config": file_name, "RepoTags": [name], "Layers": [layer.name]})
            layer.unlink()
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return archive


def _layer(path: Path, program: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.add(program, program.name)
    return path


def _config(layer: Path, program: str) -> bytes:
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    config: dict[str, Any] = {
        "architecture": _MACHINES[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": [f"/{program}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    return json.dumps(config).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, BytesIO(content))
