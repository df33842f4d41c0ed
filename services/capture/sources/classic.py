"""Classic BPF for packet sockets: how much of which frames the kernel is to keep."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Final, TypeAlias

from services.runtime.errors import PodloxxError

Instruction: TypeAlias = tuple[int, int, int, int]
"""Operation, jump if true, jump if false, operand."""

SNAP_BYTES: Final = 256
"""Enough for every header that is parsed, but for rare chains of IPv6 extension headers."""
_SNAP_LARGE_BYTES: Final = 128
"""The same for large frames. The kernel gives the pages of a super-packet back at once where what
is left fits into the space behind its headers (up to 128 bytes, tried): then the buffer
holds twenty times as many."""
_LARGE_BYTES: Final = 512
_SO_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = Struct("=HBBI")
_PROGRAM: Final = Struct("@HP")
_MOST: Final = 4096
"""Instructions that the kernel takes, five for each interface."""
_LOAD_LENGTH, _LOAD, _IF_EQUAL, _IF_GREATER, _JUMP, _RETURN = 0x80, 0x20, 0x15, 0x25, 0x05, 0x06
_INTERFACE: Final = (1 << 32) - 0x1000 + 8
"""Where classic BPF keeps the index of the interface."""

_FOUND: Final[Instruction] = (_JUMP, 0, 0, _MOST)
"""Stands for the jump to the end of a search."""
HEADERS: Final[tuple[Instruction, ...]] = (
    (_LOAD_LENGTH, 0, 0, 0),
    (_IF_GREATER, 0, 1, _LARGE_BYTES),
    (_RETURN, 0, 0, _SNAP_LARGE_BYTES),
    (_RETURN, 0, 0, SNAP_BYTES),
)
"""Of every frame its headers."""
NOTHING: Final[tuple[Instruction, ...]] = ((_RETURN, 0, 0, 0),)


def of_interfaces(indexes: Sequence[int]) -> tuple[Instruction, ...]:
    """The headers of the frames of these interfaces (ascending); raises PodloxxError where they are too many."""
    if not indexes:
        return NOTHING
    search = _search(indexes)
    found = [
        # To where the search ends.
        (_JUMP, 0, 0, len(search) - at - 1) if one == _FOUND else one
        for at, one in enumerate(search)
    ]
    program = ((_LOAD, 0, 0, _INTERFACE), *found, *HEADERS)
    if len(program) > _MOST:
        raise PodloxxError(
            f"{len(indexes)} interfaces are too many for the source ring: use --capture socket, or grant "
            "CAP_BPF and CAP_PERFMON for --capture ebpf."
        )
    return program


def attach_filter(packets: socket.socket, program: Sequence[Instruction]) -> None:
    """Have the kernel keep as many bytes of each frame as the program returns."""
    code = b"".join(_INSTRUCTION.pack(*one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM.pack(len(program), ctypes.addressof(buffer)))


def _search(indexes: Sequence[int]) -> list[Instruction]:
    """A binary search that goes on at `_FOUND`, and ends with nothing elsewhere."""
    if len(indexes) == 1:
        return [(_IF_EQUAL, 0, 1, indexes[0]), _FOUND, *NOTHING]
    middle = len(indexes) // 2
    lower, upper = _search(indexes[:middle]), _search(indexes[middle:])
    # Conditional jumps reach no further than 255.
    return [(_IF_GREATER, 0, 1, indexes[middle - 1]), (_JUMP, 0, 0, len(lower)), *lower, *upper]
