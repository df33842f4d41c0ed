"""Fixtures of all tests, and the rule that CI skips nothing that this machine can run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import redis.asyncio as aredis
import structlog
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.redis_server import RedisServer

# The machines that run this are slow at times: a deadline per example would test them.
settings.register_profile("podloxx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("podloxx")

SKIPS_ALLOWED_IN_CI: tuple[str, ...] = ("without clang-14", "without podman")
"""Beginnings of the reasons for which a test may be skipped where CI runs."""

ALONE: tuple[str, ...] = ("e2e", "cluster", "netns", "torture", "browser")
"""Folders whose tests run one after the other where several processes run tests: they share a server, or look at links.

Those that take longest stand first, and begin first.
"""


def together(nodeid: str) -> str:
    """What a test runs in one process with: the folder of one in `ALONE`, and the file of any other."""
    folder, _, _ = nodeid.removeprefix("tests/").partition("/")
    return folder if folder in ALONE else nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders in `ALONE` first, where several processes run tests: nobody is to wait for them at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # noqa: TID251
        rank = {name: place for place, name in enumerate(ALONE)}
        items.sort(key=lambda item: rank.get(together(item.nodeid), len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Hand out to processes what runs together. Marks of `--dist loadgroup` say nothing to pytest-xdist 3.8 with pytest 9.2."""
    return Together(config, log)


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """What is `together` goes to one process, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that was skipped in CI without leave has failed."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_if_skipped(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that was skipped as a whole in CI without leave has failed."""
    report = yield
    _fail_if_skipped(report, collector.nodeid)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport, what: str) -> None:
    if not (report.skipped and os.environ.get("CI")):  # noqa: TID251
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(SKIPS_ALLOWED_IN_CI):
        report.outcome = "failed"
        report.longrepr = f"{what} was skipped in CI, where everything is to run: {reason}"


@pytest.fixture(autouse=True)
def every_line_is_logged() -> Iterator[None]:
    """A log that a test set up ends with it: a later one may look for lines that it left out."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


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
