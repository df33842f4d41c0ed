"""Fixtures of all tests, and the rule that CI skips nothing that this machine can run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio as aredis
from hypothesis import HealthCheck, settings

from tests.support.redis_server import RedisServer

# The machines that run this are slow at times: a deadline per example would test them.
settings.register_profile("podloxx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("podloxx")

SKIPS_ALLOWED_IN_CI: tuple[str, ...] = ()
"""Beginnings of the reasons for which a test may be skipped where CI runs."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if not (report.skipped and os.environ.get("CI")) or hasattr(report, "wasxfail"):  # noqa: TID251
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(SKIPS_ALLOWED_IN_CI or ("\0",)):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped in CI, where everything is to run: {reason}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short temporary path, which every user may enter: socket paths end at 107 characters."""
    with tempfile.TemporaryDirectory(prefix="plx") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running Redis."""
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[aredis.Redis]:
    """A client of the running Redis."""
    async with aredis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        yield client
