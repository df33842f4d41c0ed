"""The wall clock of one program, which a test steps while it runs."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_suffix(".c")
_FORMAT: Final = struct.Struct("=q")


class SteppedClock:
    """Programs that are started with `environment` read the machine's time and what was added to it here."""

    def __init__(self, folder: Path) -> None:
        self._library, self._file = folder / "stepped_clock.so", folder / "stepped_clock"
        command = ("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", self._library, _SOURCE)
        subprocess.run(command, check=True)
        self._file.write_bytes(_FORMAT.pack(0))
        with self._file.open("r+b") as opened:
            self._added = mmap.mmap(opened.fileno(), _FORMAT.size)

    @property
    def environment(self) -> dict[str, str]:
        """What a program is started with."""
        return {"LD_PRELOAD": str(self._library), "STEPPED_CLOCK": str(self._file)}

    def step(self, seconds: float) -> None:
        """Step on (or back, where it is negative) at once."""
        [added] = _FORMAT.unpack(self._added[:])
        # As one store: it is read meanwhile.
        self._added[:] = _FORMAT.pack(added + int(seconds * 1_000_000))

    def close(self) -> None:
        """Let go of the file."""
        self._added.close()
