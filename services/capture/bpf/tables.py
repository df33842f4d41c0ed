"""The kernel's tables of flows as arrays that it shares with us: two halves, of which one is filled while the other is read."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.capture.bpf import syscall
from services.capture.bpf.syscall import MapType
from services.flows.delta import InterfaceCounters

# The shapes of flow.bpf.c.
_ABOUT: Final[list[tuple[str, str]]] = [
    ("source_port", ">u2"),
    ("destination_port", ">u2"),
    ("attachment", "=u4"),
    ("protocol", "u1"),
    ("meta", "u1"),
    ("unused", "=u2"),
    ("syns", "=u4"),
]
_COUNTS: Final[list[tuple[str, str]]] = [
    ("bytes", "=u8"),
    ("repeated", "=u8"),
    ("packets", "=u4"),
    ("segments", "=u4"),
]
ROW4: Final = np.dtype([("source", ">u4"), ("destination", ">u4"), *_ABOUT, *_COUNTS])
ROW6: Final = np.dtype(
    [(f"{end}_{word}", ">u8") for end in ("source", "destination") for word in ("hi", "lo")] + _ABOUT + _COUNTS
)
EXCESS: Final = np.dtype([*_COUNTS, ("syns", "=u8")])
_TABLE: Final = np.dtype(
    [(name, "=u4") for name in ("first_bucket", "bucket_mask", "first_row", "rows", "used", "unused")]
)
_REGION: Final = np.dtype([("seed", "=u8"), ("table4", _TABLE), ("table6", _TABLE), ("unused", "=u8")])
_BUCKET: Final = np.dtype(("=u8", 8))
assert (ROW4.itemsize, ROW6.itemsize, EXCESS.itemsize, _REGION.itemsize) == (48, 72, 32, 64)

_PER_BUCKET: Final = 4
"""Rows for each bucket of eight places. Of a table that is full to the last row 2 % of the flows
find their first bucket full, and 0.1 % their second one as well: these are folded."""
_LEAST_ROWS: Final = 4096
_HALVES: Final = 2
_TO_POD: Final = 1
"""The bit of `meta` that says so."""
_FIRST: Final = (0).to_bytes(4, "little")

Array = npt.NDArray[Any]


class Tables:
    """Room for `capacity` flows per family, divided among the processors that are on.

    Each processor has at least 4,096 (or `capacity`, where that is less), as all traffic may pass
    through a few of many. A row and its places take 64 bytes for IPv4 and 88 for IPv6, in each
    half. Raises OSError where the kernel refuses.
    """

    def __init__(self, capacity: int) -> None:
        self._processors = _processors("online")
        count, possible = len(self._processors), max(_processors("possible")) + 1
        self._rows = max(-(-capacity // count), min(capacity, _LEAST_ROWS))
        self._per_table = 1 << max(self._rows // _PER_BUCKET - 1, 0).bit_length()
        self._maps: dict[str, int] = {}
        self._mapped: dict[str, mmap.mmap] = {}
        self._active = 0
        self._regions: list[Array] = []
        self._arrays: dict[str, Array] = {}
        try:
            for half in range(_HALVES):
                self._regions.append(self._shared(f"regions{half}", possible, _REGION))
                self._lay_out(half)
            for family, row in (("4", ROW4), ("6", ROW6)):
                self._arrays[f"rows{family}"] = self._shared(f"rows{family}", _HALVES * count * self._rows, row)
                buckets = _HALVES * count * self._per_table
                self._arrays[f"buckets{family}"] = self._shared(f"buckets{family}", buckets, _BUCKET)
            inner = self._maps["regions0"]
            self._maps["half"] = syscall.create_map(MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=inner, name="podloxx_half")
            syscall.update(self._maps["half"], _FIRST, inner.to_bytes(4, "little"))
        except BaseException:
            self.close()
            raise

    @property
    def maps(self) -> dict[str, int]:
        """The maps' file descriptors by the names that the programs know."""
        return {name: fd for name, fd in self._maps.items() if not name.startswith("regions")}

    def take(self) -> tuple[Array, Array]:
        """What was counted since the last call, as `ROW4` and `ROW6`; waits for programs that run (10 ms)."""
        idle, self._active = self._active, self._active ^ 1
        other = self._maps[f"regions{self._active}"]
        # Returns once no program still uses the half that it replaces.
        syscall.update(self._maps["half"], _FIRST, other.to_bytes(4, "little"))
        return self._emptied(idle, "4"), self._emptied(idle, "6")

    def counted(self, attachment: int) -> InterfaceCounters:
        """What the half that is being filled has of an attachment; no `take` may run meanwhile."""
        sums = np.zeros(4, np.int64)
        for family in ("4", "6"):
            for rows in self._filled(self._active, family):
                of = rows[rows["attachment"] == attachment]
                received = (of["meta"] & _TO_POD).astype(bool)
                for at, side in ((0, of[~received]), (2, of[received])):
                    sums[at] += side["bytes"].sum(dtype=np.int64)
                    sums[at + 1] += side["packets"].sum(dtype=np.int64)
        return InterfaceCounters(*sums.tolist())

    def _filled(self, half: int, family: str) -> Iterator[Array]:
        """The rows of each processor that are in use."""
        rows = self._arrays[f"rows{family}"]
        for processor in self._processors:
            table = self._regions[half][processor][f"table{family}"]
            first, used = int(table["first_row"]), int(table["used"])
            if used:
                yield rows[first : first + used]

    def close(self) -> None:
        """Unmap and close; what was not taken is lost."""
        self._regions.clear()
        self._arrays.clear()
        while self._mapped:
            self._mapped.popitem()[1].close()
        while self._maps:
            os.close(self._maps.popitem()[1])

    def _emptied(self, half: int, family: str) -> Array:
        rows, buckets = self._arrays[f"rows{family}"], self._arrays[f"buckets{family}"]
        taken = []
        for processor in self._processors:
            table = self._regions[half][processor : processor + 1][f"table{family}"]
            used = int(table["used"][0])
            if used:
                first_row, first_bucket = int(table["first_row"][0]), int(table["first_bucket"][0])
                taken.append(rows[first_row : first_row + used])
                buckets[first_bucket : first_bucket + self._per_table] = 0
                table["used"] = 0
        # The copy matters: the half is filled again after the next swap. As bytes, because NumPy
        # would turn fields of network order round.
        return np.frombuffer(b"".join(part.data for part in taken), rows.dtype)

    def _lay_out(self, half: int) -> None:
        regions = self._regions[half]
        # Nobody outside is to know which flows meet in a bucket.
        regions["seed"] = secrets.randbits(64)
        for at, processor in enumerate(self._processors):
            place = half * len(self._processors) + at
            for family in ("table4", "table6"):
                table = regions[processor : processor + 1][family]
                table["first_bucket"], table["bucket_mask"] = place * self._per_table, self._per_table - 1
                table["first_row"], table["rows"] = place * self._rows, self._rows

    def _shared(self, name: str, entries: int, shape: np.dtype[Any]) -> Array:
        """A map of the kernel that is also an array here."""
        fd = self._maps[name] = syscall.create_map(
            MapType.ARRAY, 4, shape.itemsize, entries, flags=syscall.MMAPABLE, name=f"podloxx_{name}"
        )
        size = -(-entries * shape.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        self._mapped[name] = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        return np.frombuffer(self._mapped[name], shape.base, entries * (shape.itemsize // shape.base.itemsize)).reshape(
            entries, *shape.shape
        )


def possible_processors() -> int:
    """How many processors the kernel keeps per-processor values for."""
    return max(_processors("possible")) + 1


def _processors(which: str) -> list[int]:
    """Numbers of processors, from a list such as `0-3,8`."""
    text = Path(f"/sys/devices/system/cpu/{which}").read_text(encoding="ascii").strip()
    ends = [part.partition("-") for part in text.split(",")]
    return [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]
