"""Removes what launchers left that were killed."""

from __future__ import annotations

from pathlib import Path

from services.launcher import child
from services.launcher import session as sessions
from services.runtime.errors import PodloxxError
from services.runtime.log import get_logger

_log = get_logger(__name__)


def clean(here: Path | None = None) -> list[str]:
    """Remove the network namespaces and folders of dead sessions; their names.

    With `here`, the folder of the caller's own session, also namespaces of which no folder tells
    whose they are, unless a process lives in them. What cannot be removed stays for the next start.
    Enters namespaces: not for the event loop's thread.
    """
    removed: list[str] = []
    if "sys_admin" in child.effective():
        try:
            removed += _clean_worlds(here)
        except PodloxxError as error:
            _log.warning("leftovers-stay", error=str(error))
    removed += sessions.clean()
    if removed:
        _log.info("cleaned-up", removed=removed)
    return removed


def _clean_worlds(here: Path | None) -> list[str]:
    # Only here: the demo's world is Linux through and through.
    from services.launcher.demo import session as worlds

    inhabited = (lambda _: True) if here is None else worlds.alive_by(here)

    def alive(name: str) -> bool:
        known = sessions.alive(name)
        return inhabited(name) if known is None else known

    return worlds.clean_leftovers(alive)
