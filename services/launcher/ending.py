"""What CTRL+C means while something is in a cluster: the first ends in order, the second says what is left to do by hand."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECOND, _THIRD = 2, 3
_CODE = 130


class Ending:
    """Hears the signals that ask for the end.

    `requested` is set by the first one, `at_once` by the second; the third ends the process wherever it is.
    """

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.at_once = asyncio.Event()
        self.by_hand = ""
        """What is to be done by hand if nobody waits for the end."""
        self.on_hurry: Callable[[], None] = lambda: None
        """Called when nobody wants to wait any longer."""
        self._asked = 0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear signals while inside."""
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        # Under nohup the terminal may go; elsewhere than on Unix there is no such signal.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            try:
                loop.add_signal_handler(number, self._ask)
            except NotImplementedError:
                # On Windows.
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._ask))
        try:
            yield
        finally:
            for number in numbers:
                try:
                    loop.remove_signal_handler(number)
                except NotImplementedError:
                    signal.signal(number, signal.SIG_DFL)

    def _ask(self) -> None:
        self._asked += 1
        self.requested.set()
        if self._asked == 1:
            print("\nending; once more CTRL+C does not wait", file=sys.stderr, flush=True)
        elif self._asked == _SECOND:
            self.at_once.set()
            self.on_hurry()
        elif self._asked >= _THIRD:
            print(f"\npodloxx: ended at once. {self.by_hand}", file=sys.stderr, flush=True)
            os._exit(_CODE)
