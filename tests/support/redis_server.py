"""A real Redis for a test: memory only, on a socket of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

import redis

from tests.support.wait import wait_until


class RedisServer:
    """A redis-server process on the unix socket `socket`."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.environment: dict[str, str] = {}
        """What it is started with besides this process's own."""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a service's --redis-url takes."""
        return f"unix://{self.socket}"

    def start(self, *options: str) -> None:
        """Start it and wait until it answers; `options` are further arguments of redis-server."""
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed: run `make setup`"
        self.socket.unlink(missing_ok=True)
        fixed = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *fixed, *options],
                stdout=log,
                cwd=self._folder,
                env={**os.environ, **self.environment},  # noqa: TID251
            )
        try:
            wait_until(self._answers, "redis-server answers")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it without any chance to say goodbye."""
        self._end(SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(SIGTERM)

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
