"""Columns of numbers as bytes: each as narrow as its largest number allows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_WIDTHS: Final = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def narrow(values: npt.NDArray[Any]) -> list[Any]:
    """A column of unsigned numbers as [bytes per value, values]; an all-zero column, which is common, as [0, b""]."""
    most = int(values.max(initial=0))
    if most == 0:
        return [0, b""]
    width = next(width for width in _WIDTHS if most < 1 << (8 * width))
    return [width, values.astype(_WIDTHS[width]).tobytes()]


def wide(entry: object, count: int) -> npt.NDArray[Any]:
    """What `narrow` made of `count` numbers; raises ValueError where it is something else."""
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], bytes):
        raise ValueError("is missing or malformed")
    width, data = entry
    if width == 0 and data == b"":
        return np.zeros(count, np.uint8)
    if type(width) is not int or width not in _WIDTHS or len(data) != width * count:
        raise ValueError(f"has not the length of {count} rows")
    return np.frombuffer(data, _WIDTHS[width])
