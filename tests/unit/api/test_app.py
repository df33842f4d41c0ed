"""What is said where the kernel lets nobody listen."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from services.api import app
from services.runtime.errors import PodloxxError, PrivilegeError
from services.runtime.settings import ApiSettings
from services.runtime.supervise import Stop


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, PrivilegeError, "cannot listen on 127.0.0.1 port 80: choose a port above 1023"),
        (errno.EMFILE, PodloxxError, "cannot listen on 127.0.0.1 port 80: Too many open files"),
    ],
)
async def test_the_kernel_refuses(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[PodloxxError], words: str
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", refuse)
    with pytest.raises(kind, match=words) as raised:
        await app.run(ApiSettings(port=80, redis_url="redis://127.0.0.1:1"), Stop())
    assert type(raised.value) is kind
