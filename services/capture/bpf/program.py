"""Reads compiled programs from their object file and ties them to maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from struct import Struct, pack_into
from typing import Final

OBJECT: Final = "flow.bpf.o"
_HEADER: Final = Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = Struct("<IIQQQQIIQQ")
_SYMBOL: Final = Struct("<IBBHQQ")
_RELOCATION: Final = Struct("<QQ")
_MACHINE_BPF: Final = 247
_PROGBITS, _SYMTAB, _REL = 1, 2, 9
_EXECUTABLE: Final = 4
_LOAD_64: Final = 0x18
_MAP_FD: Final = 1
_R_BPF_64_64: Final = 1


@dataclass(frozen=True, slots=True)
class Program:
    """A program's instructions, and where in them which map is meant."""

    instructions: bytes
    maps: tuple[tuple[int, str], ...]

    def tied(self, fds: Mapping[str, int]) -> bytes:
        """The instructions with the maps' file descriptors in place."""
        code = bytearray(self.instructions)
        for at, name in self.maps:
            code[at + 1] = code[at + 1] & 0x0F | _MAP_FD << 4
            pack_into("<i", code, at + 4, fds[name])
        return bytes(code)


def programs() -> dict[str, Program]:
    """The programs of the built object, by section."""
    return parse(files("services.capture.bpf").joinpath(OBJECT).read_bytes())


def parse(data: bytes) -> dict[str, Program]:
    """The programs of an object file; raises ValueError where it is none of ours."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no little-endian 64-bit ELF file")
    header = _HEADER.unpack_from(data)
    machine, offset, count, names_at = header[2], header[6], header[12], header[13]
    if machine != _MACHINE_BPF:
        raise ValueError(f"an object for machine {machine}, not for BPF")
    sections = [_SECTION.unpack_from(data, offset + at * _SECTION.size) for at in range(count)]

    def text(table: int, at: int) -> str:
        start = sections[table][4] + at
        return data[start : data.index(b"\0", start)].decode()

    symbols = next(section for section in sections if section[1] == _SYMTAB)
    names = [
        text(symbols[6], _SYMBOL.unpack_from(data, at)[0])
        for at in range(symbols[4], symbols[4] + symbols[5], _SYMBOL.size)
    ]
    found = {}
    for number, section in enumerate(sections):
        if section[1] == _PROGBITS and section[2] & _EXECUTABLE and section[5]:
            maps: list[tuple[int, str]] = []
            for other in sections:
                if other[1] == _REL and other[7] == number:
                    maps += _relocations(data, other[4], other[5], section[4], names)
            code = data[section[4] : section[4] + section[5]]
            found[text(names_at, section[0])] = Program(code, tuple(maps))
    return found


def _relocations(data: bytes, start: int, size: int, code: int, names: list[str]) -> list[tuple[int, str]]:
    found = []
    for at in range(start, start + size, _RELOCATION.size):
        where, info = _RELOCATION.unpack_from(data, at)
        if info & 0xFFFFFFFF != _R_BPF_64_64 or data[code + where] != _LOAD_64:
            raise ValueError("a relocation that is not a map's")
        found.append((where, names[info >> 32]))
    return found
