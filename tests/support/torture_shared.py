"""A rig that several deeds use one after the other."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.torture_rig import RIVAL, Rig, rig


class Shared:
    """A seed's rig, for one deed after the other; a new one after a deed that failed."""

    def __init__(self, seed: int, *, fresh: bool) -> None:
        self._seed = seed
        self._fresh = fresh
        self._rig: Rig | None = None
        self._stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def use(self) -> Iterator[Rig]:
        """The rig, with one aggregator."""
        if self._rig is None:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="plx")))
            # Services run as users of their own.
            folder.chmod(0o755)
            self._rig = self._stack.enter_context(rig(folder, self._seed))
        whole = False
        try:
            yield self._rig
            self._rig.services[RIVAL].kill()
            self._rig.did.clear()
            whole = not self._fresh
        finally:
            if not whole:
                self.close()

    def close(self) -> None:
        """End it."""
        self._rig = None
        self._stack.close()
