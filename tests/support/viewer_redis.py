"""A Redis on a TCP port with the users of one in a cluster, which all have the same password."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.launcher.store import RULES
from tests.support.wait import wait_until

_WORD: Final = "the_viewers_word"


@dataclass(frozen=True)
class Redis:
    """Where it listens, and the password."""

    port: int
    password: str = _WORD


@contextlib.contextmanager
def viewer_redis(folder: Path) -> Iterator[Redis]:
    """One that runs, with its files in `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    users = "".join(f"user {name} on >{_WORD} {rules}\n" for name, rules in RULES.items())
    (folder / "users.acl").write_text(f"user default off\n{users}")
    program = shutil.which("redis-server")
    assert program, "redis-server is not installed: run `make setup`"
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", str(folder / "users.acl")]
    with (folder / "redis.log").open("wb") as log, subprocess.Popen(argv, stdout=log, cwd=folder) as process:
        try:
            wait_until(lambda: _listens(port), "it listens")
            yield Redis(port)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
