"""The committed program is what its source gives."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from services.capture.bpf import program

MAPS = {"half", "rows4", "rows6", "buckets4", "buckets6", "links", "crowded", "folded"}
ROOT = Path(__file__).parents[2]
OBJECT = ROOT / "services" / "capture" / "bpf" / program.OBJECT


HEADERS = {
    "this machine": Path(f"/usr/include/{platform.machine()}-linux-gnu"),
    "x86_64": Path("/usr/include/x86_64-linux-gnu"),
    "arm64": Path("/usr/aarch64-linux-gnu/include"),
}


@pytest.mark.skipif(shutil.which("clang-14") is None, reason="without clang-14 (see `make bpf`) nothing can be rebuilt")
@pytest.mark.parametrize("machine", HEADERS)
def test_building_it_again_gives_the_same_for_every_machine(tmp_path: Path, machine: str) -> None:
    headers = HEADERS[machine]
    if not (headers / "asm").is_dir():
        pytest.skip(f"without clang-14's headers for {machine} ({headers.parts[2]}) it cannot be rebuilt for it")
    built = tmp_path / "built.o"
    subprocess.run(["make", "-s", "bpf", f"BPF_OBJECT={built}", f"BPF_HEADERS={headers}"], cwd=ROOT, check=True)
    assert built.read_bytes() == OBJECT.read_bytes(), "run `make bpf` and commit the object"


def test_the_object_has_the_programs_and_names_the_maps_that_the_sources_fill_in() -> None:
    built = program.programs()
    assert set(built) == {"socket", "tcx/ingress", "tcx/egress", "cgroup_skb/ingress", "cgroup_skb/egress"}
    for section, one in built.items():
        # A control group's number is its own.
        own = {"links", "crowded"} if section.startswith("cgroup_skb") else set()
        assert {name for _, name in one.maps} == MAPS - own
        assert len(one.instructions) % 8 == 0
        # Kernels before 5.2 take no longer ones.
        assert len(one.instructions) // 8 <= 4096
