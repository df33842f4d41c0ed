"""Reading object files that are ours, and refusing others."""

from __future__ import annotations

import struct
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.bpf import program


def built() -> bytes:
    return files("services.capture.bpf").joinpath(program.OBJECT).read_bytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no little-endian 64-bit ELF"),
        (b"\x7fELF\x01\x01" + bytes(60), "no little-endian 64-bit ELF"),
        (built()[:18] + struct.pack("<H", 62) + built()[20:], "an object for machine 62, not for BPF"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        program.parse(data)


@given(st.integers(1, 2**31 - 1))
def test_a_tied_program_names_its_maps_by_descriptor(fd: int) -> None:
    one = program.programs()["socket"]
    tied = one.tied(dict.fromkeys((name for _, name in one.maps), fd))
    assert len(tied) == len(one.instructions)
    for at, _ in one.maps:
        opcode, registers, _, value = struct.unpack_from("<BBhi", tied, at)
        assert (opcode, registers >> 4, value) == (0x18, 1, fd)


def test_a_map_that_is_not_given_is_an_error() -> None:
    with pytest.raises(KeyError):
        program.programs()["socket"].tied({})
