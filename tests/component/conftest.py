"""Fixtures of the component tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aggregators import Aggregators
from tests.support.redis_server import RedisServer


@pytest.fixture
def aggregators(redis_server: RedisServer, folder: Path) -> Iterator[Aggregators]:
    """Aggregators of the running Redis; killed at the end."""
    several = Aggregators(redis_server, folder)
    yield several
    several.end()
