"""The committed program is what its source gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from services.capture.bpf import program

ROOT = Path(__file__).parents[2]
OBJECT = ROOT / "services" / "capture" / "bpf" / program.OBJECT


@pytest.mark.skipif(shutil.which("clang-14") is None, reason="without clang-14 (see `make bpf`) nothing can be rebuilt")
def test_building_it_again_gives_the_same(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "bpf", f"BPF_OBJECT={tmp_path / 'built.o'}"], cwd=ROOT, check=True)
    assert (tmp_path / "built.o").read_bytes() == OBJECT.read_bytes(), "run `make bpf` and commit the object"


def test_the_object_has_the_programs_and_names_the_maps_that_the_source_fills_in() -> None:
    built = program.programs()
    assert set(built) == {"socket", "socket/ip"}
    for one in built.values():
        assert {name for _, name in one.maps} == {"flows4", "flows6", "links", "folded"}
        assert len(one.instructions) % 8 == 0
        # Kernels before 5.2 take no longer ones.
        assert len(one.instructions) // 8 <= 4096
