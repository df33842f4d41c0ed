"""The bpf() system call, as far as capturing needs it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from enum import IntEnum
from struct import Struct
from typing import Final

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 1, 2, 3, 5
_LINK_CREATE = 28
MMAPABLE: Final = 1 << 10
"""Flag of arrays that can be mapped into a process, since Linux 5.5."""
_MAP: Final = Struct("=7I16sI")
_ELEMENT: Final = Struct("=IIQQQ")
_PROGRAM: Final = Struct("=IIQQIIQII16sII")
_LINK: Final = Struct("=IIIIIIQ")
_LOG_BYTES: Final = 1 << 20
_LOG_SHOWN: Final = 500

_libc: Final = ctypes.CDLL(None, use_errno=True)


class MapType(IntEnum):
    """Kinds of maps, by the kernel's numbers."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    ARRAY_OF_MAPS = 12


class ProgramType(IntEnum):
    """Kinds of programs, by the kernel's numbers."""

    SOCKET_FILTER = 1
    SCHED_CLS = 3
    CGROUP_SKB = 8


def call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The result of one call, and the attributes as the kernel left them; raises OSError."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf() is not known on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(number, command, buffer, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result), buffer.raw


def create_map(
    kind: MapType, key_bytes: int, value_bytes: int, entries: int, *, flags: int = 0, inner: int = 0, name: str = ""
) -> int:
    """A file descriptor of a new map; `inner` is one like those that a map of maps holds."""
    attributes = _MAP.pack(kind, key_bytes, value_bytes, entries, flags, inner, 0, name.encode()[:15], 0)
    return call(_MAP_CREATE, attributes)[0]


def update(fd: int, key: bytes, value: bytes) -> None:
    """Set an entry. Of a map of maps: returns once no program uses the map that was there before."""
    attributes, _buffers = _element(fd, key, value)
    call(_MAP_UPDATE, attributes)


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """An entry's value; None where there is none."""
    attributes, buffers = _element(fd, key, bytes(value_bytes))
    try:
        call(_MAP_LOOKUP, attributes)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return buffers[1].raw


def delete(fd: int, key: bytes) -> None:
    """Remove an entry; one that is not there is removed already."""
    attributes, _buffers = _element(fd, key, None)
    try:
        call(_MAP_DELETE, attributes)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def load(kind: ProgramType, instructions: bytes, name: str) -> int:
    """A file descriptor of a loaded program; raises OSError with the last words of the verifier."""
    try:
        return _load(kind, instructions, name, None)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOSYS}:
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return _load(kind, instructions, name, log)
        except OSError as again:
            said = log.value.decode(errors="replace").strip()[-_LOG_SHOWN:]
            raise OSError(again.errno, f"{again.strerror}: {said}" if said else again.strerror) from None


def attach_tcx(program: int, index: int, attach_type: int) -> int:
    """A file descriptor of a link that holds a program on an interface until it is closed."""
    # BPF_F_BEFORE without another program: first of all. At the tail, behind one that ends
    # the chain, it would see nothing.
    return call(_LINK_CREATE, _LINK.pack(program, index, attach_type, _BEFORE, 0, 0, 0))[0]


_BEFORE: Final = 1 << 3


def attach_cgroup(program: int, directory: int, attach_type: int) -> int:
    """A file descriptor of a link that holds a program on a control group, beside others', until it is closed.

    `directory` is a descriptor of the group's, for which reading is enough.
    """
    return call(_LINK_CREATE, _LINK.pack(program, directory, attach_type, 0, 0, 0, 0))[0]


def _load(kind: ProgramType, instructions: bytes, name: str, log: ctypes.Array[ctypes.c_char] | None) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    terms = ctypes.create_string_buffer(b"GPL")
    attributes = _PROGRAM.pack(
        kind,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(terms),
        0 if log is None else 1,
        0 if log is None else len(log),
        0 if log is None else ctypes.addressof(log),
        0,
        0,
        name.encode()[:15],
        0,
        0,
    )
    return call(_PROG_LOAD, attributes)[0]


def _element(fd: int, key: bytes, value: bytes | None) -> tuple[bytes, list[ctypes.Array[ctypes.c_char]]]:
    """The attributes of a call on one entry, and the buffers to which they point: keep both."""
    buffers = [ctypes.create_string_buffer(part, max(len(part), 1)) for part in (key, value or b"")]
    # What a command does not use must be zero.
    at = 0 if value is None else ctypes.addressof(buffers[1])
    return _ELEMENT.pack(fd, 0, ctypes.addressof(buffers[0]), at, 0), buffers
