"""Limits of this process, lowered for a while."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

_NUMBERS = 256


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Inside, no file or socket can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NUMBERS, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in taken:
            os.close(number)
