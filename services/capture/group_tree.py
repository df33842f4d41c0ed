"""Follows the host's control groups as they are made and removed, by their ids."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from pathlib import Path
from struct import Struct
from typing import Final, Self

from services.capture.control_groups import Owner, owner_of
from services.runtime.log import get_logger

_log = get_logger(__name__)
_libc: Final = ctypes.CDLL(None, use_errno=True)
_EVENT: Final = Struct("=iIII")
_CREATE, _DELETE, _OVERFLOW, _ONLY_DIRECTORIES = 0x100, 0x200, 0x4000, 0x01000000
_READ_BYTES: Final = 1 << 16
_KEPT_S: Final = 60.0
"""How long a group that was removed is still known: its sockets may go on for a while."""
_MOST: Final = 65536
"""Groups that are known at once; others stay unknown."""


class GroupTree:
    """The groups below `root`; use as a context manager. One task owns it."""

    def __init__(self, root: Path, *, kept_s: float = _KEPT_S) -> None:
        self._root = root
        self._kept_s = kept_s
        self._events = -1
        self._watched: dict[int, tuple[str, ...]] = {}
        self._owners: dict[int, Owner] = {}
        self._ids: dict[tuple[str, ...], int] = {}
        self._removed: dict[int, float] = {}
        self._complete = True

    async def __aenter__(self) -> Self:
        self._events = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._events < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._meet(())
        # At once, since a group's id is to be had only as long as it is there.
        asyncio.get_running_loop().add_reader(self._events, self.look)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._events)
        os.close(self._events)

    def owner(self, number: int) -> Owner | None:
        """Who has, or had until some seconds ago, the group whose id has this low half."""
        return self._owners.get(number)

    def owners(self) -> frozenset[Owner]:
        """All of them that are there or were until some seconds ago."""
        return frozenset(self._owners.values())

    def present(self) -> frozenset[Owner]:
        """Those that are there."""
        return frozenset(owner for number, owner in self._owners.items() if number not in self._removed)

    def look(self) -> None:
        """Take in what happened until now."""
        while data := self._read():
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                name = data[at : at + length].rstrip(b"\0").decode(errors="surrogateescape")
                at += length
                if mask & _OVERFLOW:
                    self._complete = False
                elif (parent := self._watched.get(watch)) is not None:
                    self._take(mask, (*parent, name))
        if not self._complete:
            self._look_at_all()

    def forget(self) -> None:
        """Drop groups that were removed a while ago."""
        due = asyncio.get_running_loop().time() - self._kept_s
        for number, at in list(self._removed.items()):
            if at < due:
                del self._removed[number]
                self._owners.pop(number, None)

    def _read(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._events, _READ_BYTES)
        return b""

    def _take(self, mask: int, path: tuple[str, ...]) -> None:
        if mask & _CREATE:
            self._meet(path)
        elif mask & _DELETE and not self._at(path).exists():
            # Where it is there again, what made it again is another event.
            self._lose(path)

    def _at(self, path: tuple[str, ...]) -> Path:
        return self._root.joinpath(*path)

    def _meet(self, path: tuple[str, ...]) -> None:
        """A group and all below it, which may be there before we watch."""
        where = self._at(path)
        watch = _libc.inotify_add_watch(
            self._events, os.fsencode(where), ctypes.c_uint32(_CREATE | _DELETE | _ONLY_DIRECTORIES)
        )
        if watch < 0 and ctypes.get_errno() == errno.ENOSPC:
            if self._complete:
                _log.warning("too-few-watches", setting="fs.inotify.max_user_watches", consequence="all is read anew")
            self._complete = False
        elif watch >= 0:
            self._watched[watch] = path
        try:
            number = where.stat().st_ino & 0xFFFFFFFF
            inner = [entry.name for entry in os.scandir(where) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            # Gone already.
            return
        before = self._ids.get(path)
        if before is not None and before != number:
            self._lose(path)
        if len(self._owners) < _MOST:
            self._owners[number] = owner_of(path)
            self._ids[path] = number
            self._removed.pop(number, None)
        for name in inner:
            self._meet((*path, name))

    def _lose(self, path: tuple[str, ...]) -> None:
        number = self._ids.pop(path, None)
        if number is not None:
            self._removed[number] = asyncio.get_running_loop().time()

    def _look_at_all(self) -> None:
        self._complete = True
        for path in list(self._ids):
            if not self._at(path).exists():
                self._lose(path)
        self._meet(())
