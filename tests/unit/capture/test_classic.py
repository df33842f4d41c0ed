"""Which frames a classic filter keeps, by an interpreter of the few instructions that it uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.sources import classic
from services.capture.sources.classic import Instruction
from services.runtime.errors import PodloxxError

LENGTH, INTERFACE, EQUAL, GREATER, JUMP, RETURN = 0x80, 0x20, 0x15, 0x25, 0x05, 0x06


def kept(program: tuple[Instruction, ...], *, interface: int, length: int) -> int:
    """How many bytes of a frame the kernel would keep."""
    at = accumulator = 0
    while True:
        operation, if_true, if_false, operand = program[at]
        at += 1
        match operation:
            case 0x80:
                accumulator = length
            case 0x20:
                accumulator = interface
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x25:
                at += if_true if accumulator > operand else if_false
            case 0x05:
                at += operand
            case 0x06:
                return operand
            case _:
                raise AssertionError(operation)


@given(st.sets(st.integers(1, 5000), max_size=300), st.integers(1, 5000))
def test_only_frames_of_these_interfaces_are_kept(indexes: set[int], other: int) -> None:
    program = classic.of_interfaces(sorted(indexes))
    for index in [*list(indexes)[:20], other]:
        assert bool(kept(program, interface=index, length=60)) == (index in indexes)


@pytest.mark.parametrize(("length", "bytes_kept"), [(60, 256), (512, 256), (513, 128), (65000, 128)])
def test_of_large_frames_less_is_kept(length: int, bytes_kept: int) -> None:
    assert kept(classic.HEADERS, interface=1, length=length) == bytes_kept
    assert kept(classic.of_interfaces([1]), interface=1, length=length) == bytes_kept


def test_too_many_interfaces_are_refused_with_the_way_out() -> None:
    with pytest.raises(PodloxxError, match="900 interfaces are too many for the source ring: use --capture socket"):
        classic.of_interfaces(range(1, 901))
